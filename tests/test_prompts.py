"""The renderer: one BOS, a learned end token, labels on the answer alone, and text that stays text."""

import pytest

from medtune.errors import DataError, ModelError
from medtune.prompts import PromptRenderer, encode_for_training
from medtune.records import QAPair
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
