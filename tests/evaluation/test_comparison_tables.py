from __future__ import annotations

import io
import math
import re
from dataclasses import replace

from rich.console import Console

from medtune.evaluation.comparison_tables import comparison_markdown, print_comparison, print_scores
from medtune.records import (
    Comparison,
    ComparisonRow,
    Control,
    Lengths,
    MetricTable,
    Score,
    Stratum,
    StratumMetric,
    Verdict,
)

SIGNATURE = "nrefs:1|case:mixed|caps:512"


def row(
    metric: str,
    baseline: float,
    tuned: float,
    verdict: Verdict,
    ci95: tuple[float, float] | None,
    p: tuple[float, float | None] | None,
    table: MetricTable = "standard",
) -> ComparisonRow:
    p_value, p_adjusted = p or (None, None)
    signature = SIGNATURE if metric == "bleu" else metric
    return ComparisonRow(
        metric, baseline, tuned, tuned - baseline, ci95, p_value, p_adjusted, verdict, 900, 1600, 700, signature, table,
        interval=ci95, confidence=0.95 if verdict == "descriptive" else 0.975,
    )  # fmt: skip


ROWS = (
    row("bleu", 4.8652, 19.5, "better", (13.9, 15.401), (0.000999, 0.007992)),
    row("rougeL", 0.25, 0.2, "worse", (-0.06, -0.04), (0.002, 0.014)),
    row("bertscore_f1", 0.85, 0.8501, "cannot tell", (-0.001, 0.0012), (0.4, 0.8)),
    row("bertscore_f1_rescaled", 0.111, 0.1116, "descriptive", (-0.006, 0.0071), (0.4, None)),
    row("exact_match", 0.0, math.nan, "undefined", None, None),
    row("perplexity", math.inf, 6.25, "better", (-5.0, -3.0), (0.001, 0.008)),
    row("bits_per_byte", 0.9, 0.6, "descriptive", (-0.31, -0.29), (0.001, None)),
    row("compat_bleu", 0.0487, 0.195, "descriptive", (0.139, 0.154), (0.001, None), "compat"),
)


def scores(**values: float) -> dict[str, Score]:
    return {metric: Score(value, 1600, metric, 700, (value - 0.01, value + 0.01)) for metric, value in values.items()}


COMPARISON = Comparison(
    rows=ROWS,
    scores={
        "baseline": scores(bleu=4.8652, rougeL=0.25, bertscore_f1=0.85, perplexity=math.inf),
        "tuned": scores(bleu=19.5, rougeL=0.2, bertscore_f1=0.8501, perplexity=6.25),
    },
    lengths={"baseline": Lengths(None, None, 1, None, None), "tuned": Lengths(None, None, 1, None, None)},
    controls=(
        Control(
            "random_answer",
            "a random training answer",
            scores(bleu=20.0, rougeL=0.1, bertscore_f1=0.8),
            (
                row("bleu", 20.0, 19.5, "worse", (-0.9, -0.1), (0.01, 0.02)),
                row("rougeL", 0.1, 0.2, "better", (0.09, 0.11), (0.01, 0.02)),
                row("bertscore_f1", 0.8, 0.8501, "better", (0.04, 0.06), (0.01, 0.02)),
            ),
        ),
    ),
    strata=(
        Stratum(
            "source",
            "A|B",
            12,
            1,
            {"bleu": StratumMetric(1, 2, 1, None), "rouge1": StratumMetric(0.1, 0.2, 0.1, (0.05, 0.15))},
        ),
    ),
)


# Markdown -----------------------------------------------------------------------------------------------------------


