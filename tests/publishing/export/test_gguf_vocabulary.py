"""Tokenizers as llama.cpp knows them: rules by name, kinds of tokens, merges and scores, and BOS once."""

from __future__ import annotations

import pytest

from gguf_twins import GPT_4O, LLAMA_3, QWEN_2, TEKKEN, build_sentencepiece_twin, splitting_by
from medtune.errors import ModelError
from medtune.publishing.export.gguf_vocabulary import read_vocabulary, splitting_rule
from tiny_model import build_tokenizer

gguf = pytest.importorskip("gguf", reason='needs pip install "medtune[export]"')
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


@pytest.mark.parametrize(
    ("expression", "whole_words", "name"),
    [
        (LLAMA_3, True, "llama-bpe"), (LLAMA_3, False, "dbrx"), (QWEN_2, False, "qwen2"), (GPT_4O, False, "gpt-4o"),
        (TEKKEN, True, "tekken"),
    ],
)  # fmt: skip
def test_rules_have_llama_cpp_s_names(expression: str, whole_words: bool, name: str) -> None:
    assert splitting_rule(splitting_by(expression, whole_words=whole_words)) == name


def test_a_rule_without_a_name_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"llama.cpp has no name for how its tokenizer splits texts \(Split, ByteLevel\)"
    ):
        splitting_rule(splitting_by(r"\p{L}+"))


def test_byte_level_tokens_come_with_merges_and_kinds() -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<note>"])
    vocabulary = read_vocabulary(tokenizer, len(tokenizer) + 3, end_token_id=5, adds_bos=True)
    assert (vocabulary.model, vocabulary.pre, vocabulary.adds_bos, vocabulary.adds_blank) == (
        "gpt2",
        "gpt-2",
        True,
        False,
    )
    assert vocabulary.tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert vocabulary.tokens[-1] == f"[PAD{len(tokenizer) + 2}]"
    assert vocabulary.kinds[:7] == [CONTROL] * 6 + [NORMAL]
    assert vocabulary.kinds[len(tokenizer) - 1 :] == [USER_DEFINED, UNUSED, UNUSED, UNUSED]
    assert vocabulary.scores is None
    left, right = vocabulary.merges[0].split(" ")
    assert left + right in vocabulary.tokens
    assert vocabulary.special == {"bos": 0, "eos": 5, "eot": 5, "pad": 2}


def test_tokens_past_the_embeddings_are_left_out() -> None:
    vocabulary = read_vocabulary(build_tokenizer(), 300, end_token_id=5, adds_bos=False)
    assert len(vocabulary.tokens) == 300


@pytest.mark.parametrize("blank", [True, False])
def test_sentencepiece_tokens_come_with_scores_in_the_order_of_merges(blank: bool) -> None:
    tokenizer = build_sentencepiece_twin(prepends=blank)
    vocabulary = read_vocabulary(tokenizer, len(tokenizer), end_token_id=2, adds_bos=True)
    assert (vocabulary.model, vocabulary.pre, vocabulary.merges) == ("llama", "default", None)
    assert vocabulary.adds_blank is blank
    ids = tokenizer.get_vocab()
    assert vocabulary.kinds[ids["<unk>"]] == UNKNOWN
    assert vocabulary.kinds[ids["<s>"]] == CONTROL
    assert vocabulary.kinds[ids["<0x0A>"]] == BYTE
    early, late = ids["\u2581a"], max(ids.values())
    assert vocabulary.scores[early] > vocabulary.scores[late]


def test_other_kinds_of_tokenizers_are_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ModelError, match="its tokenizer is WordLevel, and only BPE is written as GGUF"):
        read_vocabulary(words, 1, end_token_id=0, adds_bos=False)
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(ModelError, match="neither byte-level nor falls back to bytes"):
        read_vocabulary(plain, 1, end_token_id=0, adds_bos=False)
