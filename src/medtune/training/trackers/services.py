"""The four services: a run opened there or continued, transformers' own callback for its curves, and its results."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from medtune.config.training import TrackerName
from medtune.training.trackers.tracker import Ending, Results, TrackedRun, Tracker

# The project, or experiment, that runs are in unless the service's own variable names another.
PROJECT = "medtune"
# What an extra asks for at least: distribution and version. An older one is refused and not taken in silence.
REQUIRED: Mapping[TrackerName, tuple[str, str]] = {
    "tensorboard": ("tensorboard", "2.19"),
    "mlflow": ("mlflow-skinny", "3.17"),
    "wandb": ("wandb", "0.31"),
    "trackio": ("trackio", "0.43"),
}


class TensorBoard(Tracker):
    """Event files in the run directory; it keeps no files, so the results name theirs."""

    def open(self, tracked: TrackedRun) -> str:
        """A file of events beside the earlier ones, whose steps after a resumed one no longer count."""
        from torch.utils.tensorboard import SummaryWriter

        purge = tracked.step + 1 if tracked.step else None
        self._writer = SummaryWriter(log_dir=str(tracked.run.tracker_dir), purge_step=purge)
        return ""

    def callback(self) -> Any:
        """See `Tracker`."""
        from transformers.integrations import TensorBoardCallback

        return TensorBoardCallback(self._writer)

    def log_results(self, results: Results) -> None:
        """See `Tracker`."""
        from medtune.storage.reading import describe_file

        writer: Any = self._writer
        for name, value in results.scores.items():
            writer.add_scalar(name, value, results.step)
        writer.add_text("comparison", results.comparison, results.step)
        adapter = sorted(results.adapter.glob("*.safetensors")) if results.adapter else []
        for file in [*results.files.values(), *adapter]:
            writer.add_text(f"files/{file.name}", f"`{file}`, SHA-256 `{describe_file(file)['sha256']}`", results.step)

    def close(self, ending: Ending) -> None:
        """See `Tracker`."""
        writer: Any = self._writer
        writer.close()


class Mlflow(Tracker):
    """An MLflow run, at `MLFLOW_TRACKING_URI`; a run that the caller has open is used, and stays open."""

    def __init__(self) -> None:
        self._settings = ExitStack()

    def open(self, tracked: TrackedRun) -> str:
        """See `Tracker`."""
        # By default a server that is gone is tried for minutes, while training waits.
        settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
        if tracked.known:
            # Parameters never change there, and those of a resumed training do.
            settings["MLFLOW_MAX_LOG_PARAMS"] = "0"
        self._settings.enter_context(_environment(settings))
        try:
            return self._open(tracked)
        except BaseException:
            self._settings.close()
            raise

    def _open(self, tracked: TrackedRun) -> str:
        import mlflow

        active = mlflow.active_run()
        self._is_ours = active is None
        if active is None:
            if tracked.known is None:
                mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
            active = mlflow.start_run(run_id=tracked.known, run_name=None if tracked.known else tracked.name)
        return str(active.info.run_id)

    def callback(self) -> Any:
        """See `Tracker`."""
        from transformers.integrations import MLflowCallback

        return MLflowCallback()

    def log_results(self, results: Results) -> None:
        """See `Tracker`."""
        import mlflow

        mlflow.log_metrics(dict(results.scores), step=results.step)
        for file in results.files.values():
            mlflow.log_artifact(str(file))
        if results.adapter is not None:
            mlflow.log_artifacts(str(results.adapter), "adapter")

    def close(self, ending: Ending) -> None:
        """See `Tracker`."""
        import mlflow

        with self._settings:
            if self._is_ours:
                mlflow.end_run({"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[ending])


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """In this block these variables are set, unless they are, and no retry of a request is logged by itself."""
    ours = [name for name in settings if name not in os.environ]
    os.environ.update({name: settings[name] for name in ours})
    logger = logging.getLogger("urllib3.connectionpool")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name in ours:
            os.environ.pop(name, None)


class Wandb(Tracker):
    """A run of Weights & Biases, in the project `WANDB_PROJECT`; its local files are in the run directory."""

    def open(self, tracked: TrackedRun) -> str:
        """See `Tracker`."""
        import wandb

        is_online = wandb.setup().settings.mode not in ("offline", "dryrun", "disabled")
        # Else it asks for a key in a terminal, hours after anybody looked, and waits.
        if is_online and not wandb.login(prompt=False, verify=False):
            raise PermissionError("no API key: `wandb login`, or keep the run here with WANDB_MODE=offline")
        folder = tracked.run.tracker_dir.parent
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=tracked.id,
            name=tracked.name,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(folder)),
            settings=wandb.Settings(
                # Nothing is sent that nobody asked for: neither what the terminal shows, nor code, nor a repository's
                # address.
                console="off",
                disable_git=True,
                save_code=False,
                quiet=True,
                # In seconds; what cannot be uploaded stays in the folder.
                init_timeout=60,
                finish_timeout=600,
                finish_timeout_raises=True,
            ),
        )
        return str(self._run.id)

    def callback(self) -> Any:
        """See `Tracker`."""
        from transformers.integrations import WandbCallback

        return WandbCallback()

    def log_results(self, results: Results) -> None:
        """See `Tracker`."""
        import wandb

        self._run.summary.update(dict(results.scores))
        for artifact in _artifacts(wandb.Artifact, self._run.id, results):
            self._run.log_artifact(artifact)

    def close(self, ending: Ending) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if ending == "finished" else 1)


class Trackio(Tracker):
    """A run of Trackio: in its local store, or in the Space that `TRACKIO_SPACE_ID` names, made private."""

    def open(self, tracked: TrackedRun) -> str:
        """Transformers' callback opens it for a training, by the arguments; `log_results` for results."""
        self._id = tracked.id
        return self._id

    def callback(self) -> Any:
        """See `Tracker`."""
        from transformers.integrations import TrackioCallback

        return TrackioCallback()

    def arguments(self) -> dict[str, Any]:
        """See `Tracker`."""
        # No second, static Space after training.
        place = {"hub_private_repo": True, "trackio_static_space_id": False}
        return {"project": _trackio_project(), "run_name": self._id, **place}

    def log_results(self, results: Results) -> None:
        """See `Tracker`."""
        import trackio

        trackio.init(
            project=_trackio_project(), name=self._id, resume="allow", private=True, embed=False, auto_log_cpu=False,
            auto_log_gpu=False,
        )  # fmt: skip
        trackio.log(dict(results.scores))
        for artifact in _artifacts(trackio.Artifact, self._id, results):
            trackio.log_artifact(artifact)

    def close(self, ending: Ending) -> None:
        """See `Tracker`."""
        import trackio

        if trackio.context_vars.current_run.get() is not None:
            trackio.finish()


def _artifacts(kind: Any, id: str, results: Results) -> Iterator[Any]:
    """The results' files and the adapter, each as one artifact of a `kind` that Trackio has from W&B."""
    found = kind(f"results-{id}", type="results")
    for name, file in results.files.items():
        found.add_file(str(file), name=name)
    yield found
    if results.adapter is not None:
        adapter = kind(f"adapter-{id}", type="model")
        adapter.add_dir(str(results.adapter))
        yield adapter


def _trackio_project() -> str:
    return os.environ.get("TRACKIO_PROJECT", PROJECT)


SERVICES: Mapping[TrackerName, Callable[[], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": Wandb,
    "trackio": Trackio,
}
