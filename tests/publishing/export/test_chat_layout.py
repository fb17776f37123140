"""Text around the turns of a chat, as one pattern for any number of turns."""

from __future__ import annotations

import pytest

from chat_tokenizers import ALL, chatml
from medtune.data.chat_template import SYSTEM_PLACE
from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from medtune.publishing.export.chat_layout import ChatLayout, Opening, read_layout

# What no template of turns alike can say: the number of each question.
NUMBERED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + loop.index | string + m['content'] + '<|im_end|>' }}"
    "{% endfor %}"
)
# A system prompt that comes again before every question.
REPEATED = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|im_start|>' + (messages[0]['content'] if "
    "messages[0]['role'] == 'system' else '') + m['content'] }}{% elif m['role'] == 'assistant' %}"
    "{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
)


def _written_by(template: str) -> PromptRenderer:
    tokenizer = chatml()
    tokenizer.chat_template = template
    return PromptRenderer(tokenizer)


@pytest.mark.parametrize("template", [NUMBERED, REPEATED])
def test_a_template_whose_turns_differ_is_refused_with_the_reason(template: str) -> None:
    with pytest.raises(ModelError, match=r"writes turns differently in longer chats.*--format gguf"):
        read_layout(_written_by(template))


def test_a_system_role_has_a_turn_of_its_own() -> None:
    user, system = "<|im_start|>user\n", f"<|im_start|>system\n{SYSTEM_PLACE}<|im_end|>\n"
    between = f"<|im_end|>\n{user}"
    answer = "<|im_end|>\n<|im_start|>assistant\n"
    assert read_layout(PromptRenderer(chatml())) == ChatLayout(
        Opening(system + user, system + user, between), Opening(user, user, between), answer, between, answer
    )


def test_without_a_system_role_the_prompt_goes_into_the_first_question() -> None:
    layout = read_layout(PromptRenderer(ALL["gemma"]()))
    user = "<bos><start_of_turn>user\n"
    assert layout.without_system.first == layout.without_system.only == user
    assert layout.with_system.only.startswith(user + SYSTEM_PLACE)
    assert SYSTEM_PLACE not in layout.with_system.last
    assert layout.generation == "<end_of_turn>\n<start_of_turn>model\n"
