"""The words: nothing that people read has an expression that we have retired for the field's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What is read.
ROOTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "notebooks", "benchmarks", "deploy", "src")
SUFFIXES = {".md", ".ipynb", ".py", ".jinja", ".html", ".js", ".yaml"}
_NOUNS = "caps|files|kinds|lengths|models|perplexities|rows|settings|signatures|sizes|texts|tokens|units|vocabularies"

# Each expression that is retired, and what is written instead. A space also matches a line break.
RETIRED = {
    r"foretold|foretells?|foretelling": "predicted, predict",
    r"anew|afresh": "again",
    r", save (?:for|in|inside|one|when|where)|save for (?:a|an|its|one|the|their)": "except",
    r"wears": "has",
    rf"unlike (?:{_NOUNS})": "different",
    r"(?<!is\s)(?<!'s\s)going on(?: (?:at|from|past|where|with)|(?=[;:,]))": "resuming, continuing",
    r"(?:takes?|took) no tuning": "answers without tuning",
    r"(?:what|which|that) mends|mends? (?:it|the|them)|can mend": "fix",
    r"(?-i:Of) (?!course)(?-i:[a-z])\w*": "the subject first",
    r"stands? (?:above|apart|at|before|behind|below|beside|between|first|here|in|on|there|twice|under)(?! for)": "is",
}
_EXPRESSIONS = {re.compile(rf"\b(?:{words})(?!\w)".replace(" ", r'[\s#"]+'), re.I): words for words in RETIRED}


def retired(text: str) -> list[str]:
    """Every retired expression in `text` with its line and what is written instead."""
    return [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; write {RETIRED[words]!r}"
        for expression, words in _EXPRESSIONS.items()
        for match in expression.finditer(text)
    ]


def words_of(path: Path) -> str:
    """What a file says itself: a page without its code, its quotes of the program's output and its tree."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        code_or_tree = r"^ *```.*?^ *```$|<!-- tree -->.*<!-- /tree -->|`[^`\n]+`"
        return re.sub(code_or_tree, lambda code: "\n" * code[0].count("\n"), text, flags=re.M | re.S)
    if path.suffix == ".ipynb":
        return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text


FILES = [
    path
    for root in ROOTS
    for path in ([ROOT / root] if (ROOT / root).is_file() else sorted((ROOT / root).rglob("*")))
    if path.suffix in SUFFIXES
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_retired_expression(path: Path) -> None:
    assert retired(words_of(path)) == []


@pytest.mark.parametrize("root", ROOTS)
def test_every_root_is_read(root: str) -> None:
    assert any(path.is_relative_to(ROOT / root) for path in FILES)


@pytest.mark.parametrize("text", [
    "the peak is foretold", "it foretells time", "planned anew", "counted\n# afresh", "everything, save for one",
    "of its shape, save in one thing", "the rest save for its last product", "the adapter that the model wears",
    "Unlike signatures never compare", "unlike\n    rows", "going on with 4", "torn; going on, checkpoints follow",
    "Beside what took no tuning", "that take no tuning", "says what mends it", "what the user can mend", "mend the row",
    "It ends. Of a Hub model no weights are fetched", "Of several processes only one", "it stands in the report",
    "rows stand on one side", 'id "1" stands in two rows', "BOS stands twice",
])  # fmt: skip
def test_a_retired_expression_is_found(text: str) -> None:
    assert len(retired(text)) == 1


@pytest.mark.parametrize("text", [
    "to see what is going on with the model", "what's going on here", "going on a GPU", "save in a folder", "save it",
    "unlike Path.is_dir, no error", "None stands for no limit", "it stands in for the probe", "a sheet of paper",
    "amend it", "a part Of_name", "proof of the pudding", "Of course", "standing in line", "wearable",
])  # fmt: skip
def test_other_uses_are_left_alone(text: str) -> None:
    assert retired(text) == []


def test_quotes_and_code_of_a_page_are_not_its_words(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("It is `foretold`:\n\n```text\nforetold\n```\n\n  ```text\n  anew\n  ```\nwears\n")
    assert retired(words_of(page)) == ["line 10: 'wears'; write 'has'"]
