"""Rows fitted to the length limit, and refused where a model could not learn from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_tokenizers import ALL, CHATML, LONG, QUESTIONS, RENDERERS, ROWS, pair
from medtune.data.prompts import PromptRenderer
from medtune.data.training_rows import encode_for_training, fit_rows, require_sound_rows
from medtune.errors import DataError
from medtune.records import IGNORED, EncodedRow
from tiny_model import build_tokenizer


def encode(rows, max_length, overlong="cut"):
    return encode_for_training(PromptRenderer(build_tokenizer()), rows, max_length=max_length, overlong=overlong)


def test_overlong_answer_is_cut_behind_a_sentence_and_keeps_its_end_token():
    whole = encode([pair(answer=LONG)], 10_000)
    assert (whole.cut, whole.dropped, whole.tokens_lost) == (0, 0, 0)
    limit = len(whole.rows[0].input_ids) - 15
    cut = encode([pair(answer=LONG)], limit)
    row = cut.rows[0]
    assert len(row.input_ids) <= limit
    assert row.labels[-1] == 5
    assert row.input_ids[: row.prompt_length] == whole.rows[0].input_ids[: row.prompt_length]
    text = build_tokenizer().decode(row.labels[row.prompt_length : -1])
    assert LONG.startswith(text)
    assert text.endswith("here.")
    assert (cut.cut, cut.dropped) == (1, 0)
    assert cut.tokens_lost == len(whole.rows[0].input_ids) - len(row.input_ids)


def test_overlong_answer_without_sentences_is_cut_at_the_last_token():
    answer = "word " * 200
    row = encode([pair(answer=answer)], 100).rows[0]
    assert len(row.input_ids) == 100
    assert row.labels[-1] == 5


def test_overlong_rows_can_be_dropped():
    result = encode([pair(answer=LONG, row_id="long"), pair(row_id="short")], 80, overlong="drop")
    assert [row.id for row in result.rows] == ["short"]
    assert (result.cut, result.dropped) == (0, 1)
    with pytest.raises(DataError, match="no row fits"):
        encode([pair(answer=LONG)], 80, overlong="drop")


def test_prompt_that_leaves_no_room_names_the_row():
    with pytest.raises(DataError, match=r"row r1.*raise training\.max_length"):
        encode([pair(question="What " * 100)], 64)


def test_every_prompt_that_leaves_no_room_is_named():
    rows = [pair(question="What " * (60 + n), row_id=f"long{n}") for n in range(7)]
    with pytest.raises(DataError) as caught:
        encode([*rows, pair(row_id="short")], 64)
    longest = len(PromptRenderer(build_tokenizer()).prompt_ids("What " * 66))
    assert str(caught.value) == (
        "training.max_length: rows long0, long1, long2, long3, long4 … (7 in all): a prompt of up to "
        f"{longest} tokens leaves no room for an answer; raise training.max_length above {longest + 1}"
    )
    # As the message says, one token more is room for an answer of one token.
    assert len(encode(rows, longest + 2).rows) == 7
    with pytest.raises(DataError, match="row long6: "):
        encode(rows, longest + 1)


def test_rows_without_room_are_handed_back_to_who_only_counts():
    fitted = fit_rows(
        PromptRenderer(build_tokenizer()),
        [pair(question="What " * 100, row_id="long"), pair(row_id="short")],
        max_length=64,
        overlong="cut",
    )
    assert [row.id for row in fitted.rows] == ["short"]
    assert [row.id for row in fitted.no_room] == ["long"]
    assert fitted.no_room[0].prompt_length > 64


@given(rows=ROWS, max_length=st.integers(20, 60), overlong=st.sampled_from(["cut", "drop"]))
def test_rows_are_fitted_the_same_together_and_alone(rows, max_length, overlong):
    renderer = RENDERERS["llama3", ""]
    together = fit_rows(renderer, rows, max_length=max_length, overlong=overlong)
    alone = [fit_rows(renderer, [row], max_length=max_length, overlong=overlong) for row in rows]
    assert together.rows == [row for one in alone for row in one.rows]
    assert together.no_room == tuple(row for one in alone for row in one.no_room)
    for name in ("cut", "dropped", "tokens_lost"):
        assert getattr(together, name) == sum(getattr(one, name) for one in alone)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("system", ["", "You are kind."])
def test_sound_rows_pass(make, system):
    renderer = PromptRenderer(make(), system)
    rows = [renderer.encode_pairs([pair(question, row_id=question)])[0] for question in QUESTIONS]
    assert require_sound_rows(rows, renderer) is None
    assert require_sound_rows([], renderer) is None


def test_a_template_that_opens_every_turn_with_bos_is_sound():
    """SmolLM2's: its BOS is <|im_start|>."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = build_tokenizer(tokens, CHATML, bos_token="<|im_start|>", eos_token="<|im_end|>")
    renderer = PromptRenderer(tokenizer, "You are kind.")
    row = renderer.encode_pairs([pair()])[0]
    assert row.input_ids.count(tokenizer.bos_token_id) == renderer.bos_count == 3
    require_sound_rows([row], renderer)
    extra = EncodedRow("r1", [*row.input_ids[:-3], 1, *row.input_ids[-3:]], [*row.labels[:-3], 1, *row.labels[-3:]])
    with pytest.raises(DataError, match="row r1: BOS is there twice"):
        require_sound_rows([extra], renderer)


def test_a_model_whose_bos_is_its_end_token_is_sound():
    template = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% else %}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer = build_tokenizer(["<|endoftext|>"], template, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    renderer = PromptRenderer(tokenizer)
    row = renderer.encode_pairs([pair()])[0]
    assert row.input_ids[0] == row.input_ids[-1] == tokenizer.bos_token_id
    require_sound_rows([row], renderer)


def test_a_template_that_writes_bos_twice_is_refused():
    from medtune.model.demo_model import CHAT_TEMPLATE

    tokenizer = build_tokenizer(chat_template=CHAT_TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}" * 2))
    renderer = PromptRenderer(tokenizer)
    rows = [renderer.encode_pairs([pair(row_id=f"r{n}")])[0] for n in range(7)]
    with pytest.raises(DataError) as caught:
        require_sound_rows(rows, renderer)
    assert str(caught.value) == (
        "training rows r0, r1, r2, r3, r4 … (7 in all): BOS is there twice; take it out of the tokenizer's chat "
        "template, or out of what the tokenizer adds"
    )


def test_a_row_without_its_end_token_or_without_any_label_is_refused():
    renderer = PromptRenderer(build_tokenizer())
    sound = renderer.encode_pairs([pair(row_id="sound")])[0]
    cut = EncodedRow("cut", sound.input_ids[:-1], sound.labels[:-1])
    masked = EncodedRow("masked", sound.input_ids, [*sound.labels[:-1], IGNORED])
    empty = EncodedRow("empty", sound.input_ids, [IGNORED] * len(sound.labels))
    inside = EncodedRow("inside", [*sound.input_ids, 9], [*sound.labels, 9])
    with pytest.raises(DataError) as caught:
        require_sound_rows([sound, cut, empty, masked, inside], renderer)
    no_label, no_end = str(caught.value).splitlines()
    assert no_label == (
        "training row empty: no token carries a label, so there is nothing to learn; raise training.max_length"
    )
    assert no_end.startswith("training rows cut, masked, inside: no end token at the end of the labels")
    require_sound_rows([sound], renderer)
