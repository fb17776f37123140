"""TRL's trainer, which reads a checkpoint only as far as it is sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTTrainer

from medtune.errors import ModelError
from medtune.model.adapter_files import WEIGHTS_NAME, weight_problem
from medtune.training.checkpoints.contents import checkpoint_error, reading, require_fitting_moments
from medtune.training.continuation import require_best


class CheckedTrainer(SFTTrainer):  # type: ignore[misc]
    """Everything that a training goes on by is read under `reading`, and has to fit the model."""

    _folder = Path()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._folder = Path(resume_from_checkpoint)
        self._require_whole_weights(self._folder)
        with reading(self._folder):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        folder = Path(self.state.best_model_checkpoint)
        require_best(folder, {"best_global_step": self.state.best_global_step})
        self._require_whole_weights(folder)
        with reading(folder):
            super()._load_best_model()

    def _require_whole_weights(self, folder: Path) -> None:
        try:
            problem = weight_problem(self.model, folder)
        except ModelError:
            problem = "is not a safetensors file"
        if problem:
            raise checkpoint_error(folder, f"{WEIGHTS_NAME} {problem}")

    def _load_callback_state(self) -> None:
        with reading(self._folder):
            super()._load_callback_state()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with reading(Path(checkpoint)):
                super()._load_optimizer_and_scheduler(checkpoint)
            require_fitting_moments(self.optimizer, Path(checkpoint))

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with reading(Path(checkpoint)):
                super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with reading(Path(checkpoint)):
                super()._load_rng_state(checkpoint)
