"""Where a base model is put, for training and for answers; a padding token that it must never learn to emit."""

import pytest
from transformers import AutoModelForCausalLM

from medtune.config.schema import Config
from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from medtune.model.demo_model import CHAT_TEMPLATE, SPECIAL_TOKENS
from medtune.model.loaded import load_model, require_embedded_tokens, set_pad_token
from tiny_model import build_tokenizer

BOS, EOT = "<|begin_of_text|>", "<|eot_id|>"
WITHOUT_PAD = [token for token in SPECIAL_TOKENS if token != "<|finetune_right_pad_id|>"]


@pytest.mark.parametrize(("for_training", "placed"), [(True, {"": "cpu"}), (False, "auto")])
def test_a_device_map_is_for_answers_and_training_stays_on_one_device(tiny, monkeypatch, for_training, placed):
    """A 4-bit model that is spread out or offloaded cannot be trained."""
    load, asked = AutoModelForCausalLM.from_pretrained, []

    def watched(*args, **options):
        asked.append(options["device_map"])
        return load(*args, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", watched)
    config = Config.model_validate(
        {"model": {"base": str(tiny.path), "device_map": "auto", "dtype": "float32"}, "data": {"source": "x"}}
    )
    loaded = load_model(config, for_training=for_training)
    assert asked == [placed]
    assert {parameter.device.type for parameter in loaded.model.parameters()} == {"cpu"}


def chosen(tokenizer, ends=(EOT, "<|end_of_text|>"), rows=None):
    size = len(tokenizer)
    set_pad_token(tokenizer, [tokenizer.convert_tokens_to_ids(end) for end in ends], rows or size)
    assert len(tokenizer) == size
    return tokenizer.pad_token


def test_llama_3_0_pads_with_a_reserved_token():
    reserved = [f"<|reserved_special_token_{n}|>" for n in (12, 3, 250)]
    tokenizer = build_tokenizer([*WITHOUT_PAD, *reserved], CHAT_TEMPLATE, bos_token=BOS, eos_token=EOT)
    assert chosen(tokenizer) == "<|reserved_special_token_3|>"


def test_llama_3_1_pads_with_its_padding_token():
    tokens = [*SPECIAL_TOKENS, "<|reserved_special_token_0|>"]
    tokenizer = build_tokenizer(tokens, CHAT_TEMPLATE, bos_token=BOS, eos_token=EOT)
    assert chosen(tokenizer) == "<|finetune_right_pad_id|>"


def test_padding_with_the_end_token_is_replaced():
    # The usual `tokenizer.pad_token = tokenizer.eos_token`: the end token would never be learned.
    tokenizer = build_tokenizer(list(SPECIAL_TOKENS), CHAT_TEMPLATE, bos_token=BOS, eos_token=EOT, pad_token=EOT)
    assert chosen(tokenizer) == "<|finetune_right_pad_id|>"


def test_other_models_keep_a_padding_token_that_fits():
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = build_tokenizer(tokens, CHAT_TEMPLATE, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    assert chosen(tokenizer, ends=("<|im_end|>",)) == "<|endoftext|>"


def test_other_models_fall_back_to_the_unknown_token_then_to_any():
    tokenizer = build_tokenizer(["<s>", "</s>", "<unk>"], None, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    assert chosen(tokenizer, ends=("</s>",)) == "<unk>"
    tokenizer = build_tokenizer(["<s>", "</s>"], None, bos_token="<s>", eos_token="</s>")
    assert chosen(tokenizer, ends=("</s>",)) not in (None, "</s>")


def test_the_padding_token_has_an_embedding():
    tokenizer = build_tokenizer(["<s>", "</s>"], None, bos_token="<s>", eos_token="</s>")
    tokenizer.add_tokens(["<pad>"])
    rows = len(tokenizer) - 1
    assert tokenizer.convert_tokens_to_ids(chosen(tokenizer, ends=("</s>",), rows=rows)) < rows


def test_nothing_left():
    tokenizer = build_tokenizer()
    with pytest.raises(ModelError, match="no token is left"):
        set_pad_token(tokenizer, range(len(tokenizer)), len(tokenizer))


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def with_added(tokens, template=CHATML, special=True):
    """A tokenizer to which somebody added tokens, and how many rows its model's embeddings have."""
    from tokenizers import AddedToken

    tokenizer = build_tokenizer(chat_template=template)
    rows = len(tokenizer)
    tokenizer.add_tokens([AddedToken(token, special=special) for token in tokens], special_tokens=special)
    return tokenizer, rows


def test_a_template_with_tokens_past_the_embeddings_is_refused_and_names_them():
    """They ended in "index out of range in self": https://github.com/huggingface/transformers/issues/12763."""
    tokenizer, rows = with_added(["<|im_start|>", "<|im_end|>"])
    expected = (
        rf"base: its embeddings have {rows} rows, and its tokenizer or chat template writes tokens past them: "
        rf"<\|im_start\|> \({rows}\), <\|im_end\|> \({rows + 1}\); give it a template whose tokens it has, such as "
        r"--set model\.chat_template=alpaca, or a model saved with rows for them, and trained on them$"
    )
    with pytest.raises(ModelError, match=expected):
        require_embedded_tokens(PromptRenderer(tokenizer), rows, "base")
    require_embedded_tokens(PromptRenderer(tokenizer), rows + 2, "base")


def test_tokens_past_the_embeddings_that_nothing_writes_do_no_harm():
    """The padding token that people add: https://github.com/unslothai/unsloth/issues/1273."""
    tokenizer, rows = with_added(["[PAD]", "<pad>"], CHAT_TEMPLATE)
    require_embedded_tokens(PromptRenderer(tokenizer), rows, "base")
    set_pad_token(tokenizer, [tokenizer.convert_tokens_to_ids(EOT)], rows)
    assert tokenizer.pad_token_id < rows


def test_a_word_of_the_vocabulary_past_the_embeddings_may_come_out_of_any_text():
    tokenizer, rows = with_added([f"word{n}" for n in range(7)], CHAT_TEMPLATE, special=False)
    with pytest.raises(ModelError, match=rf"word0 \({rows}\), .*word4 \({rows + 4}\) … \(7 in all\); give"):
        require_embedded_tokens(PromptRenderer(tokenizer), rows, "base")
    short = build_tokenizer()
    with pytest.raises(ModelError, match=f"have {len(short) - 1} rows"):
        require_embedded_tokens(PromptRenderer(short), len(short) - 1, "base")
