"""A tokenizer's chat template, rendered once with placeholders: the text that it writes around a row's own text."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from types import MappingProxyType
from typing import Any

from medtune.data.template_renderer import ask_renderer
from medtune.errors import ModelError, Option

# Plain words, so that no template and no tokenizer treats them specially; long, so that no other text holds them.
SYSTEM_PLACE = "MEDTUNESYSTEMPLACE"
_QUESTION, _ANSWER = "MEDTUNEQUESTIONPLACE", "MEDTUNEANSWERPLACE"
# A generation prompt may open a thought (DeepSeek-R1, Qwen3-Thinking) that an answer of the data set never closes.
_OPEN_THOUGHT = re.compile(r"<think>(\n*)$")
# What every template is given, and no setting.
_OWN_NAMES = {"messages", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token"}
_CHOICE = Option("set", "model.chat_template=NAME (a jinja file, alpaca, chatml, llama3 …)")
_OF_ITS_MAKERS = "use the template of the model's own makers"
_NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The template's text around one question and its answer, with `SYSTEM_PLACE` in the place of the system line.

    `before_answer` is text before an answer that is not in the generation prompt, such as Mistral's blank.
    `system_in_question` is text, with the place, that goes before the question where there is no system role.
    `after_answer` are blanks or line breaks between an answer and its end token. `notes` say what was chosen, and why.
    With `takes_parts` a message's content is a list of parts.
    """

    before_question: str
    after_question: str
    before_answer: str
    end_token_id: int
    system_in_question: str
    after_answer: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)
    takes_parts: bool = field(default=False, compare=False)


def read_chat_template(
    tokenizer: Any,
    *,
    with_system: bool,
    encode: Callable[[str], list[int]],
    today: date | None = None,
    settings: Mapping[str, Any] = _NO_SETTINGS,
) -> ChatTemplate:
    """Read the tokenizer's template; `encode` gives the token ids of the template's text, and `today` its date.

    `settings` are names that the template reads, such as `enable_thinking`. Raises ModelError if the template is
    missing, fails, drops the question, knows no such setting, or puts no special token behind the answer.
    """
    if not tokenizer.chat_template:
        fix = ("use the model's chat (instruct) variant, or give it a template: ", _CHOICE)
        raise ModelError(tokenizer.name_or_path, "its tokenizer has no chat template", fix)
    question, answer = {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}
    system = [{"role": "system", "content": SYSTEM_PLACE}] if with_system else []
    rendered = _render(
        tokenizer,
        ([*system, question], True),
        ([*system, question, answer], False),
        ([question], True),
        ([question, answer], False),
        today=today,
        settings=settings,
    )
    prompt, whole, plain_prompt, plain_whole = rendered.texts
    system_in_question = ""
    if with_system and (prompt is None or SYSTEM_PLACE not in prompt):
        # Gemma's and early Mistral's templates know no system role: the line goes before the question.
        prompt, whole, system_in_question = plain_prompt, plain_whole, f"{SYSTEM_PLACE}\n\n"
    if prompt is None or whole is None or prompt.count(_QUESTION) != 1 or whole.count(_ANSWER) != 1:
        raise ModelError(tokenizer.name_or_path, "its chat template cannot render one question and one answer")
    before, after = prompt.split(_QUESTION)
    head, tail = whole.split(_ANSWER)
    after_answer, end_token_id = _read_end(tokenizer, tail, encode)
    before_answer = head.removeprefix(prompt) if head.startswith(prompt) else ""
    notes = _notes(rendered, settings)
    if (thought := _OPEN_THOUGHT.search(after)) and "</think>" not in before_answer:
        # After "<think>\n" comes "\n</think>\n\n": Qwen3's empty thought.
        before_answer = "\n" * max(0, 2 - len(thought[1])) + "</think>\n\n"
        notes.append("its prompt opens a thought, which training closes before each answer, empty")
    if after_answer:
        notes.append(f"an answer ends with {after_answer!r} before its end token, as the template writes it")
    return ChatTemplate(
        before, after, before_answer, end_token_id, system_in_question, after_answer, tuple(notes), rendered.parts
    )


def _read_end(tokenizer: Any, tail: str, encode: Callable[[str], list[int]]) -> tuple[str, int]:
    """The text between an answer and its end token, and that token. Raises ModelError if there is none."""
    blanks = tail[: len(tail) - len(tail.lstrip())]
    for between in dict.fromkeys(("", blanks)):
        ids = encode(tail.removeprefix(between))
        if ids and ids[0] in tokenizer.added_tokens_decoder:
            return between, ids[0]
    problem = f"its chat template puts no end token behind an answer (it puts {tail!r})"
    fix = ("the model would never learn to stop; give it a template whose end token it has: ", _CHOICE)
    raise ModelError(tokenizer.name_or_path, problem, fix)


