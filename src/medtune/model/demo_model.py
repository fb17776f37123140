"""The demo's model: a small LLaMA with LLaMA-3's chat layout, built and pre-trained on the spot.

It reads the background prose that ships with the package, never the demo's questions and answers, for well under a
minute on two CPU cores. No weights are in the package: they are made once and kept in the user's cache.
"""

import hashlib
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from filelock import FileLock

from medtune.storage.disk_errors import writing
from medtune.storage.writing import replacing_folder

# Part of the cache key: raise it when a change below changes the model.
VERSION = 1
SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
VOCABULARY = 1536
CONTEXT = 1024
STEPS = 300
BLOCK_TOKENS = 192
BLOCKS_PER_STEP = 6


def build_demo_model() -> Path:
    """The folder of the demo model, made on first use (about 40 s on two cores) and cached."""
    passages = background_passages()
    key = hashlib.sha256(f"{VERSION}\n{STEPS}\n{BLOCK_TOKENS}\n{passages}".encode()).hexdigest()[:16]
    folder = cache_dir() / f"demo-model-{key}"
    if (folder / "config.json").is_file():
        return folder
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # who comes second waits for the first's
            if not (folder / "config.json").is_file():
                tokenizer = _train_tokenizer(passages)
                model = _pretrain(tokenizer, passages)
                with replacing_folder(folder) as temporary:
                    tokenizer.save_pretrained(temporary)
                    model.save_pretrained(temporary)
    return folder


def build_demo_tokenizer() -> Any:
    """The demo model's tokenizer alone, in a second: looking at rows needs no weights."""
    return _train_tokenizer(background_passages())


def cache_dir() -> Path:
    """Where medtune keeps what it builds: `MEDTUNE_CACHE`, or `medtune` in the user's cache folder."""
    if chosen := os.environ.get("MEDTUNE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medtune"


def background_passages() -> list[str]:
    """The prose that the demo model is pre-trained on."""
    text = (files("medtune.data") / "demo" / "background.txt").read_text(encoding="utf-8")
    return [passage.strip() for passage in text.split("\n\n") if passage.strip()]


def _train_tokenizer(passages: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(passages, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def demo_shape() -> Any:
    """The demo model's configuration: a LLaMA of a million weights."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=5,
        pad_token_id=2,
    )


def _pretrain(tokenizer: Any, passages: list[str]) -> Any:
    import torch
    from transformers import LlamaForCausalLM, get_cosine_schedule_with_warmup

    from medtune.runtime.progress import progress_bar

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.device("cpu"):
            model = LlamaForCausalLM(demo_shape())
        model.generation_config.eos_token_id = 5
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
        schedule = get_cosine_schedule_with_warmup(optimizer, 20, STEPS)
        stream = torch.tensor(list(_chats(tokenizer, passages)))
        with progress_bar("Building the demo model", STEPS, unit="steps") as advance:
            for _ in range(STEPS):
                starts = torch.randint(len(stream) - BLOCK_TOKENS, (BLOCKS_PER_STEP,)).tolist()
                blocks = torch.stack([stream[start : start + BLOCK_TOKENS] for start in starts])
                loss = model(input_ids=blocks, labels=blocks).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                advance(1)
    return model.to(torch.bfloat16)


def _chats(tokenizer: Any, passages: list[str]) -> Iterator[int]:
    """The tokens of every passage as a chat that asks for more, which shows where an answer begins and ends."""
    for passage in passages:
        opening = " ".join(passage.split()[:4])
        messages = [{"role": "user", "content": f"Tell me more. {opening}"}, {"role": "assistant", "content": passage}]
        yield from tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
