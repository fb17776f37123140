"""TRL's trainer, which seals the checkpoints that it writes and reads one only as far as it is sound."""

from pathlib import Path
from typing import Any

from trl import SFTTrainer

from medtune.errors import ModelError
from medtune.model.adapter_files import WEIGHTS_NAME, weight_problem
from medtune.runtime.distributed import barrier
from medtune.runtime.launch import is_main
from medtune.training.checkpoints.contents import best_step, checkpoint_error, reading, require_fitting_moments
from medtune.training.checkpoints.pushing import CheckpointPusher
from medtune.training.checkpoints.sealing import prune_checkpoints, seal_checkpoint, writing_checkpoint
from medtune.training.continuation import require_best
from medtune.training.health import require_finite_adapter, require_one_adapter
from medtune.training.prepared_step import TrainingJob


class CheckedTrainer(SFTTrainer):  # type: ignore[misc]
    """Everything that a training resumes from is read under `reading`, and has to fit the model."""

    job: TrainingJob
    pusher: CheckpointPusher | None
    _folder = Path()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._folder = Path(resume_from_checkpoint)
        self._require_whole_weights(self._folder)
        with reading(self._folder):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if not is_main():  # which saves the adapter
            return
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
        with reading(self._folder):
            super()._load_optimizer_and_scheduler(checkpoint)
        require_fitting_moments(self.optimizer, self._folder)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with reading(self._folder):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with reading(self._folder):
            super()._load_rng_state(checkpoint)

    def load_best(self) -> None:
        """Load the weights of the best checkpoint, if the training is to end with those."""
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()

    def save_now(self) -> None:
        """Save a checkpoint of the step in hand."""
        self._save_checkpoint(self.model, None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As the trainer does, in the first process; sealed, and only then are older ones deleted."""
        require_finite_adapter(self.model)
        require_one_adapter(self.model)
        run = self.job.run
        folder = run.checkpoints_dir / f"checkpoint-{self.state.global_step}"
        if is_main():
            with writing_checkpoint(folder):
                super()._save_checkpoint(model, trial)
                seal_checkpoint(run, folder, self.job.origin)
            if self.pusher is not None:
                self.pusher.push(folder)
            prune_checkpoints(run, self.job.training.keep_checkpoints, best_step)
        barrier()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None for checkpoints."""
