"""medtune's arm of the training comparison: `medtune train` itself, and one JSON line of what it reached.

    train_medtune.py MODEL DATA [--cap GIB] [--positions N] [--arm NAME] [--keep DIR] [--gpus N]
                     [key=value …]

MODEL is a model's folder. DATA is a table of questions and answers, or a run directory whose data stage is done, so
that several arms share it. key=value sets a configuration key, such as training.max_steps=20 or
training.effective_batch_rows=16. --cap holds the training to so many GiB of each GPU, and --gpus shares it over N of
them. --positions lets the model read N tokens, whatever its configuration says. --keep leaves the run in DIR.

The speed is real tokens a second, prompts included and nothing padded, without the first three steps and without the
validation at the end; peaks are those of the training, without loading.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medquad_rows import SPLIT
from medtune_runs import (
    NO_CHECKPOINTS,
    chosen,
    medtune,
    planned,
    set_options,
    stage_records,
    start_from_prepared,
    training_figures,
    write_recipe,
)
from reporting import print_measurement
from shape_8b import with_positions

STEPS = 20


def main() -> None:
    """One arm, one line."""
    arguments = _parser().parse_intermixed_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = arguments.model
        if arguments.positions:
            model = with_positions(model, arguments.positions, folder / "model")
        figures = train(
            model,
            arguments.data,
            folder,
            arguments.settings,
            cap=arguments.cap,
            keep=arguments.keep,
            gpus=arguments.gpus,
        )
    print_measurement(
        benchmark="train",
        arm=arguments.arm,
        settings=arguments.settings,
        cap_gib=arguments.cap or None,
        gpus=arguments.gpus,
        **figures,
    )


def train(
    model: Path | str,
    data: Path | str,
    folder: Path,
    settings: Sequence[str],
    *,
    cap: float,
    keep: Path | None = None,
    gpus: int = 1,
) -> dict[str, Any]:
    """Prepare or take over the rows, train, and hand back the figures."""
    run = keep or folder / "run"
    values = {
        "model": {"base": str(model)},
        "data": {"source": str(data), "split": SPLIT},
        "training": {"max_steps": STEPS, "checkpoint_steps": NO_CHECKPOINTS, "keep": "last", "validation_limit": 16},
        # Nothing is scored here: no encoder has to be found.
        "evaluation": {"metrics": ["perplexity"], "controls": []},
    }
    if is_prepared := (Path(data) / "config.yaml").is_file():
        values["data"] = {"source": "prepared"}
    recipe = write_recipe(folder, values)
    if is_prepared:
        start_from_prepared(Path(data), run, recipe, settings)
    else:
        medtune("data", "prepare", recipe, "--run-dir", run, *set_options(settings))
    measured = folder / "figures.json"
    medtune("train", run, cap=cap, figures=measured, gpus=gpus)
    record = stage_records(run)["train"]
    return {
        **training_figures(run),
        **json.loads(measured.read_text()),
        "training_rows": record["rows"],
        "chosen": chosen(record),
        **planned(run, cap=cap),
        "stage_seconds": record["seconds"],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--cap", type=float, default=0.0, metavar="GIB")
    parser.add_argument("--positions", type=int, metavar="N")
    parser.add_argument("--arm", default="medtune", help="name of the arm in the output")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--gpus", type=int, default=1, metavar="N")
    return parser


if __name__ == "__main__":
    main()
