"""What a run ends with: a headline, four lines at most, and how many warnings there are."""

from dataclasses import replace

from comparisons import control, of_rows, row
from medtune.data.leakage import KINDS
from medtune.evaluation.control_answers import CEILING
from medtune.evaluation.ending import ending, leading_control, warning_count
from medtune.evaluation.headline import headline

PRIMARY = (
    row("rougeL", 0.1, 0.2),
    row("bertscore_f1", 0.59, 0.6, "cannot tell"),
    row("perplexity", 219.4, 70.05),
    row("bleu", 1.0, 4.0, "descriptive"),
)
RANDOM = control("random_answer", row("rougeL", 0.19, 0.2), row("bertscore_f1", 0.68, 0.6, "worse"))
NEAREST = control("nearest_question", row("rougeL", 0.20, 0.2), row("bertscore_f1", 0.69, 0.6, "worse"))
WHOLE = control(CEILING, row("rougeL", 1.0, 0.2, "worse"), row("bertscore_f1", 1.0, 0.6, "worse"))


def test_the_headline_and_four_lines_in_columns():
    compared = of_rows(*PRIMARY, controls=(RANDOM, NEAREST, WHOLE))
    assert ending(compared) == [
        headline(compared),
        "ROUGE-L F1    0.1000 → 0.2000  better",
        "BERTScore F1  0.5900 → 0.6000  cannot tell",
        "perplexity    219.40 → 70.05   better",
        "best control, nearest question: ROUGE-L F1 0.2000, BERTScore F1 0.6900",
    ]


def test_without_controls_nothing_is_said_of_them():
    assert len(ending(of_rows(*PRIMARY))) == 4
    assert leading_control(of_rows(*PRIMARY, controls=(WHOLE,))) is None


def test_the_best_control_leads_by_most_metrics_and_lower_perplexity_is_better():
    few_shot = control("few_shot", row("perplexity", 60.0, 70.05, "worse"), row("rougeL", 0.3, 0.2, "worse"))
    untuned = control("random_answer", row("perplexity", 80.0, 70.05), row("rougeL", 0.25, 0.2, "worse"))
    compared = of_rows(*PRIMARY, controls=(untuned, few_shot))
    assert leading_control(compared) is few_shot


def test_a_run_that_tested_every_metric_has_no_more_lines():
    every = [replace(one, verdict="better") for one in PRIMARY]
    compared = of_rows(*every, row("bits_per_byte", 2.6, 2.0), controls=(NEAREST,))
    assert [line.split("  ")[0] for line in ending(compared)[1:-1]] == ["perplexity", "ROUGE-L F1", "BERTScore F1"]


def test_warnings_are_counted():
    assert warning_count(of_rows(*PRIMARY)) == "No warnings"
    assert warning_count(of_rows(*PRIMARY, leaking_rows={KINDS[0]: 3})) == "1 warning"
