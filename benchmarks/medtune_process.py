"""The `medtune` command in a process of its own, with its memory limited and measured.

    medtune_process.py [--cap GIB] [--figures FILE] -- train RUN …

--cap holds the process to so much of the GPU's memory, as on a smaller card. --figures writes the peaks of training
alone, counted from where the trainer is built, as those of the other trainers are.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from reporting import forget_peaks, limit_gpu_memory, machine, peaks


def main() -> None:
    """Run the command; its exit status is this process's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cap", type=float, default=0.0, metavar="GIB")
    parser.add_argument("--figures", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    from medtune.runtime.distributed import joined
    from medtune.runtime.launch import is_main
    from medtune.runtime.process import prepare_process

    with joined():  # before anything asks CUDA
        prepare_process()
        limit_gpu_memory(arguments.cap)
        figures: dict[str, Any] = {}
        _measure_training(figures)
        sys.argv = ["medtune", *(word for word in arguments.command if word != "--")]
        from medtune.__main__ import main as medtune

        try:
            medtune()
        finally:
            if arguments.figures is not None and is_main():
                arguments.figures.write_text(json.dumps({**figures, **machine()}))


def _measure_training(figures: dict[str, Any]) -> None:
    """Let every trainer of this process count its peaks from its first step to its last, and those before apart."""
    from transformers import Trainer

    train = Trainer.train

    def measured(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        figures.update({f"{name}_before": value for name, value in peaks().items()})
        forget_peaks()
        output = train(self, *args, **kwargs)
        figures.update(peaks())
        return output

    Trainer.train = measured


if __name__ == "__main__":
    main()
