"""Tokenizers: loading, and a padding token that the model never has to emit."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError, first_line

_RESERVED = re.compile(r"<\|reserved_special_token_(\d+)\|>")
_BROKEN_FILES = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
_NAMED = ("<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>", "<|padding|>")


def load_tokenizer(path: Path) -> Any:
    """The fast tokenizer in `path`, padding on the left. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, padding_side="left")
    except Exception as error:
        # The tokenizers library raises nothing narrower for a file that is not one of its own.
        if type(error) is not Exception and not isinstance(error, _BROKEN_FILES):
            raise
        fix = "give a model with its tokenizer files"
        raise ModelError(path, f"no usable tokenizer ({first_line(error)})", fix) from None
    if not tokenizer.is_fast:
        raise ModelError(path, "only fast tokenizers are supported", "convert it to tokenizer.json")
    return tokenizer


def set_pad_token(tokenizer: Any, end_token_ids: Collection[int], embedding_rows: int) -> None:
    """Give `tokenizer` a padding token that is none of `end_token_ids`, without adding one to the vocabulary.

    In this order: its own, if fit; `<|finetune_right_pad_id|>` (LLaMA 3.1 and later); other tokens named for padding;
    the first `<|reserved_special_token_N|>` (LLaMA 3.0); the unknown token; any other special token; any token.
    Raises ModelError if the vocabulary holds nothing but end tokens.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()

    def fits(token: str | None) -> bool:
        return token in vocabulary and vocabulary[token] not in end_token_ids and vocabulary[token] < embedding_rows

    reserved = sorted((int(m[1]), token) for token in vocabulary if (m := _RESERVED.fullmatch(token)))
    special = [t for t in tokenizer.all_special_tokens if t != tokenizer.bos_token]
    candidates = [tokenizer.pad_token, *_NAMED, *(t for _, t in reserved), tokenizer.unk_token, *special, *vocabulary]
    chosen = next((token for token in candidates if fits(token)), None)
    if chosen is None:
        raise ModelError(tokenizer.name_or_path, "no token is left for padding besides the end tokens")
    if tokenizer.pad_token != chosen:
        tokenizer.pad_token = chosen


def end_token_ids(tokenizer: Any, model: Any) -> list[int]:
    """Every token that ends an answer: the chat template's, the tokenizer's and the model's generation config's."""
    listed = model.generation_config.eos_token_id
    listed = listed if isinstance(listed, list) else [listed]
    ids = {PromptRenderer(tokenizer).end_token_id, tokenizer.eos_token_id, *listed} - {None}
    return sorted(ids)
