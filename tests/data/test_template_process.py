"""The process that renders a chat template: as transformers renders it, within bounds, and away from the caller's."""

from __future__ import annotations

import resource
import sys
from datetime import date

import pytest

from medtune.data import chat_template, template_process
from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from medtune.model.demo_model import CHAT_TEMPLATE
from medtune.records import QAPair
from tiny_model import build_tokenizer

MESSAGES = [{"role": "user", "content": "Why ?"}, {"role": "assistant", "content": "So <é>."}]
TEMPLATES = [
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}",
    "{% for m in messages %}{{ m | tojson(indent=2) }}{% if loop.first %}{% continue %}{% endif %}!{% endfor %}",
    "{% set n = namespace(self=1, found=false) %}{% set n.found = true %}{{ n.self }}{{ n.found }}",
    "{{ dict(a=1) }}{{ dict.fromkeys(['a']) }}{{ bos_token }}{{ tools is none }}{{ documents }}{{ missing }}",
    "  {% if add_generation_prompt %}\n  yes\n{% endif %}\n{{ range(3) | list }}",
    "{{ strftime_now('%Y') }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_texts_are_those_of_transformers(template: str) -> None:
    tokenizer = build_tokenizer(chat_template=template)
    expected = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert chat_template._render(tokenizer, (MESSAGES, True)).texts == [expected]


def test_a_date_that_is_given_is_the_day_that_a_template_prints() -> None:
    """LLaMA 3.2's template prints the day, so that prompts of tomorrow would be others."""
    tokenizer = build_tokenizer(chat_template="{{ strftime_now('%d %b %Y %H:%M') }}")
    assert chat_template._render(tokenizer, (MESSAGES, True), today=date(2024, 7, 26)).texts == ["26 Jul 2024 00:00"]


def test_a_renderer_has_one_date_for_rows_prompts_and_examples() -> None:
    template = CHAT_TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}{{ strftime_now('%d %b') }} ", 1)
    assert template != CHAT_TEMPLATE
    tokenizer = build_tokenizer(chat_template=template)
    row = QAPair("1", "", "Why ?", "So.")
    for today in (date(2024, 7, 26), date(2024, 7, 27)):
        renderer = PromptRenderer(tokenizer, today=today)
        prompt = renderer.prompt_ids("Why ?")
        assert f"{today.day} Jul " in tokenizer.decode(prompt)
        assert f"{today.day} Jul " in tokenizer.decode(renderer.prompt_ids("Why ?", [row]))
        assert renderer.encode_pairs([row])[0].input_ids[: len(prompt)] == prompt


def test_a_template_finds_the_names_that_transformers_gives_it() -> None:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    theirs, own = _compile_jinja_template("").environment, template_process.chat_environment()
    for names in ("globals", "filters", "tests"):
        assert set(getattr(own, names)) == set(getattr(theirs, names))
    for option in ("trim_blocks", "lstrip_blocks", "keep_trailing_newline", "autoescape", "undefined"):
        assert getattr(own, option) == getattr(theirs, option)
    assert len(own.extensions) == len(theirs.extensions)


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no') }}", "{% set n = namespace(_a=1) %}", "{% set n = namespace() %}{% set n._a = 1 %}"],
)
def test_what_transformers_refuses_is_refused(template: str) -> None:
    from jinja2.exceptions import TemplateError

    tokenizer = build_tokenizer(chat_template=template)
    with pytest.raises(TemplateError):
        tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    with pytest.raises(ModelError, match=r"cannot render one question|reaches for what no template may"):
        PromptRenderer(tokenizer).prompt_ids("Why ?")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "takes more than 1,000,000 steps",
        ),
        ("{{ 'a' * 10000000000 }}", "takes more than 512 MiB of memory"),
        ("{{ ` }}", r"is not valid \(unexpected char '`' at 3 at line 1\)"),
    ],
)
def test_the_callers_process_is_left_as_it_was(template: str, problem: str) -> None:
    """A debugger keeps its trace function, and a notebook the memory that it may take."""
    seen: list[object] = []

    def trace(frame: object, event: str, argument: object) -> None:
        seen.append((sys.gettrace(), resource.getrlimit(resource.RLIMIT_AS)))

    limit = resource.getrlimit(resource.RLIMIT_AS)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(
            ModelError, match=f"its chat template {problem}; use the template of the model's own makers"
        ):
            PromptRenderer(build_tokenizer(chat_template=template)).prompt_ids("Why ?")
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert set(seen) == {(trace, limit)}
    assert resource.getrlimit(resource.RLIMIT_AS) == limit