def test_markdown() -> None:
    assert comparison_markdown(COMPARISON, ["First.", "Second."]) == (
        "## Reading\n"
        "\n"
        "- First.\n"
        "- Second.\n"
        "\n"
        "## Scores\n"
        "\n"
        "| Metric | Baseline | Tuned | Difference | Interval | p | p, Holm | Verdict |\n"
        "| :-- | --: | --: | --: | :-: | --: | --: | :-- |\n"
        "| bleu | 4.87 | 19.50 | +14.63 | [+13.90, +15.40] | < 0.001 | 0.008 | better |\n"
        "| rougeL | 0.2500 | 0.2000 | -0.0500 | [-0.0600, -0.0400] | 0.002 | 0.014 | worse |\n"
        "| bertscore_f1 | 0.8500 | 0.8501 | +0.0001 | [-0.0010, +0.0012] | 0.400 | 0.800 | cannot tell |\n"
        "|   rescaled | 0.1110 | 0.1116 | +0.0006 | [-0.0060, +0.0071] | 0.400 | - | descriptive |\n"
        "| exact_match | 0.0000 | nan | nan | - | - | - | undefined |\n"
        "| perplexity | inf | 6.25 | -inf | [-5.00, -3.00] | 0.001 | 0.008 | better |\n"
        "| bits_per_byte | 0.9000 | 0.6000 | -0.3000 | [-0.3100, -0.2900] | 0.001 | - | descriptive |\n"
        "\n"
        "## Scores in the form of public write-ups\n"
        "\n"
        "BLEU 0 to 1 without smoothing, ROUGE without stemming and with Lsum on lines.\n"
        "\n"
        "| Metric | Baseline | Tuned | Difference | Interval | p | p, Holm | Verdict |\n"
        "| :-- | --: | --: | --: | :-: | --: | --: | :-- |\n"
        "| compat_bleu | 0.0487 | 0.1950 | +0.1463 | [+0.1390, +0.1540] | 0.001 | - | descriptive |\n"
        "\n"
        "## Controls\n"
        "\n"
        "| Answers | bleu | rougeL | bertscore_f1 | perplexity |\n"
        "| :-- | --: | --: | --: | --: |\n"
        "| baseline | 4.87 | 0.2500 | 0.8500 | inf |\n"
        "| tuned | 19.50 | 0.2000 | 0.8501 | 6.25 |\n"
        "| random_answer: a random training answer | 20.00 (tuned: worse) | 0.1000 (tuned: better) "
        "| 0.8000 (tuned: better) | - |\n"
        "\n"
        "## Strata\n"
        "\n"
        "Tuned minus baseline, with 95 % intervals; strata are many, so look, and do not test.\n"
        "\n"
        "| Stratum | Rows | Groups | bleu |\n"
        "| :-- | --: | --: | :-: |\n"
        "| source: A\\|B | 12 | 1 | +1.00 - |\n"
        "\n"
        "## Signatures\n"
        "\n"
        f"- bleu (n = 1600, 700 groups): `{SIGNATURE}`\n"
        + "".join(f"- {one.metric} (n = 1600, 700 groups): `{one.metric}`\n" for one in ROWS[1:])
    )


def test_parts_that_are_not_there_have_no_heading() -> None:
    bare = replace(COMPARISON, rows=ROWS[:1], controls=(), strata=())
    headings = [line for line in comparison_markdown(bare, []).splitlines() if line.startswith("#")]
    assert headings == ["## Reading", "## Scores", "## Signatures"]
    assert "(n = 1600, 1 group)" in comparison_markdown(replace(bare, rows=(replace(ROWS[0], groups=1),)), [])


def test_every_line_of_a_table_has_as_many_cells() -> None:
    blocks = comparison_markdown(COMPARISON, ["First."]).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1
        assert len(table) > 2


# The terminal -------------------------------------------------------------------------------------------------------


def printed(comparison: Comparison = COMPARISON, *, color: bool = False, encoding: str = "utf-8") -> str:
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(
        file=buffer, width=80, force_terminal=color, color_system="standard" if color else None, legacy_windows=False
    )
    print_comparison(comparison, console)
    buffer.seek(0)
    return buffer.read()


def test_the_table_fits_80_columns_and_loses_nothing() -> None:
    text = printed()
    assert max(map(len, text.splitlines())) <= 80
    assert "Baseline and tuned on the same 1,600 rows" in text
    words = (
        "bertscore_f1", "rescaled", "bits_per_byte", "+14.63", "[+13.90, +15.40]", "↑ better", "↓ worse", "cannot",
        "undefined", "↓ better", "random answer", "intervals of up to 97.5 %",
    )  # fmt: skip
    for word in words:
        assert word in text
    assert "…" not in text
    assert "compat" not in text


def test_perplexities_of_many_digits_fit_as_well() -> None:
    for baseline, tuned in ((128_256.77, 109_482.13), (999_999.99, 123_456.78), (1.5e7, 1.2e6), (1.5e300, 1e300)):
        difference = tuned - baseline
        huge = row("perplexity", baseline, tuned, "better", (1.1 * difference, 0.9 * difference), (0.001, 0.008))
        before = COMPARISON.scores["baseline"] | scores(perplexity=baseline)
        text = printed(replace(COMPARISON, rows=(*ROWS[:4], huge), scores={**COMPARISON.scores, "baseline": before}))
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
        shown = f"{baseline:.3e}" if baseline >= 1e6 else f"{baseline:.2f}"
        assert text.count(shown) == 2  # in both tables
        assert "↓ better" in text


