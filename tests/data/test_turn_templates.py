"""The text around the turns of a chat, and what templates do to the exchanges before the last one."""

from __future__ import annotations

from typing import Any

import pytest

from chat_tokenizers import ALL, chatml
from medtune.data import turn_templates
from medtune.data.chat_template import SYSTEM_PLACE
from medtune.data.turn_templates import TurnTemplates
from tiny_model import build_tokenizer

# After Qwen3's: an empty thought before the last answer alone, and thoughts that are gone once a question follows.
EMPTY_THOUGHT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'].split('</think>')[-1] if m['role'] == 'assistant' and not loop.last else m['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def templates_of(tokenizer: Any) -> TurnTemplates:
    return TurnTemplates(tokenizer, lambda text: tokenizer.encode(text, add_special_tokens=False), None, {})


def written_by(template: str) -> Any:
    tokenizer = chatml()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("exchanges", [0, 1, 3])
@pytest.mark.parametrize("family", ALL)
def test_the_pieces_around_the_texts_make_up_the_prompt(family: str, exchanges: int) -> None:
    tokenizer = ALL[family]()
    pieces = templates_of(tokenizer).pieces(exchanges, with_system=False)
    texts = [f"text {place} ." for place in range(2 * exchanges + 1)]
    assert len(pieces) == len(texts) + 1
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert "".join(piece + text for piece, text in zip(pieces, [*texts, ""], strict=True)) == expected


def test_the_system_line_has_its_place_before_all_turns_or_goes_into_the_question() -> None:
    llama, gemma = templates_of(build_tokenizer()), templates_of(ALL["gemma"]())
    assert SYSTEM_PLACE in llama.pieces(2, with_system=True)[0]
    assert not any(SYSTEM_PLACE in piece for piece in gemma.pieces(2, with_system=True))
    assert SYSTEM_PLACE in gemma.chat(with_system=True).system_in_question


def test_each_template_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    templates = templates_of(chatml())
    first = templates.chat(with_system=True), templates.pieces(2, with_system=True)
    for name in ("read_chat_template", "read_example_template"):
        monkeypatch.setattr(turn_templates, name, lambda *_, **__: pytest.fail("the template was read again"))
    assert templates.chat(with_system=True) is first[0]
    assert templates.pieces(2, with_system=True) is first[1]


@pytest.mark.parametrize("family", ALL)
def test_exchanges_are_kept_as_they_were_answered(family: str) -> None:
    templates = templates_of(ALL[family]())
    assert templates.keeps_exchanges(2, with_system=False)
    assert not templates.strips_thoughts


def test_a_template_that_writes_the_last_answer_otherwise_keeps_none() -> None:
    templates = templates_of(written_by(EMPTY_THOUGHT))
    assert templates.keeps_exchanges(0, with_system=False)
    assert not templates.keeps_exchanges(1, with_system=False)
    assert templates.strips_thoughts
