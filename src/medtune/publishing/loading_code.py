"""The Python that loads a published model and asks it a question, as its card shows it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from medtune.data.chat_template import SYSTEM_PLACE, in_parts, read_chat_template
from medtune.evaluation.formatting import read_template
from medtune.model.loaded import load_tokenizer
from medtune.model.loading import DEMO_MODEL
from medtune.model.quantization import StorageFormat
from medtune.run_dir.directory import RunDir

QUESTION = "What are the symptoms of gout ?"
# transformers gives templates this function, and lets nobody set its clock.
_TODAY = re.compile(r"""strftime_now\( *(?P<quote>['"])(?P<format>[%\w ,./:-]+)(?P=quote) *\)""")


@dataclass(frozen=True, slots=True)
class Target:
    """What is loaded: a repository or folder, onto `base` where PEFT does not find that by itself."""

    location: str
    merged: bool
    base: str | None
    storage: StorageFormat
    dtype: str


def loading_code(
    target: Target,
    messages: list[dict[str, Any]],
    max_new_tokens: int,
    dates: Mapping[str, str] = MappingProxyType({}),
    template_settings: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Python that prints the answer to one question, greedily; `dates` as `printed_dates` finds them.

    `template_settings` are given to the chat template besides.
    """
    settings = {} if target.merged else target.storage.settings(target.dtype)
    return read_template(files("medtune.publishing") / "loading_code.py.jinja", literal=_literal).render(
        target=target,
        on_demo=target.base == DEMO_MODEL and not target.merged,
        settings={name: _argument(name, value) for name, value in settings.items()},
        messages=messages,
        dates={repr(call): repr(text) for call, text in dates.items()},
        template_settings={name: repr(value) for name, value in template_settings.items()},
        max_new_tokens=max_new_tokens,
    )


def example_messages(run: RunDir) -> list[dict[str, Any]]:
    """A question as the run put it to the model: with its system line, where the chat template puts it."""
    system = run.config.data.system_prompt.strip()
    tokenizer = load_tokenizer(run.adapter_dir)
    template = read_chat_template(
        tokenizer,
        with_system=bool(system),
        encode=lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
    )
    before = template.system_in_question.replace(SYSTEM_PLACE, system)
    messages = [{"role": "user", "content": before + QUESTION}]
    if system and not before:
        messages.insert(0, {"role": "system", "content": system})
    return in_parts(messages) if template.takes_parts else messages


def printed_dates(run: RunDir) -> dict[str, str]:
    """Calls in the run's chat template that print today's date, and in their place the date that the run's prompts had.

    As Jinja writes them. Empty where the template prints no date, and for runs of older versions, which pinned none.
    """
    day, template = run.pinned_config.data.prompt_date, load_tokenizer(run.adapter_dir).chat_template
    if day is None or not isinstance(template, str):
        return {}
    return {call.group(): _literal(day.strftime(call["format"])) for call in _TODAY.finditer(template)}


def _argument(name: str, value: Any) -> str:
    if name.endswith("_dtype"):
        return f"torch.{value}"
    return _literal(value) if isinstance(value, str) else repr(value)


def _literal(value: Any) -> str:
    """A text, or a list of mappings of texts, in Python and in one line."""
    return json.dumps(value, ensure_ascii=False)
