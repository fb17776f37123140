"""Labels on each answer of a conversation, with what generation has before it; or a row for each answer.

All answers are what most people want learned, and some want the last alone:
https://github.com/hiyouga/LlamaFactory/issues/4777. Templates that take thoughts out of earlier answers:
https://github.com/verl-project/verl/issues/6854
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chat_tokenizers import ALL, CHATML, pair
from medtune.data.learned_answers import encode_answers
from medtune.data.prompts import PromptRenderer
from medtune.data.training_rows import encode_for_training, fit_rows, require_sound_rows
from medtune.data.turns import earlier_exchanges, single_answers
from medtune.errors import DataError, ModelError
from medtune.records import IGNORED, EncodedRow, QAPair, Turn
from tiny_model import build_tokenizer

# As Qwen 3's: an answer after the last question has a thought, an empty one if need be, and earlier ones have none.
THINKING = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m['role'] == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% set text = m['content'] %}"
    "{% if m['role'] == 'assistant' %}{% set answer = text.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.index0 > ns.last %}{% set thought = text.split('</think>')[0].split('<think>')[-1] "
    "if '</think>' in text else '' %}<think>\n{{ thought | trim }}\n</think>\n\n{% endif %}{{ answer }}{% else %}"
    "{{ text }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = (
    Turn("user", "What is gout?"),
    Turn("assistant", "A painful arthritis.\nOf joints."),
    Turn("user", "Is it common ?"),
    Turn("assistant", "Yes, it spells <|eot_id|> and </s>."),
)
PAIR = replace(pair("And how is it treated?", "By rest, and a medicine."), turns=TURNS)
OWN = replace(PAIR, turns=(Turn("system", "Be brief."), *TURNS))


def thinking(template: str = THINKING) -> Any:
    return build_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], template, eos_token="<|im_end|>")


def runs(row: EncodedRow) -> list[tuple[int, int]]:
    """Where each run of labels begins and ends."""
    edges = [i for i in range(len(row.labels) + 1) if (i > 0 and row.labels[i - 1] != IGNORED) != (
        i < len(row.labels) and row.labels[i] != IGNORED)]  # fmt: skip
    return list(zip(edges[::2], edges[1::2], strict=True))


def messages(pair: QAPair, system: str) -> list[dict[str, str]]:
    turns = [{"role": turn.role, "content": turn.content} for turn in pair.turns]
    if system and not any(turn["role"] == "system" for turn in turns):
        turns.insert(0, {"role": "system", "content": system})
    return [*turns, {"role": "user", "content": pair.question}]


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("system", ["", "You are kind."])
@pytest.mark.parametrize("row", [PAIR, OWN], ids=["plain", "own system"])
def test_every_answer_is_learned_behind_the_prompt_that_asks_for_it(make: Any, system: str, row: QAPair) -> None:
    renderer = PromptRenderer(make(), system)
    ((_, encoded),) = encode_answers(renderer, [row], "all")
    assert not encoded.part
    found = runs(encoded)
    for (start, stop), single in zip(found, single_answers(row), strict=True):
        assert encoded.input_ids[:start] == renderer.pair_prompts([single])[0]
        assert encoded.input_ids[start:stop] == encoded.labels[start:stop]
        assert encoded.labels[stop - 1] == renderer.end_token_id
        assert renderer.tokenizer.decode(encoded.input_ids[start : stop - 1]).strip() == single.answer
    (last,) = renderer.encode_pairs([row])
    assert (last.input_ids, runs(last)) == (encoded.input_ids, found[-1:])
    assert encoded.answer_start == last.prompt_length == found[-1][0]
    assert encode_answers(renderer, [row], "last") == [(row, last)]
    require_sound_rows([encoded, last], renderer)


@pytest.mark.parametrize("name", ["llama3", "chatml"])
@pytest.mark.parametrize("row", [PAIR, OWN], ids=["plain", "own system"])
def test_a_prompt_with_turns_is_the_templates_and_an_own_system_turn_replaces_the_line(name: str, row: QAPair) -> None:
    tokenizer = ALL[name]()
    plain = replace(row, turns=tuple(Turn(t.role, t.content.replace("<|eot_id|> and </s>", "x")) for t in row.turns))
    chat = messages(plain, "You are kind.")
    official = tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert PromptRenderer(tokenizer, "You are kind.").pair_prompts([plain]) == [official]


def test_a_system_turn_goes_before_the_first_question_where_there_is_no_system_role() -> None:
    renderer = PromptRenderer(ALL["gemma"](), "You are kind.")
    text = renderer.tokenizer.decode(renderer.pair_prompts([OWN])[0])
    assert "Be brief.\n\nWhat is gout?" in text
    assert "You are kind." not in text


def test_a_template_that_opens_every_turn_with_bos_is_sound_for_conversations() -> None:
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    renderer = PromptRenderer(build_tokenizer(tokens, CHATML, bos_token="<|im_start|>", eos_token="<|im_end|>"))
    rows = [row for _, row in encode_answers(renderer, [PAIR, OWN], "all")]
    assert [row.input_ids.count(1) for row in rows] == [6, 7]
    require_sound_rows(rows, renderer)
    doubled = replace(rows[0], input_ids=[1, *rows[0].input_ids], labels=[IGNORED, *rows[0].labels])
    with pytest.raises(DataError, match="BOS is there twice"):
        require_sound_rows([doubled], renderer)


def test_an_earlier_answer_without_its_end_token_is_refused() -> None:
    renderer = PromptRenderer(build_tokenizer())
    ((_, row),) = encode_answers(renderer, [PAIR], "all")
    _, stop = runs(row)[0]
    broken = replace(row, labels=[*row.labels[: stop - 1], IGNORED, *row.labels[stop:]])
    with pytest.raises(DataError, match="no end token at the end of the labels"):
        require_sound_rows([broken], renderer)


def test_answers_that_are_only_read_have_no_labels() -> None:
    read = replace(PAIR, turns=(*TURNS[:3], replace(TURNS[3], learned=False)))
    ((_, row),) = encode_answers(PromptRenderer(build_tokenizer()), [read], "all")
    assert len(runs(row)) == 2


def test_a_template_that_writes_earlier_answers_otherwise_gets_a_row_for_each() -> None:
    renderer = PromptRenderer(thinking())
    encoded = encode_answers(renderer, [PAIR, replace(pair(), turns=TURNS[:0])], "all")
    assert [row.part for _, row in encoded] == [True, True, True, False]
    for (single, row), expected in zip(encoded, [*single_answers(PAIR), pair()], strict=True):
        assert single == expected
        assert row.input_ids[: row.prompt_length] == renderer.pair_prompts([single])[0]
        assert renderer.tokenizer.decode(row.input_ids[row.prompt_length :]) == (
            f"<think>\n\n</think>\n\n{single.answer}<|im_end|>"
        )
    # The last alone needs no such thing.
    assert len(encode_answers(renderer, [PAIR], "last")) == 1
    fitted = fit_rows(renderer, [PAIR], max_length=10_000, overlong="cut")
    assert (len(fitted.rows), fitted.taken_apart) == (3, 1)


def test_thoughts_of_earlier_answers_are_left_out_as_the_template_does() -> None:
    turns = (TURNS[0], Turn("assistant", "<think>Hm.</think>\n\nA painful arthritis."))
    row = replace(PAIR, turns=turns)
    renderer = PromptRenderer(thinking())
    (prompt,) = renderer.pair_prompts([row])
    official = renderer.tokenizer.apply_chat_template(
        messages(row, ""), tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert renderer.tokenizer.decode(prompt) == renderer.tokenizer.decode(official)
    # Where a template keeps thoughts, they stay, and all is one row.
    keeps = PromptRenderer(thinking(CHATML))
    assert "Hm." in keeps.tokenizer.decode(keeps.pair_prompts([row])[0])
    assert len(encode_answers(keeps, [row], "all")) == 1


def test_a_template_for_one_question_refuses_a_conversation_with_its_true_reason() -> None:
    single = "{% if messages | length > 2 %}{{ raise_exception('one') }}{% endif %}" + CHATML
    problem = "cannot render a conversation of 3 questions; use a model whose template takes several turns"
    with pytest.raises(ModelError, match=problem):
        PromptRenderer(thinking(single)).pair_prompts([PAIR])


# The length limit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama3", "mistral"])
def test_an_overlong_conversation_loses_its_oldest_exchanges_whole(name: str) -> None:
    renderer = PromptRenderer(ALL[name](), "You are kind.")
    whole, shorter, alone = (
        encode_answers(renderer, [replace(OWN, turns=(OWN.turns[0], *TURNS[cut:]))], "all")[0][1] for cut in (0, 2, 4)
    )
    for limit, expected, kept in (
        (len(whole.input_ids), whole, 3),
        (len(whole.input_ids) - 1, shorter, 2),
        (len(shorter.input_ids), shorter, 2),
        (len(shorter.input_ids) - 1, alone, 1),
    ):
        fitted = encode_for_training(renderer, [OWN], max_length=limit, overlong="cut")
        assert fitted.rows == [expected]
        assert len(runs(fitted.rows[0])) == kept
        assert (fitted.shortened, fitted.cut) == (int(expected is not whole), 0)
        assert fitted.tokens_lost == whole.learned_tokens - expected.learned_tokens
    fitted = encode_for_training(renderer, [OWN], max_length=len(alone.input_ids) - 2, overlong="cut")
    assert (fitted.shortened, fitted.cut) == (1, 1)
    require_sound_rows(fitted.rows, renderer)
    dropped = fit_rows(renderer, [OWN], max_length=len(whole.input_ids) - 1, overlong="drop")
    assert (dropped.rows, dropped.dropped, dropped.tokens_lost) == ([], 1, whole.learned_tokens)


def test_many_exchanges_are_fitted_in_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [turn for n in range(40) for turn in (Turn("user", f"What is {n} ?"), Turn("assistant", f"It is {n}."))]
    row, renderer = replace(PAIR, turns=tuple(turns)), PromptRenderer(build_tokenizer())
    calls = []
    encode = PromptRenderer.encode_pairs
    monkeypatch.setattr(PromptRenderer, "encode_pairs", lambda self, *args: calls.append(args) or encode(self, *args))
    fitted = fit_rows(renderer, [row], max_length=256, overlong="cut", loss_on="last")
    assert 200 < len(fitted.rows[0].input_ids) <= 256
    assert len(calls) < 12
    assert earlier_exchanges(row)[-1][1] in renderer.tokenizer.decode(fitted.rows[0].input_ids)
