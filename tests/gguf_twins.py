"""Tiny models of the families that are written as GGUF, and tokenizers of every kind that llama.cpp has a name for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from architectures import ARCHITECTURES, Architecture

from tiny_model import CORPUS

# llama.cpp computes the scale of attention from the size of a head.
_SCALE = {"query_pre_attn_scalar": 16}
TWINS: dict[str, Architecture] = {
    name: replace(ARCHITECTURES[name], options=ARCHITECTURES[name].options | changes)
    for name, changes in {
        "LLaMA 3": {}, "LLaMA 3.1": {}, "LLaMA 3.2": {}, "Qwen 2.5": {}, "Qwen 3": {}, "Mistral": {}, "Gemma": {},
        "Gemma 2": _SCALE, "Gemma 3": _SCALE, "Phi 3": {},
    }.items()
}  # fmt: skip
# As the tokenizer.json of each model has it.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def splitting_by(expression: str, *, whole_words: bool = False) -> Any:
    """A byte-level tokenizer that splits texts by an expression."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(ignore_merges=whole_words))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    bpe.train_from_iterator([*CORPUS, "1234567 1999 HeLLo WORLD it's We'll été naïve\n\n  x"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>")


SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]


def build_sentencepiece_twin(*, prepends: bool, chat_template: str | None = None) -> Any:
    """About 700 tokens; `prepends` has a blank come before each text, as LLaMA-2 has it and Gemma does not."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = [f"\u2581{word}" for text in CORPUS for word in text.split()]
    first = Tokenizer(models.BPE())
    first.train_from_iterator(words, trainers.BpeTrainer(vocab_size=350, show_progress=False))
    pieces = [token for token, _ in sorted(first.get_vocab().items(), key=lambda item: item[1])]
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *dict.fromkeys(["\u2581", *pieces])]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    known = set(tokens[len(SPECIAL) + 256 :])
    merges = [
        (token[:cut], token[cut:])
        for token in tokens[len(SPECIAL) + 256 :]
        for cut in range(1, len(token))
        if token[:cut] in known and token[cut:] in known
    ]
    bpe = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Replace(" ", "\u2581")]
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), *steps] if prepends else steps)
    last = [decoders.Strip(" ", 1, 0)] if prepends else []
    bpe.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *last])
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, padding_side="left", **names)
    tokenizer.chat_template = chat_template
    return tokenizer


def build_stripping_tokenizer() -> Any:
    """Phi-3's, whose special tokens take the line break behind them, all but the first three."""
    from tokenizers import AddedToken

    tokenizer = build_sentencepiece_twin(prepends=False, chat_template=ARCHITECTURES["Phi 3"].tokenizer().chat_template)
    names = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    added = [AddedToken(name, rstrip=True, normalized=False, special=True) for name in names]
    added.append(AddedToken("<|endoftext|>", normalized=False, special=True))
    tokenizer.add_special_tokens({"additional_special_tokens": added})
    return tokenizer
