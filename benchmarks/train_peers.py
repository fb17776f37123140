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
from reporting import (
    GIB,
    WARMUP_STEPS,
    forget_peaks,
    limit_gpu_memory,
    parse_options,
    peaks,
    print_measurement,
    synchronize,
)
from shape_8b import with_positions

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
    is_unsloth = arguments.arm.startswith("unsloth")
    count = options["bs"] * options["ga"] * options["steps"] * (ROWS_PER_BIN if options["pack"] else 1)
    rows = read_rows(arguments.rows, count)
    if is_unsloth:
        # It has to be imported before what it patches; and there is no network to report to.
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
        import unsloth  # noqa: F401
    import torch

    limit_gpu_memory(options["cap"])
    began = time.monotonic()
    path = arguments.model
    if options["positions"]:
        path = str(with_positions(Path(path), options["positions"], Path(tempfile.mkdtemp()) / "model"))
    model, tokenizer, lora = (load_unsloth if is_unsloth else load_plain)(path, options)
    loaded = {"load_seconds": round(time.monotonic() - began, 1)}
    if torch.cuda.is_available():
        loaded["load_gib"] = round(torch.cuda.memory_allocated() / GIB, 2)
    figures = train(model, tokenizer, lora, rows, options, is_unsloth=is_unsloth)
    print_measurement(benchmark="train", arm=arguments.arm, options=options, **loaded, **figures)


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

    clock = _clock()
    trainer = SFTTrainer(
        model=model,
        args=arguments_of(options, is_unsloth=is_unsloth),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[clock],
    )
    # The same adapter for all: TRL casts that of a 4-bit model to bfloat16, with which float16 cannot train.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    counts = _count_tokens(trainer)
    forget_peaks()
    error = None
    try:
        trainer.train()
    except torch.cuda.OutOfMemoryError as caught:
        error = str(caught).splitlines()[0]
    figures: dict[str, Any] = {"error": error, **peaks()}
    if error is None:
        figures |= _speed(clock.times, counts, options)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        # transformers 5 logs numbers as text.
        figures |= {"first_loss": round(float(losses[0]), 4), "last_loss": round(float(losses[-1]), 4)}
        figures["labels"] = _labels(counts, rows)
    return figures


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


def _count_tokens(trainer: Any) -> list[tuple[int, int]]:
    """Real tokens and answer tokens of every micro-batch, as the model gets it; filled while it trains."""
    counts: list[tuple[int, int]] = []
    step = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        mask = inputs.get("attention_mask")
        real = int(mask.sum()) if mask is not None else int(inputs["input_ids"].numel())
        counts.append((real, int((inputs["labels"] != -100).sum())))
        return step(model, inputs, *args, **kwargs)

    trainer.training_step = counted
    return counts


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            synchronize()
            self.times.append(time.monotonic())

    return Clock()


def _speed(times: list[float], counts: list[tuple[int, int]], options: dict[str, Any]) -> dict[str, Any]:
    timed = len(times) - WARMUP_STEPS
    passes = counts[WARMUP_STEPS * options["ga"] : len(times) * options["ga"]]
    tokens, seconds = sum(real for real, _ in passes), times[-1] - times[WARMUP_STEPS - 1]
    return {
        "tok_s": round(tokens / seconds),
        "ms_per_step": round(1000 * seconds / timed),
        "tokens_per_step": round(tokens / timed),
        "tokens_per_micro_batch": round(tokens / len(passes)),
        "steps": len(times),
    }


def _labels(counts: list[tuple[int, int]], rows: list[Row]) -> str:
    """What the loss looked at, as the share of labelled tokens tells beside that of the rows."""
    seen = sum(labelled for _, labelled in counts) / sum(real for real, _ in counts)
    answers = sum(label != -100 for row in rows for label in row["labels"])
    expected = answers / sum(len(row["input_ids"]) for row in rows)
    # Packing and a cut at `maxlen` shift the share a little; training on prompts makes it 1.
    kind = "answers only" if abs(seen - expected) < (1 - expected) / 2 else "NOT the rows' labels"
    return f"{kind}: {seen:.1%} of the tokens, {expected:.1%} in the rows"


def _lora(options: dict[str, Any]) -> dict[str, Any]:
    return {
        "r": 16, "lora_alpha": 16, "lora_dropout": options["dropout"], "bias": "none", "target_modules": PROJECTIONS,
    }  # fmt: skip


def _dtype(options: dict[str, Any]) -> Any:
    import torch

    return torch.float16 if options["fp16"] else torch.bfloat16


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with redirect_stdout(sys.stderr):
        main()
