"""Text around the turns of a chat, as one pattern for any number of turns."""

from __future__ import annotations

import pytest

from chat_tokenizers import chatml
from medtune.data.chat_template import SYSTEM_PLACE
from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from medtune.publishing.export.chat_layout import ChatLayout, Opening, _layout, read_layout

# What no template of turns alike can say: the number of each question.
NUMBERED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + loop.index | string + m['content'] + '<|im_end|>' }}"
    "{% endfor %}"
)


def _written_by(template: str) -> PromptRenderer:
    tokenizer = chatml()
    tokenizer.chat_template = template
    return PromptRenderer(tokenizer)


def test_a_template_whose_turns_differ_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError, match=r"writes turns differently in longer chats.*--format gguf"):
        read_layout(_written_by(NUMBERED))


def test_a_system_role_has_a_turn_of_its_own() -> None:
    user, system = "<|im_start|>user\n", f"<|im_start|>system\n{SYSTEM_PLACE}<|im_end|>\n"
    between = f"<|im_end|>\n{user}"
    answer = "<|im_end|>\n<|im_start|>assistant\n"
    assert read_layout(PromptRenderer(chatml())) == ChatLayout(
        Opening(system + user, system + user, between), Opening(user, user, between), answer, between, answer
    )


# Text around the turns after 0, 1, 2 and 3 exchanges: f, o and l open the first, the only and the last question.
ALIKE = [["o", "g"], ["f", "a", "l", "g"], ["f", "a", "q", "a", "l", "g"], ["f", "a", "q", "a", "q", "a", "l", "g"]]


def test_the_pattern_is_read_off_the_shortest_chats() -> None:
    assert _layout(ALIKE) == (Opening("f", "o", "l"), ("a", "q", "g"))


@pytest.mark.parametrize("chat", range(4))
@pytest.mark.parametrize("place", [0, 1, -2, -1])
def test_one_piece_that_differs_is_no_pattern(chat: int, place: int) -> None:
    chats = [list(pieces) for pieces in ALIKE]
    chats[chat][place] = "x"
    is_free = chat == 0 and place in (0, -2)  # what opens the only question need not open the first of several
    assert (_layout(chats) is not None) == is_free


@pytest.mark.parametrize("place", range(8))
def test_no_turn_in_the_middle_may_differ(place: int) -> None:
    assert _layout([*ALIKE[:3], ["x" if at == place else piece for at, piece in enumerate(ALIKE[3])]]) is None


@pytest.mark.parametrize("piece", ["a", "q", "g"])
def test_a_system_prompt_between_turns_is_no_pattern(piece: str) -> None:
    chats = [[SYSTEM_PLACE if one == piece else one for one in pieces] for pieces in ALIKE]
    assert _layout(chats) is None