def test_names_of_files_fit_whatever_they_are() -> None:
    names = ("llama3-8b-medquad-predictions-of-monday[bold]", "/a/long/path/to/another/file/of/predictions.jsonl")
    huge = row("perplexity", 1.5e300, 1e300, "better", (-6e299, -4e299), (0.001, 0.008))
    for rows, words in (
        (ROWS[:4], ["[-0.0600, -0.0400]"]),
        ((*ROWS[:4], huge), ["1.500e+300", "-5.000e+299", "[+13.90,"]),
    ):
        text = printed(replace(COMPARISON, rows=rows, controls=(), names=names))
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
        for word in (*words, "monday[bo", "+14.63", "↑ better"):
            assert word in text


def test_names_of_files_are_broken_inside_a_word_only_where_there_is_no_room() -> None:
    comparison = replace(
        COMPARISON, rows=ROWS[:2], controls=(), names=("predictions_of_monday", "llama3-8b/predictions")
    )
    text = printed(comparison)
    for word in ("predictions_", "of_monday", "llama3-8b/", "predictions"):
        assert re.search(rf"(^|\s){word}(\s|$)", text, re.M), word
    assert "[+13.90, +15.40]" in text
    # Where a word lacks room, what is left of it begins the next line.
    crowded = printed(replace(COMPARISON, controls=(), names=("predictions_of_monday", "x" * 30)))
    assert max(map(len, crowded.splitlines())) <= 80
    assert not re.search(r"\s_\s", crowded)
    longer = printed(replace(comparison, names=("a" * 70, "b")))
    assert max(map(len, longer.splitlines())) <= 80
    # Words of usual length cost the other columns nothing.
    assert printed(replace(comparison, names=("before", "after"))).splitlines()[1].split() == [
        "metric", "before", "after", "difference", "interval",
    ]  # fmt: skip


def test_one_row_and_none() -> None:
    titles = printed(replace(COMPARISON, rows=(replace(ROWS[0], n=1),))).splitlines()
    assert titles[0].strip() == "Baseline and tuned on the same 1 row"
    assert "No rows" in printed(replace(COMPARISON, rows=(), controls=()))


def test_one_primary_metric_needs_no_correction() -> None:
    text = printed(replace(COMPARISON, rows=ROWS[:1], controls=()))
    assert "The row with a verdict is primary. The others are descriptive, at 95 %." in text


def test_colour_follows_the_verdict_and_not_the_sign() -> None:
    lines = {line.split()[0]: line for line in printed(color=True).splitlines() if "\x1b[" in line and line.split()}
    assert "\x1b[32m↑ better" in lines["bleu"]
    assert "\x1b[31m↓ worse" in lines["rougeL"]
    assert "\x1b[32m↓ better" in lines["perplexity"]
    assert "\x1b[2mcannot" in lines["bertscore_f1"]
    assert "\x1b[33mundefined" in lines["exact_match"]


def test_an_ascii_terminal_gets_ascii() -> None:
    text = printed(encoding="ascii")
    assert text.isascii()
    for word in ("up, better", "down, worse", "down, better", "cannot tell"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 80


def test_scores_of_one_system() -> None:
    console = Console(file=io.StringIO(), width=80)
    measured = scores(bleu=19.5, bertscore_f1_rescaled=0.11, perplexity=1.5e300, compat_bleu=0.195)
    print_scores(measured | {"exact_match": Score(0.5, 1600, "x", 700, None)}, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    table = {line.split()[0]: line.split(maxsplit=2)[1:] for line in text.splitlines() if line.strip()}
    assert "1,600 rows in 700 groups" in text
    assert table["bleu"][0] == "19.50"
    assert table["bleu"][1].strip() == "[19.49, 19.51]"
    assert table["compat_bleu"][1].strip() == "[0.1850, 0.2050]"
    assert table["exact_match"][1].strip() == "-"
    assert table["bertscore_f1_rescaled"][0] == "0.1100"
    one = Console(file=io.StringIO(), width=80)
    print_scores({"bleu": Score(1.0, 1, "x", 1, None)}, one)
    assert one.file.getvalue().splitlines()[0].strip() == "1 row in 1 group"  # type: ignore[attr-defined]
