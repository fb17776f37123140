"""medtune fine-tunes a chat model for medical question answering with QLoRA and proves what that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medtune.api import (
        Comparison,
        Config,
        MedtuneError,
        Prediction,
        Progress,
        Run,
        RunInterrupted,
        Score,
        chat,
        compare,
        doctor,
        evaluate,
        export,
        load_recipe,
        load_run,
        measure,
        plan,
        prepare,
        run,
        score,
        serve,
        train,
    )

__version__ = "0.2.0.dev0"

__all__ = [
    "Comparison", "Config", "MedtuneError", "Prediction", "Progress", "Run", "RunInterrupted", "Score", "chat",
    "compare", "doctor", "evaluate", "export", "load_recipe", "load_run", "measure", "plan", "prepare", "run", "score",
    "serve", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Loaded at first use: `import medtune` takes milliseconds, and the command line needs none of it.
    if name not in __all__:
        raise AttributeError(f"module 'medtune' has no attribute {name!r}")
    from medtune import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
