"""A tokenizer's chat template, rendered once with placeholders: what it writes around a row's own text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medtune.errors import ModelError, first_line
from medtune.runtime.limits import BoundReachedError, bounded

# Plain words, so that no template and no tokenizer treats them specially; long, so that no other text holds them.
SYSTEM_PLACE = "MEDTUNESYSTEMPLACE"
_QUESTION, _ANSWER = "MEDTUNEQUESTIONPLACE", "MEDTUNEANSWERPLACE"
# A template takes some hundred steps and writes some hundred characters around these.
MAX_STEPS, MAX_SECONDS, MAX_MEMORY_BYTES = 1_000_000, 10.0, 1 << 29
MAX_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The template's text around one question and its answer; `SYSTEM_PLACE` stands where the system line goes.

    `before_answer` is what the template writes before an answer that is not in its generation prompt, such as Mistral's
    blank. `system_in_question` is text, with the place, that goes before the question where there is no system role.
    """

    before_question: str
    after_question: str
    before_answer: str
    end_token_id: int
    system_in_question: str


def read_chat_template(tokenizer: Any, *, with_system: bool, encode: Callable[[str], list[int]]) -> ChatTemplate:
    """Read the tokenizer's template; `encode` gives the token ids of text that the template writes.

    Raises ModelError if the template is missing, fails, drops the question, or puts no special token behind the answer.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            tokenizer.name_or_path, "its tokenizer has no chat template", "use the model's chat (instruct) variant"
        )
    question = {"role": "user", "content": _QUESTION}
    answer = {"role": "assistant", "content": _ANSWER}
    system = [{"role": "system", "content": SYSTEM_PLACE}] if with_system else []
    prompt = _render(tokenizer, [*system, question], generation_prompt=True)
    system_in_question = ""
    if prompt is None or (with_system and SYSTEM_PLACE not in prompt):
        # Gemma's and early Mistral's templates know no system role: the line goes before the question.
        prompt = _render(tokenizer, [question], generation_prompt=True)
        system, system_in_question = [], f"{SYSTEM_PLACE}\n\n" if with_system else ""
    whole = _render(tokenizer, [*system, question, answer], generation_prompt=False)
    if prompt is None or whole is None or prompt.count(_QUESTION) != 1 or whole.count(_ANSWER) != 1:
        raise ModelError(tokenizer.name_or_path, "its chat template cannot render one question and one answer")
    before, after = prompt.split(_QUESTION)
    head, tail = whole.split(_ANSWER)
    before_answer = head.removeprefix(prompt) if head.startswith(prompt) else ""
    end_ids = encode(tail)
    if not end_ids or end_ids[0] not in tokenizer.added_tokens_decoder:
        raise ModelError(
            tokenizer.name_or_path,
            f"its chat template puts no end token behind an answer (it puts {tail!r})",
            "the model would never learn to stop",
        )
    return ChatTemplate(before, after, before_answer, end_ids[0], system_in_question)


def read_example_template(tokenizer: Any, count: int, *, with_system: bool) -> list[str]:
    """What the template writes around `count` worked examples and the question: 2 * count + 2 pieces.

    Raises ModelError if it cannot render that many turns.
    """
    places = [f"MEDTUNEEXAMPLE{turn}PLACE" for turn in range(2 * count + 1)]
    roles = ("user", "assistant")
    turns = [{"role": roles[turn % 2], "content": place} for turn, place in enumerate(places)]
    system = [{"role": "system", "content": SYSTEM_PLACE}] if with_system else []
    text = _render(tokenizer, [*system, *turns], generation_prompt=True)
    pieces = [] if text is None else re.split("|".join(places), text)
    if len(pieces) != len(places) + 1:
        raise ModelError(
            tokenizer.name_or_path,
            "its chat template cannot render worked examples",
            "leave few_shot out of evaluation.controls",
        )
    return pieces


def _render(tokenizer: Any, messages: list[dict[str, str]], *, generation_prompt: bool) -> str | None:
    """The template's text, or None where it cannot render these messages.

    It comes with the model and is a program: transformers runs it in jinja's sandbox, and here it is bounded too.
    Raises ModelError if it reaches out of the sandbox or goes beyond a bound.
    """
    from jinja2.exceptions import SecurityError, TemplateError

    _require_no_power(tokenizer)
    try:
        with bounded(MAX_STEPS, MAX_SECONDS, MAX_MEMORY_BYTES):
            text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
    except BoundReachedError as error:
        raise _refused(tokenizer, str(error)) from None
    except SecurityError as error:
        raise _refused(tokenizer, f"reaches for what no template may ({first_line(error)})") from None
    except OverflowError as error:  # jinja's own bound
        raise _refused(tokenizer, f"goes beyond what a template may ({first_line(error)})") from None
    # What any expression raises that does not suit its values.
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    if len(text) > MAX_CHARACTERS:
        raise _refused(tokenizer, f"writes more than {MAX_CHARACTERS:,} characters around one question")
    return text


def _require_no_power(tokenizer: Any) -> None:
    """A power of powers takes forever in one step, and no template needs one."""
    from jinja2 import Environment, TemplateSyntaxError

    template = tokenizer.chat_template
    try:
        power = any(kind == "operator" and sign == "**" for _, kind, sign in Environment().lex(template))
    except TemplateSyntaxError as error:
        raise _refused(tokenizer, f"is not valid ({first_line(error)} at line {error.lineno})") from None
    if power:
        raise _refused(tokenizer, "takes powers")


def _refused(tokenizer: Any, problem: str) -> ModelError:
    name = tokenizer.name_or_path
    return ModelError(name, f"its chat template {problem}", "use the template of the model's own makers")
