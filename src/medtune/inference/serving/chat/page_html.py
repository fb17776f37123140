"""The page's own HTML: texts of rows and answers are shown as text, whatever they contain."""

from __future__ import annotations

import html
from collections.abc import Sequence

from medtune.evaluation.human.rubric import CRITERIA, GUIDE, RATING_COLUMNS, SCALE, Criterion
from medtune.inference.serving.chat.conversation import Exchange, Reply
from medtune.records import QAPair

NOTICE = (
    "Not medical advice: a language model writes these answers, and they may be wrong. medtune measures similarity to "
    "reference answers; it does not measure whether an answer is right."
)
NAMES = {"base": "Base", "tuned": "Tuned", "a": "Answer A", "b": "Answer B"}
# What the page's templates would take for an expression.
_TEMPLATE_SIGNS = {ord(sign): f"&#{ord(sign)};" for sign in "${}`\\"}


def shown(text: str) -> str:
    """`text` as HTML that runs nothing, asks for nothing and is no template."""
    return html.escape(text).translate(_TEMPLATE_SIGNS)


def header(title: str) -> str:
    """The name of what is asked, and the notice that stays in sight."""
    head = f'<div class="mt-head"><h1><span>medtune chat</span> {shown(title)}</h1></div>'
    return f'{head}<p class="mt-notice" role="note">{NOTICE}</p>'


def talk(exchanges: Sequence[Exchange]) -> str:
    """A conversation: each question with its answers side by side."""
    if not exchanges:
        return '<p class="mt-empty">Ask something below, or pick a test question.</p>'
    return "".join(_exchange(exchange) for exchange in exchanges)


def blind_pair(question: str, answers: tuple[str, str] | None, notes: tuple[str, str] = ("", "")) -> str:
    """A question, and both answers under the names of their sides once both are complete."""
    if answers is None:
        cards = '<p class="mt-empty">Both answers are being written; they appear together.</p>'
    else:
        both = zip("ab", answers, notes, strict=True)
        cards = "".join(_card(NAMES[side], text, "", note) for side, text, note in both)
        cards = f'<div class="mt-answers mt-of-2">{cards}</div>'
    return f'<section class="mt-exchange">{_question(question)}{cards}</section>'


def beside(row: QAPair | None, nearest: Sequence[QAPair], missing: str, *, is_blind: bool = False) -> str:
    """The reference of a question, and the nearest training answers; a sentence in place of what there is not.

    Raters see no training answers: a tuned model may repeat them.
    """
    if missing:
        return f'<p class="mt-empty">{shown(missing)}</p>'
    if row is None:
        what = "reference of a test question appears" if is_blind else "reference and nearest training answers appear"
        return f'<p class="mt-empty">The {what} here.</p>'
    parts = [_reference(row, is_blind=is_blind)]
    if is_blind:
        return "".join(parts)
    parts.append("<h2>Nearest training questions</h2>")
    parts += [_fold(other.asked, other.answer) for other in nearest]
    if not nearest:
        parts.append('<p class="mt-empty">The training questions have no word in common with any other.</p>')
    return "".join(parts)


def criterion_text(criterion: Criterion) -> str:
    """A criterion's question with what its scale means."""
    legend = f"{SCALE[0]} {criterion.lowest} · {SCALE[-1]} {criterion.highest}"
    return f'<p class="mt-criterion"><b>{criterion.title}.</b> {criterion.question} <span>{legend}</span></p>'


def problem(text: str) -> str:
    """Why a question was not answered."""
    return f'<p class="mt-problem" role="alert">{shown(text)}</p>'


def saved(count: int) -> str:
    """That so many ratings of the item are on the disk."""
    return f'<p class="mt-empty" role="status">Saved: {count} of {len(RATING_COLUMNS) + 1} given.</p>'


def guide() -> str:
    """How to rate."""
    titles = ", ".join(criterion.title.lower() for criterion in CRITERIA)
    points = "".join(f"<li>{shown(point)}</li>" for point in GUIDE)
    return f'<details class="mt-fold"><summary>How to rate: {titles}</summary><ul>{points}</ul></details>'


def _exchange(exchange: Exchange) -> str:
    cards = "".join(
        _card(NAMES[model], reply.text, _state(reply), _note(reply, exchange.cap))
        for model, reply in sorted(exchange.replies.items())
    )
    count = len(exchange.replies)
    return (
        f'<section class="mt-exchange">{_question(exchange.question)}'
        f'<div class="mt-answers mt-of-{count}">{cards}</div></section>'
    )


def _question(question: str) -> str:
    return f'<div class="mt-question"><span class="mt-name">Question</span><div>{shown(question)}</div></div>'


def _card(name: str, text: str, state: str, note: str) -> str:
    body = shown(text) or ("…" if state else "(empty answer)")
    below = f'<p class="mt-note">{shown(note)}</p>' if note else ""
    return f'<article class="mt-card {state}"><span class="mt-name">{name}</span><div>{body}</div>{below}</article>'


def _state(reply: Reply) -> str:
    return "mt-writing" if reply.state == "writing" else ""


def _note(reply: Reply, cap: int) -> str:
    notes = []
    if reply.forgotten:
        notes.append(f"the first {reply.forgotten} questions no longer fit into the prompt")
    if reply.state == "length":
        notes.append(cut_note(cap))
    elif reply.state == "stopped":
        notes.append("stopped")
    elif reply.state == "failed":
        notes.append(f"failed: {reply.problem}")
    return " · ".join(notes)


def cut_note(cap: int) -> str:
    """What is said of an answer that the cap has cut."""
    return f"cut by the cap of {cap} tokens"


def _reference(row: QAPair, *, is_blind: bool) -> str:
    if not row.answer:
        return '<h2>Reference answer</h2><p class="mt-empty">A question of your own has no reference.</p>'
    before = "".join(f'<p class="mt-turn"><b>{turn.role}</b> {shown(turn.content)}</p>' for turn in row.turns)
    if before:
        before = f"<h2>Turns before the question</h2>{before}"
    references = "".join(f'<div class="mt-text">{shown(text)}</div>' for text in row.references or (row.answer,))
    if is_blind:
        return f'{before}<details class="mt-fold"><summary>Reference answer</summary>{references}</details>'
    return f"{before}<h2>Reference answer</h2>{references}"


def _fold(title: str, text: str) -> str:
    body = f'<div class="mt-text">{shown(text)}</div>'
    return f'<details class="mt-fold" open><summary>{shown(title)}</summary>{body}</details>'
