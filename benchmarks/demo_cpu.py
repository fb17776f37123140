"""The demo's training on this machine's CPU: TRL's SFTTrainer with its default settings, and medtune's, side by side.

    demo_cpu.py [--steps 48] [--repeats 5] [key=value …]

Arms, one after another, `repeats` times over, each in a process of its own: `trl` is SFTTrainer with SFTConfig's
defaults (bfloat16, padded, eight rows a batch, checkpointing) on the demo's model in NF4; `trl_same_process` the same
with the settings that medtune makes for its process (how long threads spin, how much freed memory is kept); `medtune`
is `medtune train`; `medtune_nf4` the same with base weights that are dequantised in every step. All train on the same
rows in the same order, eight a step, with the same answer-only labels and a float32 adapter of rank 16 on all seven
projections. key=value sets a configuration key of
both arms of medtune.

Prints a line for each measurement, and at the end one with the medians and their ratios. Three steps are warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from medquad_rows import in_training_order, read_rows, write_rows
from medtune.runtime.process import keep_freed_memory, prepare_process
from medtune_runs import (
    NO_CHECKPOINTS,
    chosen,
    medtune,
    stage_records,
    start_from_prepared,
    training_figures,
    write_recipe,
)
from reporting import print_measurement
from step_clock import count_tokens, labels_seen, lift_adapter, step_clock, training_speed

ROWS_PER_STEP = 8
# 24 whole steps an epoch: a last batch of fewer rows would shift every batch behind it.
TRAIN_ROWS = 192
TRL_ARMS: dict[str, list[str]] = {"trl": [], "trl_same_process": ["--prepare-process"]}
MEDTUNE_ARMS: dict[str, list[str]] = {"medtune": [], "medtune_nf4": ["training.weights=nf4"]}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    """All arms, alternating, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trl-child", nargs=2, type=Path, metavar=("MODEL", "ROWS"), help=argparse.SUPPRESS)
    parser.add_argument("--prepare-process", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    if arguments.trl_child:
        if arguments.prepare_process:
            keep_freed_memory()
            prepare_process()
        with redirect_stdout(sys.stderr):
            figures = trl_arm(*arguments.trl_child, steps=arguments.steps)
        print(json.dumps(figures))
        return
    as_it_is = dict(os.environ)
    prepare_process()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe, model, rows = prepare(folder, arguments.steps)
        command = [sys.executable, __file__, "--steps", str(arguments.steps), "--trl-child", str(model), str(rows)]
        rates: dict[str, list[int]] = {}
        for repeat in range(arguments.repeats):
            arms = {name: partial(_in_child, command + options, as_it_is) for name, options in TRL_ARMS.items()}
            arms |= {
                name: partial(medtune_arm, folder, recipe, settings + arguments.settings, f"{name}-{repeat}")
                for name, settings in MEDTUNE_ARMS.items()
            }
            for name, arm in arms.items():
                figures = arm()
                rates.setdefault(name, []).append(figures["tok_s"])
                print_measurement(benchmark="demo_cpu", arm=name, repeat=repeat, **figures)
    print_measurement(benchmark="demo_cpu", settings=arguments.settings, **summary(rates))


def prepare(folder: Path, steps: int) -> tuple[Path, Path, Path]:
    """Recipe, model folder, and the rows of `steps` steps as medtune takes them. The data stage is run once."""
    from medtune.data.training_rows import encode_for_training
    from medtune.model.demo_model import build_demo_model
    from medtune.model.loaded import load_renderer
    from medtune.run_dir.directory import RunDir

    recipe = write_recipe(
        folder,
        {
            "extends": "demo",
            "data": {"train_limit": TRAIN_ROWS},
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
    config = run.config
    encoded = encode_for_training(
        load_renderer(config, model), run.read_split("train"), max_length=config.training.max_length, overlong="cut"
    )
    assert len(encoded.rows) == TRAIN_ROWS
    write_rows(folder / "rows.jsonl", in_training_order(encoded.rows, config.seed, count=steps * ROWS_PER_STEP))
    return recipe, model, folder / "rows.jsonl"


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
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    rows = read_rows(rows_file, steps * ROWS_PER_STEP)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    clock = step_clock()
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
        callbacks=[clock],
    )
    assert trainer.args.per_device_train_batch_size == ROWS_PER_STEP
    lift_adapter(trainer.model)
    counts = count_tokens(trainer)
    trainer.train()
    speed = training_speed(clock.times, counts, trainer.state.log_history)
    dtype = "bfloat16" if trainer.args.bf16 else "float32"
    return {**speed, "labels": labels_seen(counts, rows), "dtype": dtype}


def _in_child(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
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
        "medtune_over_trl_same_process": round(middle["medtune"] / middle["trl_same_process"], 2),
        "due_to_dequantising_once": round(middle["medtune"] / middle["medtune_nf4"], 2),
    }


if __name__ == "__main__":
    main()
