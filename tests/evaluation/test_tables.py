from __future__ import annotations

import io
import math

from rich.console import Console

from medtune.evaluation.tables import comparison_markdown, print_comparison
from medtune.records import ComparisonRow

SIGNATURE = "nrefs:1|case:mixed|caps:512"
ROWS = [
    ComparisonRow("bleu", 4.8652, 19.5, 19.5 - 4.8652, 500, SIGNATURE),
    ComparisonRow("rougeL", 0.25, 0.2, 0.2 - 0.25, 500, "rouge"),
    ComparisonRow("bertscore_f1", 0.85, 0.85, 0.0, 500, "bert"),
    ComparisonRow("exact_match", 0.0, math.nan, math.nan, 500, "exact"),
    ComparisonRow("perplexity", math.inf, 6.25, -math.inf, 500, "perplexity"),
]


def test_markdown() -> None:
    assert comparison_markdown(ROWS, ["First.", "Second."], heading_level=3) == (
        "### Scores\n"
        "\n"
        "| Metric | Baseline | Tuned | Difference | Better? |\n"
        "| :-- | --: | --: | --: | :-- |\n"
        "| bleu | 4.87 | 19.50 | +14.63 | yes |\n"
        "| rougeL | 0.2500 | 0.2000 | -0.0500 | no |\n"
        "| bertscore_f1 | 0.8500 | 0.8500 | 0.0000 | same |\n"
        "| exact_match | 0.0000 | nan | nan | undefined |\n"
        "| perplexity | inf | 6.25 | -inf | yes |\n"
        "\n"
        "### Reading\n"
        "\n"
        "- First.\n"
        "- Second.\n"
        "\n"
        "### Signatures\n"
        "\n"
        f"- bleu (n = 500): `{SIGNATURE}`\n"
        "- rougeL (n = 500): `rouge`\n"
        "- bertscore_f1 (n = 500): `bert`\n"
        "- exact_match (n = 500): `exact`\n"
        "- perplexity (n = 500): `perplexity`\n"
    )


def test_every_table_line_has_five_cells() -> None:
    table = [line for line in comparison_markdown(ROWS, []).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ROWS)
    assert {line.count("|") for line in table} == {6}


def printed(*, color: bool, encoding: str = "utf-8") -> str:
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(
        file=buffer, width=80, force_terminal=color, color_system="standard" if color else None, legacy_windows=False
    )
    huge = ComparisonRow("perplexity", 1.5e300, 1e300, -5e299, 500, "perplexity")
    print_comparison([*ROWS, huge], console)
    buffer.seek(0)
    return buffer.read()


def test_terminal_table_fits_80_columns_and_loses_nothing() -> None:
    text = printed(color=False)
    assert max(len(line) for line in text.splitlines()) <= 80
    for word in ("bertscore_f1", "+14.63", "↑ better", "↓ worse", "equal", "undefined", "-5.000e+299", "↓ better"):
        assert word in text
    assert "…" not in text


def test_colour_follows_the_verdict_and_not_the_sign() -> None:
    lines = {line.split()[1]: line for line in printed(color=True).splitlines() if "\x1b[" in line and "│" in line}
    assert "\x1b[32m↑ better" in lines["bleu"]
    assert "\x1b[31m↓ worse" in lines["rougeL"]
    assert "\x1b[32m↓ better" in lines["perplexity"]


def test_an_ascii_terminal_gets_ascii() -> None:
    text = printed(color=False, encoding="ascii")
    assert text.isascii()
    assert "up, better" in text
    assert "down, worse" in text
