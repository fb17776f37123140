"""The turns of a row's conversation: a system turn, if any, then exchanges; the last is question and answer."""

from collections.abc import Sequence
from dataclasses import replace

from medtune.records import QAPair, Turn


def system_turn(pair: QAPair) -> str:
    """The row's own system turn; empty where it has none."""
    return pair.turns[0].content if pair.turns and pair.turns[0].role == "system" else ""


def earlier_exchanges(pair: QAPair) -> list[tuple[str, str]]:
    """What the user and the assistant said before the question, exchange by exchange."""
    said = [turn.content for turn in pair.turns if turn.role != "system"]
    return list(zip(said[::2], said[1::2], strict=True))


def all_exchanges(pair: QAPair) -> list[tuple[str, str]]:
    """Every exchange of the row, question and answer last."""
    return [*earlier_exchanges(pair), (pair.question, pair.answer)]


def user_turns(pair: QAPair) -> list[str]:
    """All that the user says, the question last."""
    return [*(asked for asked, _ in earlier_exchanges(pair)), pair.question]


def asked_text(pair: QAPair) -> str:
    """The user's turns as one text: the question itself where nothing comes before it."""
    return "\n".join(user_turns(pair))


def conversation_text(pair: QAPair) -> str:
    """What is said before the answer, as a reader sees it: the question alone where nothing comes before it."""
    if not pair.turns:
        return pair.question
    said = [*pair.turns, Turn("user", pair.question)]
    return "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in said)


def without_oldest(pair: QAPair, count: int) -> QAPair:
    """`pair` without its first `count` exchanges; its system turn stays."""
    system = [turn for turn in pair.turns if turn.role == "system"]
    return replace(pair, turns=(*system, *pair.turns[len(system) + 2 * count :]))


def single_answers(pair: QAPair) -> list[QAPair]:
    """A row for each learned answer of the conversation, with what comes before it, in order."""
    ends = [place for place, turn in enumerate(pair.turns) if turn.role == "assistant" and turn.learned]
    return [*(_ending_at(pair, place) for place in ends), pair]


def _ending_at(pair: QAPair, place: int) -> QAPair:
    question, answer = pair.turns[place - 1 : place + 1]
    return replace(pair, question=question.content, answer=answer.content, turns=pair.turns[: place - 1])


def with_turns(pair: QAPair, contents: Sequence[str]) -> QAPair:
    """`pair` with other texts in its turns, in their order."""
    return replace(pair, turns=tuple(map(_with_content, pair.turns, contents)))


def _with_content(turn: Turn, content: str) -> Turn:
    return replace(turn, content=content)
