"""A run as an object: its configuration, scores, comparison and answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from medtune.api.shown import Figures, Scores, ShownChart, ShownComparison
from medtune.api.working import spelled_as_calls, working
from medtune.config.schema import Config
from medtune.errors import ConfigError
from medtune.records import ControlName, ModelName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import STAGE_NAMES, StageName

if TYPE_CHECKING:
    from medtune.inference.chat import Chat
    from medtune.model.merging.record import MergeRecord
    from medtune.pipeline.merge import MergedDtype
    from medtune.publishing.publish import Published, PublishOption
    from medtune.records import Prediction, SystemName
    from medtune.runtime.progress import Listener


@dataclass
class _OpenChat:
    chat: Chat | None = None


@dataclass(frozen=True)
class Run:
    """The run in the directory `path`. What it holds is read when it is asked for.

    A run that has answered a question keeps its model in memory until `close()`, or the end of its `with` block.
    """

    path: Path
    _open: _OpenChat = field(default_factory=_OpenChat, repr=False, compare=False)

    @property
    @spelled_as_calls()
    def config(self) -> Config:
        """The configuration that the run was made with.

        >>> medtune.load_run("runs/demo").config.lora.rank
        16
        """
        return self._directory.config

    @property
    @spelled_as_calls()
    def stages(self) -> tuple[StageName, ...]:
        """The stages that are complete, in their order.

        >>> medtune.load_run("runs/demo").stages
        ('data', 'baseline', 'controls', 'train', 'tuned', 'compare'...)
        """
        return tuple(name for name in STAGE_NAMES if self._directory.is_complete(name))

    @property
    @spelled_as_calls()
    def comparison(self) -> ShownComparison:
        """Baseline and tuned side by side. Raises RunDirError until the compare stage is complete.

        >>> row = medtune.load_run("runs/demo").comparison.rows[0]
        >>> row.metric, row.verdict
        ('bleu', ...)
        """
        from medtune.evaluation.result_files import read_comparison

        return ShownComparison.of(read_comparison(self._directory))

    @spelled_as_calls()
    def scores(self, system: SystemName = "tuned") -> Scores:
        """Metric → value, interval, n and signature of a model or a control. Raises RunDirError without them.

        >>> medtune.load_run("runs/demo").scores("baseline")["perplexity"].value > 1
        True
        """
        known = (*get_args(ModelName), *get_args(ControlName))
        if system not in known:
            raise ConfigError(f"{system!r}", f"must be one of {', '.join(known)}")
        return Scores(self._directory.read_scores(system))

    @spelled_as_calls()
    def predictions(self, system: SystemName = "tuned") -> list[Prediction]:
        """The answers of a model or a control, a row a test question; `pandas.DataFrame` takes the list as it is.

        >>> rows = medtune.load_run("runs/demo").predictions("tuned")
        >>> pandas.DataFrame(rows)[["question", "reference", "prediction"]].shape
        (..., 3)
        """
        self.scores(system)  # which tells what has not been evaluated
        return self._directory.read_predictions(system)

    @spelled_as_calls()
    def history(self) -> list[dict[str, Any]]:
        """The training's log: step and loss, learning rate and tokens a second, or validation loss; may be empty.

        >>> history = pandas.DataFrame(medtune.load_run("runs/demo").history())
        >>> {"step", "loss", "validation_loss"} <= set(history.columns)
        True
        """
        return self._directory.read_history()

    @spelled_as_calls()
    def ask(self, question: str, *, base: bool = False, on_text: Callable[[str], object] | None = None) -> str:
        """The tuned model's greedy answer, or with `base` that of the base model, the adapter off. No medical advice.

        The first question loads the model. `on_text` receives the answer piece by piece as it is written. Raises
        MedtuneError if the question is empty or the training is not complete.

        >>> with medtune.load_run("runs/demo") as run:
        ...     tuned = run.ask("What causes gout ?")
        ...     before = run.ask("What causes gout ?", base=True)
        """
        if self._open.chat is None:
            from medtune.inference.chat import Chat

            with working():
                self._open.chat = Chat.open(str(self.path))
        return self._open.chat.answer(question, use_adapter=not base, on_text=on_text or (lambda text: None))

    @property
    @spelled_as_calls()
    def report(self) -> Path:
        """The report for people, one page that works offline; written now if it is not there. Raises MedtuneError.

        >>> medtune.load_run("runs/demo").report.name
        'report.html'
        """
        if not self._directory.is_complete("report"):
            with working():
                from medtune.pipeline.run import perform

                perform("report", self._directory)
        return self._directory.report_file

    @property
    @spelled_as_calls()
    def figures(self) -> Figures:
        """The report's charts as SVG by their names; a notebook shows them. Raises RunDirError until it is compared.

        >>> sorted(medtune.load_run("runs/demo").figures)
        ['differences', 'learning_rate', 'lengths', 'loss', 'memory', 'speed']
        """
        from medtune.publishing.report import figures

        return Figures({name: ShownChart(svg) for name, svg in figures(self._directory).items()})

    def merge(
        self,
        to: str | os.PathLike[str],
        *,
        dtype: MergedDtype = "bfloat16",
        measure: bool | None = None,
        progress: Listener | None = None,
    ) -> MergeRecord:
        """The tuned model in one piece, in the new folder `to`, and what merging changed. Raises MedtuneError.

        It is measured on 64 prompts where that takes minutes, or if `measure` says so.

        >>> medtune.load_run("runs/demo").merge("merged", dtype="float32", measure=False).dtype
        'float32'
        """
        self.close()
        with working(progress):
            from medtune.pipeline.merge import merge_stage
            from medtune.pipeline.run import refresh_after_merge

            record = merge_stage(self._directory, Path(to), dtype=dtype, measure=measure)
            refresh_after_merge(self._directory)
            return record

    def publish(
        self,
        repo: str,
        *,
        private: bool = False,
        merged: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
        base_model: str | None = None,
        options: Collection[PublishOption] = (),
        progress: Listener | None = None,
    ) -> Published:
        """Put the adapter, or the model in the folder `merged`, on the Hub with its card, scores and report.

        The token is that of the environment or of `hf auth login`. What the Hub holds already is not sent again, and
        `dry_run` only shows what would go up. `options` are the names of `medtune publish`'s other switches. Raises
        MedtuneError for what must not go up and for what the Hub refuses.

        >>> medtune.load_run("runs/demo").publish("someone/tiny", dry_run=True, base_model="someone/base").commit
        """
        with working(progress):
            from medtune.pipeline.run import refresh_report
            from medtune.publishing.publish import publish

            if not dry_run:
                refresh_report(self._directory, again=False)
            folder = None if merged is None else Path(merged)
            return publish(
                self._directory, repo, private=private, merged=folder, base_model=base_model, dry_run=dry_run,
                options=options,
            )  # fmt: skip

    def close(self) -> None:
        """Let go of the model that answered, and of the GPU memory that it took.

        >>> medtune.load_run("runs/demo").close()
        """
        from medtune.runtime.hardware import release_memory

        if self._open.chat is not None:
            self._open.chat = None
            release_memory()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    @property
    def _directory(self) -> RunDir:
        return RunDir(self.path)

    def _repr_html_(self) -> str:
        stages = self.stages
        title = f"<p><b>{escape(str(self.path))}</b>: {escape(self.config.model.base)}"
        if "compare" in stages:
            return f"{title}</p>{self.comparison._repr_html_()}"
        missing = ", ".join(name for name in STAGE_NAMES if name not in stages)
        return f"{title}; not complete yet: {missing}</p>"
