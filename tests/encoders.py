"""Small encoders for BERTScore, built on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import RobertaConfig, RobertaForMaskedLM

from medtune.evaluation.encoder import Encoder
from medtune.evaluation.metrics.bertscore import bertscore_rows


def refuse_to_fetch(name: str) -> Path:
    raise AssertionError(f"nothing is to be downloaded, and {name} was asked for")


def raw_f1(
    predictions: list[str], references: list[str], encoder: Encoder, device: str, batch_size: int
) -> list[float]:
    return bertscore_rows(predictions, references, encoder, device, batch_size).f1


def write_config(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **config}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def build_tiny_roberta(folder: Path, *, tokenizer_config: dict[str, object]) -> Path:
    """A byte-level RoBERTa saved with its masked-language head and without a pooler, as roberta-large is."""
    folder.mkdir()
    shape = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 4}
    torch.manual_seed(0)
    RobertaForMaskedLM(RobertaConfig(vocab_size=261, max_position_embeddings=514, **shape)).save_pretrained(folder)
    space_and_bytes = ["<s>", "<pad>", "</s>", "<unk>", *_byte_alphabet(), "<mask>"]
    vocabulary = {token: index for index, token in enumerate(space_and_bytes)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings = {"tokenizer_class": "RobertaTokenizer", **tokenizer_config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _byte_alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())
