"""A tiny random LLaMA with LLaMA-3's chat layout, built in a second, for tests that need a model and no meaning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medtune.model.demo_model import CHAT_TEMPLATE, SPECIAL_TOKENS

CORPUS = [
    "What causes gout ? Gout happens when uric acid builds up in the blood and forms crystals in a joint.",
    "What are the symptoms of asthma ? Wheezing, coughing and shortness of breath, often at night.",
    "How to prevent eczema ? Keep the skin moist, avoid harsh soaps and wear soft cotton clothes.",
    "What are the treatments for migraine ? Rest in a dark room, fluids, and medicines that ease pain.",
    "user assistant system You are kind. Answer clearly.",
]


def build_tokenizer(special_tokens: list[str] | None = None, chat_template: str | None = CHAT_TEMPLATE, **names: str):
    """A byte-level BPE of about 400 tokens. `names` sets bos_token, eos_token, pad_token and the like."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special_tokens or list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    names = names or {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "pad_token": "<|finetune_right_pad_id|>",
    }
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, padding_side="left", **names)
    tokenizer.chat_template = chat_template
    return tokenizer


def build_tiny_model(folder: Path) -> Path:
    """Save tokenizer and random float32 weights to `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=5,
        pad_token_id=2,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = 5
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def write_rows(path: Path, count: int = 40) -> Path:
    """A CSV of `count` short question-answer rows of unlike lengths."""
    import csv

    conditions = ["gout", "asthma", "eczema", "migraine", "shingles", "acne", "anemia", "stroke"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["qtype", "Question", "Answer"])
        for number in range(count):
            name = f"{conditions[number % 8]} kind {number}"
            extra = " It may come back, so see a doctor when it does." * (number % 4)
            writer.writerow(["causes", f"What causes {name} ?", f"Nobody knows what causes {name}.{extra}"])
    return path


@dataclass(frozen=True)
class Tiny:
    """The tiny model's folder and tokenizer; `load` gives a fresh float32 copy with the packed attention."""

    path: Path
    tokenizer: Any

    def load(self) -> Any:
        from medtune.config.schema import ModelSection
        from medtune.model.loading import ModelFiles, load_base_model

        section = ModelSection(base=str(self.path), quantization="none")
        return load_base_model(ModelFiles(self.path, None), section, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny random chat model on disk."""
    return Tiny(build_tiny_model(tmp_path_factory.mktemp("tiny")), build_tokenizer())
