"""The demo's training on this machine's CPU: TRL's SFTTrainer with its default settings, and medtune's, side by side.

    demo_cpu.py [--steps 20] [--repeats 5]

Arms, one after another, `repeats` times over, each in a process of its own: `trl` is SFTTrainer with SFTConfig's
defaults (bfloat16, padded, eight rows a batch, checkpointing) on the demo's model in NF4; `medtune` is `medtune train`;
`medtune_nf4` the same with base weights that are dequantised in every step. All train on the same rows in the same
order, eight a step, with the same answer-only labels and a float32 adapter of rank 16 on all seven projections.

Prints a line for each measurement, and at the end one with the medians and their ratios. Three steps are warm-up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

from medquad_rows import Row, in_training_order, read_rows, write_rows
from medtune_runs import (
    NO_CHECKPOINTS,
    chosen,
    medtune,
    stage_records,
    start_from_prepared,
    training_figures,
    write_recipe,
)
from reporting import WARMUP_STEPS, note, print_measurement

ROWS_PER_STEP = 8
ARMS: dict[str, list[str]] = {"trl": [], "medtune": [], "medtune_nf4": ["training.weights=nf4"]}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    """All arms, alternating, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trl-child", nargs=2, type=Path, metavar=("MODEL", "ROWS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trl_child:
        with redirect_stdout(sys.stderr):
            figures = trl_arm(*arguments.trl_child, steps=arguments.steps)
        print(json.dumps(figures))
        return
    rates: dict[str, list[int]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe, model, rows = prepare(folder, arguments.steps)
        for repeat in range(arguments.repeats):
            for name, settings in ARMS.items():
                if name == "trl":
                    figures = _in_child(model, rows, arguments.steps)
                else:
                    figures = medtune_arm(folder, recipe, settings, f"{name}-{repeat}")
                rates[name].append(figures["tok_s"])
                print_measurement(benchmark="demo_cpu", arm=name, repeat=repeat, **figures)
    print_measurement(benchmark="demo_cpu", **summary(rates))


def prepare(folder: Path, steps: int) -> tuple[Path, Path, Path]:
    """Recipe, model folder, and the rows of `steps` steps as medtune takes them. The data stage is run once."""
    from medtune.model.demo_model import build_demo_model
    from medtune.model.loaded import load_renderer
    from medtune.run_dir import RunDir
    from medtune.training_rows import encode_for_training

    recipe = write_recipe(
        folder,
        {
            "extends": "demo",
            "training": {
                "max_steps": steps,
                "effective_batch_rows": ROWS_PER_STEP,
                "checkpoint_steps": NO_CHECKPOINTS,
                "keep": "last",
                "validation_limit": 8,
            },
            "evaluation": {"metrics": ["perplexity"], "controls": []},
        },
    )
    model = build_demo_model()
    medtune("data", "prepare", recipe, "--run-dir", folder / "prepared")
    run = RunDir.open(folder / "prepared")
    config = run.config()
    encoded = encode_for_training(
        load_renderer(config, model), run.read_split("train"), max_length=config.training.max_length, overlong="cut"
    )
    write_rows(folder / "rows.jsonl", rows_of_steps(in_training_order(encoded.rows, config.seed), steps))
    return recipe, model, folder / "rows.jsonl"


def rows_of_steps(rows: Sequence[Row], steps: int) -> list[Row]:
    """Rows of whole steps, of one epoch. Exits where the epoch has fewer."""
    if len(rows) < steps * ROWS_PER_STEP:
        raise SystemExit(f"--steps {steps}: one epoch has {len(rows) // ROWS_PER_STEP} whole steps; take fewer")
    return list(rows[: steps * ROWS_PER_STEP])


def medtune_arm(folder: Path, recipe: Path, settings: list[str], name: str) -> dict[str, Any]:
    """`medtune train`, from the data stage that was run before."""
    run = folder / name
    start_from_prepared(folder / "prepared", run, recipe, settings)
    medtune("train", run)
    return {**training_figures(run), "chosen": chosen(stage_records(run)["train"])}


def trl_arm(model_folder: Path, rows_file: Path, *, steps: int) -> dict[str, Any]:
    """SFTTrainer as it comes, on the rows in their order."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    rows = read_rows(rows_file)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            times.append(time.monotonic())

    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_folder, quantization_config=quantization),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            max_steps=steps,
            train_sampling_strategy="sequential",
            use_cpu=True,  # without it a machine with no GPU is refused
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model_folder),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=16, target_modules=PROJECTIONS),
        callbacks=[Clock()],
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    assert trainer.args.per_device_train_batch_size == ROWS_PER_STEP
    trainer.train()
    tokens = sum(len(row["input_ids"]) for row in rows[WARMUP_STEPS * ROWS_PER_STEP :])
    seconds = times[-1] - times[WARMUP_STEPS - 1]
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return {
        "tok_s": round(tokens / seconds),
        "ms_per_step": round(1000 * seconds / (steps - WARMUP_STEPS)),
        "tokens_per_step": round(tokens / (steps - WARMUP_STEPS)),
        "steps": steps,
        "first_loss": round(losses[0], 4),
        "last_loss": round(losses[-1], 4),
        "dtype": "bfloat16" if trainer.args.bf16 else "float32",
    }


def _in_child(model: Path, rows: Path, steps: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--steps", str(steps), "--trl-child", str(model), str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"SFTTrainer ended with status {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def summary(rates: dict[str, list[int]]) -> dict[str, Any]:
    """Medians, and what they say beside each other."""
    middle = {name: median(values) for name, values in rates.items()}
    return {
        "median_tok_s": middle,
        "lowest_tok_s": {name: min(values) for name, values in rates.items()},
        "highest_tok_s": {name: max(values) for name, values in rates.items()},
        "medtune_over_trl": round(middle["medtune"] / middle["trl"], 2),
        "due_to_dequantising_once": round(middle["medtune"] / middle["medtune_nf4"], 2),
    }


if __name__ == "__main__":
    main()
    note("done")
