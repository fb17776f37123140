"""Text of an answer as its tokens come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.inference.serving.answer_text import AnswerText

WORDS = st.text(alphabet="ab \n", max_size=12)


def written(tokenizer, text, **options):
    """All pieces, one a token, and the last; whether a stop text ended it."""
    answer = AnswerText(tokenizer, **options)
    pieces = []
    for token in tokenizer(text, add_special_tokens=False).input_ids:
        answer.add(token)
        if answer.is_stopped:
            break
        pieces.append(answer.take())
    return [*pieces, answer.finish()], answer.is_stopped


@pytest.mark.parametrize("text", ["Gout hurts.", "  two  spaces \n", "Grüße 🫀 心臓", "", " \n ", "<|eot_id|>so"])
def test_pieces_together_are_what_the_evaluation_stores(tiny, text):
    pieces, _ = written(tiny.tokenizer, text)
    ids = tiny.tokenizer(text, add_special_tokens=False).input_ids
    decoded = tiny.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(pieces) == decoded.strip()
    assert "".join(written(tiny.tokenizer, text, strip=False)[0]) == decoded


def test_half_a_character_is_not_shown(tiny):
    pieces, _ = written(tiny.tokenizer, "a🫀b")
    assert len(pieces) > 4, "the test needs a character of several tokens"
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) == "a🫀b"


def test_a_character_that_the_cap_cuts_is_written_as_the_evaluation_does(tiny):
    ids = tiny.tokenizer("a🫀", add_special_tokens=False).input_ids[:-1]
    answer = AnswerText(tiny.tokenizer)
    for token in ids:
        answer.add(token)
    assert answer.take() + answer.finish() == tiny.tokenizer.decode(ids).strip()


@given(WORDS, st.lists(WORDS.filter(bool), min_size=1, max_size=3), st.booleans())
def test_an_answer_ends_before_the_stop_text_that_is_there_first(tiny, text, stop, strip):
    pieces, is_stopped = written(tiny.tokenizer, text, stop=stop, strip=strip)
    ids = tiny.tokenizer(text, add_special_tokens=False).input_ids
    so_far = [tiny.tokenizer.decode(ids[: count + 1], clean_up_tokenization_spaces=False) for count in range(len(ids))]
    found = [[one.find(text) for text in stop if text in one] for one in so_far]
    first = next((count for count, places in enumerate(found) if places), None)
    whole = text if first is None else so_far[first][: min(found[first])]
    assert is_stopped == (first is not None)
    assert "".join(pieces) == (whole.strip() if strip else whole)
