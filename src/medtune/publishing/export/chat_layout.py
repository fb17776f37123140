"""What a chat template writes around the turns of a chat, as one pattern that holds for any number of turns."""

from dataclasses import dataclass
from typing import Any

from medtune.data.chat_template import SYSTEM_PLACE
from medtune.data.prompts import PromptRenderer
from medtune.data.turn_templates import TurnTemplates
from medtune.errors import ModelError, Option

# Chats of so many earlier exchanges are rendered to find the pattern: it has to hold for all of them.
_EXCHANGES = 4


@dataclass(frozen=True, slots=True)
class Opening:
    """Text before the first question, if more questions follow it or if it is the only one, and before the last.

    Each may hold `SYSTEM_PLACE`, in the place of the system prompt.
    """

    first: str
    only: str
    last: str


@dataclass(frozen=True, slots=True)
class ChatLayout:
    """Text around the turns: openings with and without a system prompt, and what comes between turns.

    `before_answer` comes between an earlier question and its answer, `before_question` between an answer and a question
    that is not the last, and `generation` behind the last question.
    """

    with_system: Opening
    without_system: Opening
    before_answer: str
    before_question: str
    generation: str


def read_layout(renderer: PromptRenderer) -> ChatLayout:
    """The layout of the renderer's chat template. Raises ModelError, saying why, if it has no such pattern."""
    tokenizer: Any = renderer.tokenizer
    templates = TurnTemplates(
        tokenizer, lambda text: tokenizer.encode(text, add_special_tokens=False), renderer.today, renderer.settings
    )
    pieces = {
        (count, system): _pieces(templates, count, system) for count in range(_EXCHANGES) for system in (True, False)
    }
    with_system = _layout([pieces[count, True] for count in range(_EXCHANGES)])
    without_system = _layout([pieces[count, False] for count in range(_EXCHANGES)])
    if with_system is None or without_system is None or with_system[1] != without_system[1]:
        problem = "its chat template writes turns differently in longer chats, which Ollama's templates do not express"
        fix = (Option("format", "gguf"), " writes a file that holds the template itself, for llama.cpp's server")
        raise ModelError(tokenizer.name_or_path, problem, fix)
    return ChatLayout(with_system[0], without_system[0], *with_system[1])


def _pieces(templates: TurnTemplates, exchanges: int, system: bool) -> list[str]:
    pieces = list(templates.pieces(exchanges, with_system=system))
    if system:
        pieces[0] += templates.chat(with_system=True).system_in_question
    return pieces


def _layout(chats: list[list[str]]) -> tuple[Opening, tuple[str, str, str]] | None:
    """The pattern of prompts after 0, 1, 2 … exchanges; None if there is none."""
    only, generation = chats[0]
    first, before_answer = chats[1][:2]
    last, before_question = chats[1][2], chats[2][2]
    for count, pieces in enumerate(chats[1:], 1):
        middle = [before_answer, before_question] * (count - 1)
        if pieces != [first, *middle, before_answer, last, generation]:
            return None
    if SYSTEM_PLACE in before_answer + before_question + generation:
        return None
    return Opening(first, only, last), (before_answer, before_question, generation)