def _notes(rendered: "_Rendered", settings: Mapping[str, Any]) -> list[str]:
    notes = [] if not settings else [f"with {', '.join(f'{name}: {json.dumps(settings[name])}' for name in settings)}"]
    if rendered.parts:
        notes.append("it takes a message as parts, and gets each text as one part")
    if "enable_thinking" in rendered.reads and "enable_thinking" not in settings:
        answer = "model.template_settings.enable_thinking=false has it answer at once"
        notes.append(f"it reads enable_thinking, which is not set, so that the base may think first; {answer}")
    return notes


def read_example_template(
    tokenizer: Any,
    count: int,
    *,
    with_system: bool,
    today: date | None = None,
    settings: Mapping[str, Any] = _NO_SETTINGS,
    of_examples: bool = True,
) -> list[str]:
    """The template's text around `count` worked examples and the question: 2 * count + 2 pieces.

    An earlier conversation is rendered in the same way, `of_examples` or not. Raises ModelError if it cannot render
    that many turns.
    """
    places = [f"MEDTUNEEXAMPLE{turn}PLACE" for turn in range(2 * count + 1)]
    roles = ("user", "assistant")
    turns = [{"role": roles[turn % 2], "content": place} for turn, place in enumerate(places)]
    system = [{"role": "system", "content": SYSTEM_PLACE}] if with_system else []
    (text,) = _render(tokenizer, ([*system, *turns], True), today=today, settings=settings).texts
    pieces = [] if text is None else re.split("|".join(places), text)
    if len(pieces) != len(places) + 1:
        fix = "leave few_shot out of evaluation.controls, and retrieval and tuned_retrieval"
        if of_examples:
            raise ModelError(tokenizer.name_or_path, "its chat template cannot render worked examples", fix)
        problem = f"its chat template cannot render a conversation of {count + 1} questions"
        raise ModelError(tokenizer.name_or_path, problem, "use a model whose template takes several turns")
    return pieces


def strips_thoughts(tokenizer: Any, *, today: date | None = None, settings: Mapping[str, Any] = _NO_SETTINGS) -> bool:
    """Whether the template leaves `<think>…</think>` out of an answer once another question follows it."""
    answer = f"<think>\n{SYSTEM_PLACE}\n</think>\n\n{_ANSWER}"
    contents = (("user", "a"), ("assistant", answer), ("user", _QUESTION))
    messages = [{"role": role, "content": text} for role, text in contents]
    (text,) = _render(tokenizer, (messages, True), today=today, settings=settings).texts
    return text is not None and _ANSWER in text and SYSTEM_PLACE not in text


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A text for each chat, None where the template has none; the names that it looks up; whether it takes parts."""

    texts: list[str | None]
    reads: frozenset[str]
    parts: bool


def _render(
    tokenizer: Any,
    *chats: tuple[list[dict[str, str]], bool],
    today: date | None = None,
    settings: Mapping[str, Any] = _NO_SETTINGS,
) -> _Rendered:
    """The template's text for each of `chats`, messages and whether an answer is to follow.

    `today` is the date that it prints if it prints one, None for that of the clock. A template that drops a text is
    asked again with each content as a list of one part, which is how models of text and images know it.

    Raises ModelError if the template reaches out of jinja2's sandbox, goes beyond a bound or knows no such setting.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError:  # several, and none is the default
        problem = f"several chat templates ({', '.join(tokenizer.chat_template)}), and none is the default"
        fix = ("choose one: ", Option("set", "model.chat_template=NAME"))
        raise ModelError(tokenizer.name_or_path, problem, fix) from None
    ask = partial(_ask, tokenizer, template, today=today, settings=settings)
    answer = ask(chats)
    if unknown := [name for name in settings if answer["reads"] and name not in answer["reads"]]:
        known = ", ".join(name for name in answer["reads"] if name not in _OWN_NAMES)
        problem = f"the chat template reads no {', '.join(unknown)}"
        raise ModelError("model.template_settings", problem, f"it reads {known or 'none'}")
    texts, reads = answer["texts"], frozenset(answer["reads"])
    if not _holds_texts(texts, chats):
        parted = [(in_parts(messages), prompt) for messages, prompt in chats]
        if _holds_texts(with_parts := ask(parted)["texts"], chats):
            return _Rendered(with_parts, reads, parts=True)
    return _Rendered(texts, reads, parts=False)


def in_parts(messages: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """`messages` with each content as a list of one part."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def _holds_texts(texts: list[str | None], chats: Sequence[tuple[list[dict[str, str]], bool]]) -> bool:
    """Whether the last message of any chat is in its text."""
    return any(text and messages[-1]["content"] in text for text, (messages, _) in zip(texts, chats, strict=True))


def _ask(
    tokenizer: Any, template: str, chats: Sequence[tuple[Any, bool]], *, today: date | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What `template_process` answers. Raises ModelError if it refuses the template."""
    request = {
        "template": template,
        "tokens": tokenizer.special_tokens_map,
        "chats": [{"messages": messages, "add_generation_prompt": prompt} for messages, prompt in chats],
        "date": today.isoformat() if today else None,
        "settings": dict(settings),
    }
    answer = ask_renderer(json.dumps(request))
    if problem := answer["refused"]:
        raise ModelError(tokenizer.name_or_path, f"its chat template {problem}", _OF_ITS_MAKERS)
    return answer
