"""The renderer: one BOS, a learned end token, labels on the answer alone, and text that stays text."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

import medtune.data.prompts
from chat_tokenizers import ALL, LONG, QUESTIONS, RENDERERS, ROWS, gemma, mistral, pair
from medtune.data.prompts import PromptRenderer
from medtune.data.training_rows import require_sound_rows
from medtune.errors import ModelError
from medtune.records import IGNORED, QAPair
from tiny_model import build_tokenizer


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("system", ["", "You are kind."])
@pytest.mark.parametrize("question", QUESTIONS)
def test_training_prefix_is_generation_prompt(make, system, question):
    renderer = PromptRenderer(make(), system)
    row = renderer.encode_pairs([pair(question)])[0]
    prompt = renderer.prompt_ids(question)
    assert row.input_ids[: row.prompt_length] == prompt
    assert row.labels == [-100] * len(prompt) + row.input_ids[len(prompt) :]
    assert row.labels[-1] == renderer.end_token_id
    answer = renderer.tokenizer.decode(row.input_ids[len(prompt) : -1])
    assert answer.strip() == "Uric acid.\nCrystals form."


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_equals_the_template_up_to_the_end_token(make):
    tokenizer = make()
    renderer = PromptRenderer(tokenizer)
    messages = [
        {"role": "user", "content": "What causes gout ?"},
        {"role": "assistant", "content": "Uric acid.\nCrystals form."},
    ]
    official = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    ours = renderer.encode_pairs([pair()])[0].input_ids
    assert official[: len(ours)] == ours
    # Only the template's own line end may follow.
    assert tokenizer.decode(official[len(ours) :]).strip() == ""


def test_system_line_is_in_the_prompt_with_and_without_a_system_role():
    for make in (build_tokenizer, gemma, mistral):
        tokenizer = make()
        text = tokenizer.decode(PromptRenderer(tokenizer, "You are kind.").prompt_ids("What causes gout ?"))
        assert "You are kind." in text
        assert text.index("You are kind.") < text.index("What causes gout ?")


def test_end_token_is_the_templates():
    assert PromptRenderer(build_tokenizer()).end_token_id == 5
    tokenizer = gemma()
    # Gemma's <eos> ends a text; a turn ends with <end_of_turn>.
    assert PromptRenderer(tokenizer).end_token_id == tokenizer.convert_tokens_to_ids("<end_of_turn>")


def test_exactly_one_bos():
    tokenizer = build_tokenizer()
    assert PromptRenderer(tokenizer).encode_pairs([pair()])[0].input_ids.count(0) == 1


def test_bos_stands_once_where_the_tokenizer_adds_it_however_often_the_template_writes_it():
    from tokenizers.processors import TemplateProcessing

    from medtune.model.demo_model import CHAT_TEMPLATE

    for written in range(3):
        template = CHAT_TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}" * written)
        tokenizer = build_tokenizer(chat_template=template)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
        )
        row = PromptRenderer(tokenizer).encode_pairs([pair()])[0]
        assert row.input_ids.count(0) == 1
        assert row.input_ids[0] == 0
        require_sound_rows([row], PromptRenderer(tokenizer))


def test_spelled_special_tokens_stay_text():
    tokenizer = build_tokenizer()
    spelled = "Say <|eot_id|> or <|begin_of_text|> or <|start_header_id|>."
    plain = PromptRenderer(tokenizer, "Be kind.").encode_pairs([pair()])[0]
    row = PromptRenderer(tokenizer, "Never say <|eot_id|>.").encode_pairs([pair(spelled, spelled)])[0]
    for token in (0, 3, 4, 5):
        assert row.input_ids.count(token) == plain.input_ids.count(token)
    text = tokenizer.decode(row.input_ids)
    assert text.count(spelled) == 2
    assert "Never say <|eot_id|>." in text


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("system", ["", "You are kind."])
def test_worked_examples_are_earlier_turns_of_the_chat(make, system):
    tokenizer = make()
    examples = [pair(f"What is number {n} ?", f"It is {n}.\nReally.", f"e{n}") for n in (1, 2, 3)]
    ours = PromptRenderer(tokenizer, system).prompt_ids("What causes gout ?", examples)
    turns = [
        {"role": role, "content": text}
        for example in examples
        for role, text in (("user", example.question), ("assistant", example.answer))
    ] + [{"role": "user", "content": "What causes gout ?"}]
    if system and make in (gemma, mistral):  # no system role: the line goes before the first question
        turns[0]["content"] = f"{system}\n\n{turns[0]['content']}"
    elif system:
        turns.insert(0, {"role": "system", "content": system})
    assert ours == tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=True, return_dict=False)
    row = PromptRenderer(tokenizer, system).encode_pairs([pair()], {pair().id: examples})[0]
    assert row.input_ids[: row.prompt_length] == ours


def test_worked_examples_that_spell_special_tokens_stay_text():
    tokenizer = build_tokenizer()
    ids = PromptRenderer(tokenizer).prompt_ids("Why ?", [pair("<|eot_id|>", "<|begin_of_text|>")])
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids.count(5) == 3  # question, answer, question


def test_a_template_that_takes_one_question_cannot_have_examples():
    single = (
        "{{ bos_token }}{% if messages | length > 3 %}{{ raise_exception('one turn') }}{% endif %}"
        "{% for m in messages %}{{ m['content'] }}<|eot_id|>{% endfor %}"
    )
    renderer = PromptRenderer(build_tokenizer(chat_template=single))
    with pytest.raises(ModelError, match=r"leave few_shot out of evaluation\.controls, and retrieval"):
        renderer.prompt_ids("Why ?", [pair(), pair()])


def test_cut_text_is_what_a_capped_model_would_have_written():
    renderer = PromptRenderer(build_tokenizer())
    text = "Uric acid builds up in the blood. 😀😀"
    assert renderer.cut_to(text, 1000) == text
    for tokens in range(1, renderer.count_tokens([text])[0]):
        cut = renderer.cut_to(text, tokens)
        assert text.startswith(cut)
        assert renderer.count_tokens([cut])[0] <= tokens


# Many rows at a time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("renderer", RENDERERS.values(), ids=map(" ".join, RENDERERS))
@given(rows=ROWS, examples=ROWS)
def test_rows_are_the_same_in_a_batch_and_alone(renderer, rows, examples):
    turns = {row.id: examples[: place % 3] for place, row in enumerate(rows)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medtune.data.prompts, "_BATCH", 2)  # so that rows come in several batches
        encoded = renderer.encode_pairs(rows, turns)
        prompts = renderer.pair_prompts(rows)
        counts = renderer.count_tokens([row.answer for row in rows])
    assert encoded == [renderer.encode_pairs([row], {row.id: turns[row.id]})[0] for row in rows]
    assert prompts == [renderer.prompt_ids(row.question) for row in rows]
    assert counts == [renderer.count_tokens([row.answer])[0] for row in rows]
    for row, ids in zip(rows, encoded, strict=True):
        assert ids.input_ids[: ids.prompt_length] == renderer.prompt_ids(row.question, turns[row.id])
        assert ids.labels == [IGNORED] * ids.prompt_length + ids.input_ids[ids.prompt_length :]


@pytest.mark.parametrize("renderer", RENDERERS.values(), ids=map(" ".join, RENDERERS))
@given(rows=ROWS)
def test_no_text_changes_how_many_special_tokens_a_row_has(renderer, rows):
    special = renderer.tokenizer.added_tokens_decoder
    expected = [id for id in renderer.encode_pairs([pair()])[0].input_ids if id in special]
    for row, text in zip(renderer.encode_pairs(rows), rows, strict=True):
        assert [id for id in row.input_ids if id in special] == expected
        assert renderer.tokenizer.decode(row.input_ids[row.prompt_length : -1]).strip() == text.answer.strip()


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
@given(questions=st.lists(st.text(min_size=1).filter(lambda text: "<" not in text).map(str.strip)))
def test_prompts_of_plain_texts_are_the_templates(make, questions):
    tokenizer = make()
    official = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        for question in questions
    ]
    rows = [QAPair("", "", question, "") for question in questions]
    assert PromptRenderer(tokenizer).pair_prompts(rows) == official


def test_texts_longer_than_the_model_reads_bring_no_warning(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 16
    with caplog.at_level(logging.WARNING, logger="transformers"):
        renderer = PromptRenderer(tokenizer)
        renderer.encode_pairs([pair(answer=LONG)])
        renderer.cut_to(LONG, 4)
        assert not caplog.records
        tokenizer(LONG)
    assert "longer than the specified maximum" in caplog.text


# The mask -----------------------------------------------------------------------------------------------------------
