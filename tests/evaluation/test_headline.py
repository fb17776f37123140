"""The headline, and the best control: the strongest rival by a metric, and never the ceiling."""

from __future__ import annotations

import math

import pytest

from comparisons import control, of_rows, row
from medtune.evaluation.headline import best_control, headline
from medtune.records import Comparison, ComparisonRow, Control, ControlName, Lengths, Score, Verdict


def with_controls(metric: str, values: dict[ControlName, float]) -> Comparison:
    controls = tuple(
        Control(name, name, {metric: Score(value, 9, "one-way", 3, None)}, ()) for name, value in values.items()
    )
    return Comparison((row(metric, 1.0, 2.0),), {}, {}, controls=controls)


def test_the_best_control_is_that_by_the_metrics_own_direction() -> None:
    values: dict[ControlName, float] = {"few_shot": 3.0, "random_answer": 5.0, "nearest_question": math.nan}
    assert best_control(with_controls("bleu", values), "bleu") == ("random_answer", 5.0)
    assert best_control(with_controls("perplexity", values), "perplexity") == ("few_shot", 3.0)


def test_neither_the_ceiling_nor_the_tuned_model_itself_is_one() -> None:
    values: dict[ControlName, float] = {"cut_reference": 100.0, "tuned_retrieval": 50.0, "retrieval": 4.0}
    assert best_control(with_controls("bleu", values), "bleu") == ("retrieval", 4.0)
    del values["retrieval"]
    assert best_control(with_controls("bleu", values), "bleu") is None
    assert best_control(with_controls("bleu", {"few_shot": 3.0}), "rougeL") is None


def better(*metrics: str) -> list[ComparisonRow]:
    return [row(metric, 1.0, 2.0) for metric in metrics]


ONE = " One training: another seed may score differently."


def test_style_and_no_content() -> None:
    lost = control("random_answer", row("rougeL", 3.0, 2.0, "worse"))
    assert headline(of_rows(*better("rougeL", "bertscore_f1"), controls=(lost,))) == (
        "It learned the style, not the content: it beats the baseline, but a random training answer scores higher "
        "(ROUGE-L F1 3.0000 against 2.0000)." + ONE
    )
    # A descriptive metric proves nothing, and neither does the ceiling.
    beside = control("random_answer", row("rougeL", 1.0, 2.0), row("bleu", 3.0, 2.0, "descriptive"))
    ceiling = control("cut_reference", row("rougeL", 9.0, 2.0, "worse"))
    found = headline(of_rows(*better("rougeL"), controls=(beside, ceiling)))
    assert (
        found
        == "Tuning helped: the tuned model beats the baseline by rougeL, and beats every rival.".replace(
            "rougeL", "ROUGE-L F1"
        )
        + ONE
    )


def test_a_simpler_way_that_does_better() -> None:
    lost = control("retrieval", row("rougeL", 3.0, 2.0, "worse"))
    on_top = control("tuned_retrieval", row("rougeL", 3.0, 2.0, "worse"))
    assert headline(of_rows(*better("rougeL"), controls=(lost, on_top))) == (
        "Tuning helped, but less than a simpler way: the tuned model beats the baseline by ROUGE-L F1, but the "
        "untouched model with the nearest training answers in its prompt scores higher (ROUGE-L F1 3.0000 "
        "against 2.0000)." + ONE
    )
    assert "and beats every rival" not in headline(of_rows(*better("rougeL"), controls=(on_top,)))


def test_a_rival_that_is_not_shown_to_be_beaten() -> None:
    unclear = control("few_shot", row("rougeL", 2.0, 2.0, "cannot tell"))
    rows = [*better("rougeL"), row("bertscore_f1", 1.0, 1.0, "cannot tell")]
    assert headline(of_rows(*rows, controls=(unclear,))) == (
        "Tuning helped: the tuned model beats the baseline by ROUGE-L F1 (1 of 2 primary metrics), but is not shown to "
        "beat the untouched model with three worked examples in its prompt." + ONE
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["worse", "cannot tell"], "Tuning hurt: the tuned model is worse than the baseline by ROUGE-L F1." + ONE),
        (
            ["better", "worse"],
            "Mixed: the tuned model is better than the baseline by ROUGE-L F1, and worse by BERTScore F1." + ONE,
        ),
        (
            ["equivalent", "equivalent"],
            "No difference that matters: the tuned model and the baseline are equivalent within the margins "
            "(ROUGE-L F1 ± 0.5 and BERTScore F1 ± 0.5)." + ONE,
        ),
        (
            ["cannot tell", "cannot tell"],
            "Cannot tell: this test set shows no difference between the tuned model and the baseline, and would miss "
            "one smaller than 0.2500 (ROUGE-L F1) and 0.2500 (BERTScore F1).",
        ),
        (
            ["too few groups", "too few groups"],
            "No verdict: 300 independent groups of rows can show nothing; a test over 2 primary metrics takes at "
            "least 7.",
        ),
        (["undefined", "undefined"], "No verdict: the scores cannot be compared."),
    ],
)
def test_what_is_said_of_each_verdict(verdicts: list[Verdict], expected: str) -> None:
    rows = [
        row(metric, 1.0, 2.0, verdict, detectable=0.25)
        for metric, verdict in zip(("rougeL", "bertscore_f1"), verdicts, strict=True)
    ]
    assert headline(of_rows(*rows)) == expected


def test_the_cap_is_told_where_it_cut() -> None:
    cut = {"baseline": Lengths(9, 9, 1, 1, 0), "tuned": Lengths(9, 9, 1, 0.6, 0.4)}
    assert " The cap cut 40% of its answers. One training" in headline(of_rows(*better("rougeL"), lengths=cut))


def test_of_files_nobody_knows_that_one_was_tuned() -> None:
    names = ("gpt", "mine")
    assert headline(of_rows(*better("rougeL"), names=names)) == "mine beats gpt by ROUGE-L F1."
    assert headline(of_rows(row("rougeL", 2, 1, "worse"), names=names)) == "mine is worse than gpt by ROUGE-L F1."
