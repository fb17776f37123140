"""The renderer: one BOS, a learned end token, labels on the answer alone, and text that stays text."""

import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import medtune.data.prompts
from medtune.data.prompts import PromptRenderer
from medtune.data.training_rows import encode_for_training, fit_rows, require_sound_rows
from medtune.errors import DataError, ModelError
from medtune.records import IGNORED, EncodedRow, QAPair
from tiny_model import build_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant roles') }}{% endif %}{% endfor %}"
)
QUESTIONS = ["What causes gout ?", "  Why?\nReally?  ", "<|eot_id|>", "What is <|begin_of_text|> in a text ?", "été ?"]


def pair(question="What causes gout ?", answer="Uric acid.\nCrystals form.", row_id="r1"):
    return QAPair(row_id, "causes", question, answer)


def chatml():
    return build_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], CHATML, eos_token="<|im_end|>")


def gemma():
    tokens = ["<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
    return build_tokenizer(tokens, GEMMA, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def mistral():
    tokens = ["<s>", "</s>", "<unk>"]
    return build_tokenizer(tokens, MISTRAL, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


ALL = {"llama3": build_tokenizer, "chatml": chatml, "gemma": gemma, "mistral": mistral}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("system", ["", "You are kind."])
@pytest.mark.parametrize("question", QUESTIONS)
def test_training_prefix_is_generation_prompt(make, system, question):
    renderer = PromptRenderer(make(), system)
    row = renderer.encode_pair(pair(question))
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
    ours = renderer.encode_pair(pair()).input_ids
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
    assert PromptRenderer(tokenizer).encode_pair(pair()).input_ids.count(0) == 1


def test_bos_is_added_once_where_the_tokenizer_adds_it_and_the_template_does_not():
    from tokenizers.processors import TemplateProcessing

    from medtune.model.demo_model import CHAT_TEMPLATE

    for template in (CHAT_TEMPLATE, CHAT_TEMPLATE.replace("{{ bos_token }}", "")):
        tokenizer = build_tokenizer(chat_template=template)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
        )
        assert PromptRenderer(tokenizer).encode_pair(pair()).input_ids.count(0) == 1


def test_spelled_special_tokens_stay_text():
    tokenizer = build_tokenizer()
    spelled = "Say <|eot_id|> or <|begin_of_text|> or <|start_header_id|>."
    plain = PromptRenderer(tokenizer, "Be kind.").encode_pair(pair())
    row = PromptRenderer(tokenizer, "Never say <|eot_id|>.").encode_pair(pair(spelled, spelled))
    for token in (0, 3, 4, 5):
        assert row.input_ids.count(token) == plain.input_ids.count(token)
    text = tokenizer.decode(row.input_ids)
    assert text.count(spelled) == 2
    assert "Never say <|eot_id|>." in text


def test_no_chat_template():
    with pytest.raises(ModelError, match="no chat template"):
        PromptRenderer(build_tokenizer(chat_template=None)).prompt_ids("What ?")


def test_template_without_an_end_token():
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with pytest.raises(ModelError, match="no end token"):
        PromptRenderer(build_tokenizer(chat_template=template)).prompt_ids("What ?")


def test_template_that_drops_the_question():
    template = "{% for m in messages %}{{ m['role'] }}<|eot_id|>{% endfor %}"
    with pytest.raises(ModelError, match="cannot render"):
        PromptRenderer(build_tokenizer(chat_template=template)).prompt_ids("What ?")


LONG = "First things first. " + "Second sentence here. " * 10 + "Last"


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
    row = PromptRenderer(tokenizer, system).encode_pair(pair(), examples)
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
    with pytest.raises(ModelError, match=r"leave few_shot out of evaluation\.controls"):
        renderer.prompt_ids("Why ?", [pair(), pair()])


def test_cut_text_is_what_a_capped_model_would_have_written():
    renderer = PromptRenderer(build_tokenizer())
    text = "Uric acid builds up in the blood. 😀😀"
    assert renderer.cut_to(text, 1000) == text
    for tokens in range(1, renderer.count_tokens(text)):
        cut = renderer.cut_to(text, tokens)
        assert text.startswith(cut)
        assert renderer.count_tokens(cut) <= tokens


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


# Many rows at a time ------------------------------------------------------------------------------------------------

SPELLED = ["<|eot_id|>", "<|begin_of_text|>", "<|im_end|>", "<start_of_turn>", "<bos>", "</s>"]
WORDS = ["Uric acid", "gout ?", " ", "\n", "<|", "|>", "[INST]", "été", "😀"]
TEXT = st.lists(st.sampled_from([*WORDS, *SPELLED]) | st.text(max_size=8), max_size=8).map("".join)
ROWS = st.lists(st.builds(pair, TEXT, TEXT), max_size=6).map(
    lambda rows: [replace(row, id=f"r{place}") for place, row in enumerate(rows)]
)
RENDERERS = {
    (name, system): PromptRenderer(make(), system) for name, make in ALL.items() for system in ("", "Say </s> kindly.")
}


@pytest.mark.parametrize("renderer", RENDERERS.values(), ids=map(" ".join, RENDERERS))
@given(rows=ROWS, examples=ROWS)
def test_rows_are_the_same_in_a_batch_and_alone(renderer, rows, examples):
    turns = {row.id: examples[: place % 3] for place, row in enumerate(rows)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medtune.data.prompts, "_BATCH", 2)  # so that rows come in several batches
        encoded = renderer.encode_pairs(rows, turns)
        prompts = renderer.prompts([row.question for row in rows])
        counts = renderer.count_tokens_of([row.answer for row in rows])
    assert encoded == [renderer.encode_pair(row, turns[row.id]) for row in rows]
    assert prompts == [renderer.prompt_ids(row.question) for row in rows]
    assert counts == [renderer.count_tokens(row.answer) for row in rows]
    for row, ids in zip(rows, encoded, strict=True):
        assert ids.input_ids[: ids.prompt_length] == renderer.prompt_ids(row.question, turns[row.id])
        assert ids.labels == [IGNORED] * ids.prompt_length + ids.input_ids[ids.prompt_length :]


@pytest.mark.parametrize("renderer", RENDERERS.values(), ids=map(" ".join, RENDERERS))
@given(rows=ROWS)
def test_no_text_changes_how_many_special_tokens_a_row_has(renderer, rows):
    special = renderer.tokenizer.added_tokens_decoder
    expected = [id for id in renderer.encode_pair(pair()).input_ids if id in special]
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
    assert PromptRenderer(tokenizer).prompts(questions) == official


@given(rows=ROWS, max_length=st.integers(20, 60), overlong=st.sampled_from(["cut", "drop"]))
def test_rows_are_fitted_the_same_together_and_alone(rows, max_length, overlong):
    renderer = RENDERERS["llama3", ""]
    together = fit_rows(renderer, rows, max_length=max_length, overlong=overlong)
    alone = [fit_rows(renderer, [row], max_length=max_length, overlong=overlong) for row in rows]
    assert together.rows == [row for one in alone for row in one.rows]
    assert together.no_room == tuple(row for one in alone for row in one.no_room)
    for name in ("cut", "dropped", "tokens_lost"):
        assert getattr(together, name) == sum(getattr(one, name) for one in alone)


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


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("system", ["", "You are kind."])
def test_sound_rows_pass(make, system):
    renderer = PromptRenderer(make(), system)
    rows = [renderer.encode_pair(pair(question, row_id=question)) for question in QUESTIONS]
    assert require_sound_rows(rows, renderer) is None
    assert require_sound_rows([], renderer) is None


def test_a_template_that_opens_every_turn_with_bos_is_sound():
    """SmolLM2's: its BOS is <|im_start|>."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = build_tokenizer(tokens, CHATML, bos_token="<|im_start|>", eos_token="<|im_end|>")
    renderer = PromptRenderer(tokenizer, "You are kind.")
    row = renderer.encode_pair(pair())
    assert row.input_ids.count(tokenizer.bos_token_id) == renderer.bos_count == 3
    require_sound_rows([row], renderer)
    extra = EncodedRow("r1", [*row.input_ids[:-3], 1, *row.input_ids[-3:]], [*row.labels[:-3], 1, *row.labels[-3:]])
    with pytest.raises(DataError, match="row r1: BOS stands twice"):
        require_sound_rows([extra], renderer)


def test_a_model_whose_bos_is_its_end_token_is_sound():
    template = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% else %}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer = build_tokenizer(["<|endoftext|>"], template, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    renderer = PromptRenderer(tokenizer)
    row = renderer.encode_pair(pair())
    assert row.input_ids[0] == row.input_ids[-1] == tokenizer.bos_token_id
    require_sound_rows([row], renderer)


def test_a_template_that_writes_bos_twice_is_refused():
    from medtune.model.demo_model import CHAT_TEMPLATE

    tokenizer = build_tokenizer(chat_template=CHAT_TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}" * 2))
    renderer = PromptRenderer(tokenizer)
    rows = [renderer.encode_pair(pair(row_id=f"r{n}")) for n in range(7)]
    with pytest.raises(DataError) as caught:
        require_sound_rows(rows, renderer)
    assert str(caught.value) == (
        "training rows r0, r1, r2, r3, r4 … (7 in all): BOS stands twice; take it out of the tokenizer's chat "
        "template, or out of what the tokenizer adds"
    )


def test_a_row_without_its_end_token_or_without_any_label_is_refused():
    renderer = PromptRenderer(build_tokenizer())
    sound = renderer.encode_pair(pair(row_id="sound"))
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
