"""A tokenizer's chat template, rendered once with placeholders: the text that it writes around a row's own text."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from medtune.data import template_process
from medtune.errors import ModelError

# Plain words, so that no template and no tokenizer treats them specially; long, so that no other text holds them.
SYSTEM_PLACE = "MEDTUNESYSTEMPLACE"
_QUESTION, _ANSWER = "MEDTUNEQUESTIONPLACE", "MEDTUNEANSWERPLACE"
# One step may take longer than all may together, such as one of a large product. Starting takes some tenths.
_PROCESS_SECONDS = template_process.MAX_SECONDS + 5


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The template's text around one question and its answer, with `SYSTEM_PLACE` in the place of the system line.

    `before_answer` is text before an answer that is not in the generation prompt, such as Mistral's blank.
    `system_in_question` is text, with the place, that goes before the question where there is no system role.
    """

    before_question: str
    after_question: str
    before_answer: str
    end_token_id: int
    system_in_question: str


def read_chat_template(
    tokenizer: Any, *, with_system: bool, encode: Callable[[str], list[int]], today: date | None = None
) -> ChatTemplate:
    """Read the tokenizer's template; `encode` gives the token ids of the template's text, and `today` its date.

    Raises ModelError if the template is missing, fails, drops the question, or puts no special token behind the answer.
    """
    if not tokenizer.chat_template:
        fix = "use the model's chat (instruct) variant"
        raise ModelError(tokenizer.name_or_path, "its tokenizer has no chat template", fix)
    question = {"role": "user", "content": _QUESTION}
    answer = {"role": "assistant", "content": _ANSWER}
    system = [{"role": "system", "content": SYSTEM_PLACE}] if with_system else []
    prompt, whole, plain_prompt, plain_whole = _render(
        tokenizer,
        ([*system, question], True),
        ([*system, question, answer], False),
        ([question], True),
        ([question, answer], False),
        today=today,
    )
    system_in_question = ""
    if with_system and (prompt is None or SYSTEM_PLACE not in prompt):
        # Gemma's and early Mistral's templates know no system role: the line goes before the question.
        prompt, whole, system_in_question = plain_prompt, plain_whole, f"{SYSTEM_PLACE}\n\n"
    if prompt is None or whole is None or prompt.count(_QUESTION) != 1 or whole.count(_ANSWER) != 1:
        raise ModelError(tokenizer.name_or_path, "its chat template cannot render one question and one answer")
    before, after = prompt.split(_QUESTION)
    head, tail = whole.split(_ANSWER)
    before_answer = head.removeprefix(prompt) if head.startswith(prompt) else ""
    end_ids = encode(tail)
    if not end_ids or end_ids[0] not in tokenizer.added_tokens_decoder:
        problem = f"its chat template puts no end token behind an answer (it puts {tail!r})"
        raise ModelError(tokenizer.name_or_path, problem, "the model would never learn to stop")
    return ChatTemplate(before, after, before_answer, end_ids[0], system_in_question)


def read_example_template(
    tokenizer: Any, count: int, *, with_system: bool, today: date | None = None, of_examples: bool = True
) -> list[str]:
    """The template's text around `count` worked examples and the question: 2 * count + 2 pieces.

    An earlier conversation is rendered in the same way, `of_examples` or not. Raises ModelError if it cannot render
    that many turns.
    """
    places = [f"MEDTUNEEXAMPLE{turn}PLACE" for turn in range(2 * count + 1)]
    roles = ("user", "assistant")
    turns = [{"role": roles[turn % 2], "content": place} for turn, place in enumerate(places)]
    system = [{"role": "system", "content": SYSTEM_PLACE}] if with_system else []
    (text,) = _render(tokenizer, ([*system, *turns], True), today=today)
    pieces = [] if text is None else re.split("|".join(places), text)
    if len(pieces) != len(places) + 1:
        fix = "leave few_shot out of evaluation.controls, and retrieval and tuned_retrieval"
        if of_examples:
            raise ModelError(tokenizer.name_or_path, "its chat template cannot render worked examples", fix)
        problem = f"its chat template cannot render a conversation of {count + 1} questions"
        raise ModelError(tokenizer.name_or_path, problem, "use a model whose template takes several turns")
    return pieces


def strips_thoughts(tokenizer: Any, today: date | None = None) -> bool:
    """Whether the template leaves `<think>…</think>` out of an answer once another question follows it."""
    answer = f"<think>\n{SYSTEM_PLACE}\n</think>\n\n{_ANSWER}"
    contents = (("user", "a"), ("assistant", answer), ("user", _QUESTION))
    (text,) = _render(tokenizer, ([{"role": role, "content": text} for role, text in contents], True), today=today)
    return text is not None and _ANSWER in text and SYSTEM_PLACE not in text


def _render(tokenizer: Any, *chats: tuple[list[dict[str, str]], bool], today: date | None = None) -> list[str | None]:
    """The template's text for each of `chats`, messages and whether an answer is to follow; None where it has none.

    `today` is the date that it prints if it prints one, None for that of the clock.

    Raises ModelError if the template reaches out of jinja2's sandbox or goes beyond a bound.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError:  # several, and none is the default
        return [None] * len(chats)
    request = {
        "template": template,
        "tokens": tokenizer.special_tokens_map,
        "chats": [{"messages": messages, "add_generation_prompt": prompt} for messages, prompt in chats],
        "date": today.isoformat() if today else None,
    }
    answer = _ask_process(json.dumps(request))
    if problem := answer["refused"]:
        fix = "use the template of the model's own makers"
        raise ModelError(tokenizer.name_or_path, f"its chat template {problem}", fix)
    texts: list[str | None] = answer["texts"]
    return texts


@lru_cache(maxsize=64)
def _ask_process(request: str) -> dict[str, Any]:
    """What `template_process` answers to a request; the same one is made once."""
    paths = os.pathsep.join(filter(None, sys.path))
    try:
        done = subprocess.run(
            [sys.executable, "-P", template_process.__file__],
            input=request,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=_PROCESS_SECONDS,
            start_new_session=True,  # a Ctrl-C is for this process, which then ends that one
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"takes more than {template_process.MAX_SECONDS:g} s"}
    if done.returncode:
        return {"refused": f"ends the process that renders it (status {done.returncode})"}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
