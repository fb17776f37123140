"""One arm of the QLoRA training comparison, by another trainer; prints one JSON line. Each arm is a process of its own.

    train_peers.py ARM MODEL ROWS.jsonl [key=value …]

ARM: tutorial, trl, trl_liger, trl_liger_pack (TRL's SFTTrainer), unsloth, unsloth_16, unsloth_32, unsloth_64 (Unsloth,
by rows a micro-batch). MODEL: a folder in NF4. ROWS.jsonl: what `medquad_rows.py encode` wrote. Every arm trains on
these rows, in this order, with their answer-only labels and a float32 adapter of rank 16 on all seven projections.

Keys: steps (3 of them warm-up) · bs, ga (rows a micro-batch, micro-batches a step) · maxlen · pack=1 (TRL's bfd) ·
liger=1 · prepare=1 (prepare_model_for_kbit_training) · dropout · fp16=1 · gc=0 (no checkpointing) · sac=1 (selective) ·
offload=1 (activations to the host) · cap (GiB this process may use) · padded=1 (Unsloth without its padding-free) ·
positions (what the model may read, whatever its configuration says).

tok_s counts real tokens alone. `labels` tells whether the model was given the answers' labels only, by count.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from medquad_rows import Row, read_rows
from reporting import GIB, forget_peaks, limit_gpu_memory, parse_options, peaks, print_measurement
from shape_8b import with_positions
from step_clock import count_tokens, labels_seen, lift_adapter, step_clock, training_speed

DEFAULTS: dict[str, Any] = {
    "steps": 13, "bs": 4, "ga": 4, "maxlen": 1024, "pack": False, "liger": False, "prepare": False, "dropout": 0.0,
    "fp16": False, "gc": True, "sac": False, "offload": False, "cap": 0.0, "padded": False, "positions": 0,
}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "tutorial": {"prepare": True, "dropout": 0.05},
    "trl": {},
    "trl_liger": {"liger": True},
    "trl_liger_pack": {"liger": True, "pack": True, "ga": 1},
    "unsloth": {},
    "unsloth_16": {"bs": 16, "ga": 1},
    "unsloth_32": {"bs": 32, "ga": 1},
    "unsloth_64": {"bs": 64, "ga": 1},
}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LEARNING_RATE = 2e-4
# A bin of packing holds several rows: as many more are needed.
ROWS_PER_BIN = 4


def main() -> None:
    """Train as the arguments say, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=list(ARMS))
    parser.add_argument("model")
    parser.add_argument("rows", type=Path)
    parser.add_argument("options", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    options = parse_options(arguments.options, DEFAULTS | ARMS[arguments.arm])
    with redirect_stdout(sys.stderr):
        figures = measure(arguments.arm, arguments.model, arguments.rows, options)
    print_measurement(benchmark="train", arm=arguments.arm, options=options, **figures)


def measure(arm: str, path: str, rows_file: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Load, train, and hand back the figures."""
    is_unsloth = arm.startswith("unsloth")
    count = options["bs"] * options["ga"] * options["steps"] * (ROWS_PER_BIN if options["pack"] else 1)
    rows = read_rows(rows_file, count)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if is_unsloth:
        # It has to be imported before what it patches; and there is no network to report to.
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
        import unsloth  # noqa: F401
    import torch

    limit_gpu_memory(options["cap"])
    if options["positions"]:
        path = str(with_positions(Path(path), options["positions"], Path(tempfile.mkdtemp()) / "model"))
    began = time.monotonic()
    model, tokenizer, lora = (load_unsloth if is_unsloth else load_plain)(path, options)
    loaded = {"load_seconds": round(time.monotonic() - began, 1)}
    if torch.cuda.is_available():
        loaded["load_gib"] = round(torch.cuda.memory_allocated() / GIB, 2)
    return {**loaded, **train(model, tokenizer, lora, rows, options, is_unsloth=is_unsloth)}


def load_plain(path: str, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Model, tokenizer and adapter settings for TRL."""
    import torch
    from peft import LoraConfig, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = 0 if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(path, dtype=_dtype(options), device_map={"": device})
    if options["prepare"]:
        model = prepare_model_for_kbit_training(model)
    lora = LoraConfig(task_type="CAUSAL_LM", **_lora(options))
    return model, AutoTokenizer.from_pretrained(path), lora


def load_unsloth(path: str, options: dict[str, Any]) -> tuple[Any, Any, None]:
    """Model with its adapter, and tokenizer, by Unsloth."""
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        path, max_seq_length=options["maxlen"], dtype=_dtype(options), load_in_4bit=True
    )
    checkpointing = "unsloth" if options["gc"] else False
    model = FastLanguageModel.get_peft_model(
        model, use_gradient_checkpointing=checkpointing, random_state=0, **_lora(options)
    )
    return model, tokenizer, None


def train(
    model: Any, tokenizer: Any, lora: Any, rows: list[Row], options: dict[str, Any], *, is_unsloth: bool
) -> dict[str, Any]:
    """Figures of a training that counts real tokens and answers in what the model is given."""
    import torch
    from datasets import Dataset
    from trl import SFTTrainer

    clock = step_clock()
    trainer = SFTTrainer(
        model=model,
        args=arguments_of(options, is_unsloth=is_unsloth),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[clock],
    )
    lift_adapter(trainer.model)
    counts = count_tokens(trainer)
    forget_peaks()
    try:
        trainer.train()
    except torch.cuda.OutOfMemoryError as error:
        return {"error": str(error).splitlines()[0], **peaks()}
    speed = training_speed(clock.times, counts, trainer.state.log_history)
    return {"error": None, **peaks(), **speed, "labels": labels_seen(counts, rows)}


def arguments_of(options: dict[str, Any], *, is_unsloth: bool) -> Any:
    """SFTConfig of the arm; rows are taken from first to last."""
    import torch
    from trl import SFTConfig

    on_gpu = torch.cuda.is_available()
    extra: dict[str, Any] = {}
    if options["pack"]:
        extra |= {"packing": True, "packing_strategy": "bfd"}
    if options["liger"]:
        extra["use_liger_kernel"] = True
    if options["offload"]:
        extra["activation_offloading"] = True
    if is_unsloth and options["padded"]:
        extra["padding_free"] = False
    if not is_unsloth:
        extra["gradient_checkpointing"] = options["gc"]
        if options["gc"]:
            selective = {"selective": True} if options["sac"] else {}
            extra["gradient_checkpointing_kwargs"] = {"use_reentrant": False, **selective}
    return SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=options["bs"],
        gradient_accumulation_steps=options["ga"],
        max_steps=options["steps"],
        max_length=options["maxlen"],
        learning_rate=LEARNING_RATE,
        optim="paged_adamw_8bit" if on_gpu else "adamw_torch",
        fp16=options["fp16"],
        bf16=not options["fp16"],
        use_cpu=not on_gpu,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
        **extra,
    )


def _lora(options: dict[str, Any]) -> dict[str, Any]:
    return {
        "r": 16, "lora_alpha": 16, "lora_dropout": options["dropout"], "bias": "none", "target_modules": PROJECTIONS,
    }  # fmt: skip


def _dtype(options: dict[str, Any]) -> Any:
    import torch

    return torch.float16 if options["fp16"] else torch.bfloat16


if __name__ == "__main__":
    main()
