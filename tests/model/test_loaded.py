"""Where a base model is put, for training and for answers; a padding token that it must never learn to emit."""

import pytest
from transformers import AutoModelForCausalLM

from medtune.config.schema import Config
from medtune.errors import ModelError
from medtune.model.demo_model import CHAT_TEMPLATE, SPECIAL_TOKENS
from medtune.model.loaded import load_model, set_pad_token
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
