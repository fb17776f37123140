"""A tokenizer of the SentencePiece kind, as transformers converts LLaMA-2's, Mistral's and Gemma's.

It has bytes to fall back on, and a merge for every way to split a token into two.
"""

from __future__ import annotations

from typing import Any

from tiny_model import CORPUS

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
