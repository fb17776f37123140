"""What rows hold beside their own words: HTML and the marks of a written-out chat, found, counted and left out."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from medtune.data.html_text import to_plain_text
from medtune.data.markup import Kind, separate_answer, separate_question
from medtune.data.turns import with_turns
from medtune.errors import Option
from medtune.records import QAPair, Role

# The names of the kinds in `data/report.json`, followed by "_removed" or "_kept".
_NAMES: dict[Kind, str] = {
    "end token": "end_tokens",
    "role marker": "role_markers",
    "prompt": "written_out_prompts",
    "reasoning": "reasoning",
}
_WORDS = {name: name.replace("_", " ") for name in _NAMES.values()}
# An end token with more behind it: an answer ends there.
CUT = "cut_at_end_token"
HTML = "html_to_text", "html_kept"
# What tables call each count.
COUNT_NAMES = {
    **{
        f"{name}_{fate}": f"rows with {words}, {fate}" for fate in ("removed", "kept") for name, words in _WORDS.items()
    },
    CUT: "rows cut at an end token",
    HTML[0]: "rows with HTML, made plain text",
    HTML[1]: "rows with HTML, kept",
}


@dataclass(frozen=True, slots=True)
class RowMarkup:
    """Rows as `data.markup` and `data.html` want them, how many rows held each kind, and what to say of that."""

    pairs: list[QAPair]
    counts: dict[str, int]
    lines: tuple[str, ...]


def find_markup(pairs: Iterable[QAPair], markup: Literal["remove", "keep"], html: Literal["text", "keep"]) -> RowMarkup:
    """Find markup in every question, answer and turn; kept or removed, it is counted.

    A text of nothing else becomes empty, and cleaning drops its row. Changed rows keep the text as it was read in
    `raw_question` and `raw_answer`.
    """
    counts: Counter[str] = Counter()
    done = []
    for pair in pairs:
        found: set[str] = set()
        question = _changed(pair.question, "user", found, markup, html)
        answer = _changed(pair.answer, "assistant", found, markup, html)
        context = _changed(pair.context, "user", found, markup, html)
        references = tuple(_changed(text, "assistant", found, markup, html) for text in pair.references)
        turns = [_changed(turn.content, turn.role, found, markup, html) for turn in pair.turns]
        if found:
            counts.update(found)
            pair = replace(
                with_turns(pair, turns),
                question=question,
                answer=answer,
                context=context,
                references=references,
                raw_question=pair.raw_question or pair.asked,
                raw_answer=pair.raw_answer or pair.answer,
            )
        done.append(pair)
    return RowMarkup(done, dict(sorted(counts.items())), markup_lines(counts))


def _changed(text: str, role: Role, found: set[str], markup: str, html: str) -> str:
    plain = to_plain_text(text)
    if plain != text:
        found.add(HTML[html == "keep"])
        text = text if html == "keep" else plain
    rest, kinds = separate_answer(text) if role == "assistant" else separate_question(text)
    if not kinds:
        return text
    found.update(f"{_NAMES[kind]}_{'kept' if markup == 'keep' else 'removed'}" for kind in kinds)
    if markup == "keep":
        return text
    if "end token" in kinds and role == "assistant" and _has_more(text, rest):
        found.add(CUT)
    return rest


def _has_more(text: str, answer: str) -> bool:
    """Whether words come after the end of `answer` in `text`."""
    behind = text.rpartition(answer)[2] if answer else ""
    return bool(separate_question(behind)[0].strip())


def markup_lines(counts: Counter[str]) -> tuple[str, ...]:
    """What to say of the rows that held each kind."""
    lines = []
    for ending, says in (
        ("removed", ("left out of what is learned and measured; ", Option("set", "data.markup=keep"), " keeps them")),
        ("kept", ("learned as plain text; ", Option("set", "data.markup=remove"), " leaves them out")),
    ):
        if found := {name: counts[f"{name}_{ending}"] for name in _WORDS if counts[f"{name}_{ending}"]}:
            rows = ", ".join(f"{_WORDS[name]} in {n:,} {_rows(n)}" for name, n in found.items())
            lines.append(f"not text of their own: {rows}; {''.join(map(str, says))}")
    if n := counts[CUT]:
        lines.append(f"{n:,} {_rows(n)} had more text behind an end token, which is left out")
    if n := counts[HTML[0]]:
        keep = Option("set", "data.html=keep")
        lines.append(f"HTML in {n:,} {_rows(n)} made plain text, paragraphs and list items as lines; {keep} keeps it")
    if n := counts[HTML[1]]:
        lines.append(f"HTML in {n:,} {_rows(n)} is kept; {Option('set', 'data.html=text')} makes it plain text")
    return tuple(lines)


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"
