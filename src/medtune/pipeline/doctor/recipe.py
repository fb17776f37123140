"""What a recipe needs: settings, model, encoder, rows, memory and disk; each looked at as a run would."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from logging import LogRecord
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.config.recipes import Overrides, load_recipe, override
from medtune.config.schema import Config
from medtune.data.large.dealing import MOST_ROWS
from medtune.data.large.preparation import text_bytes
from medtune.data.large.source_files import open_file, pieces_of, streamed_files
from medtune.data.mixture import read_all
from medtune.data.sources import read_source
from medtune.errors import MedtuneError
from medtune.model.loading import DEMO_MODEL
from medtune.pipeline.doctor.disk import Need, check_disk, check_output, run_needs
from medtune.pipeline.doctor.findings import GIB, MIB, Finding, amount, findings_of, guarded
from medtune.pipeline.doctor.network import overheard
from medtune.runtime.hardware import choose_device, choose_dtype, host_free_bytes

if TYPE_CHECKING:
    from medtune.pipeline.plan import Forecast
    from medtune.training.plan.forecast import DescribedModel

# What libraries and the activations of a pass take beside a model on a CPU.
CPU_ROOM = 2 * GIB
# The demo's model with its adapter and optimiser.
DEMO_BYTES = 32 * MIB


def load(recipe: str | Config, overrides: Overrides) -> tuple[Config | None, list[Finding]]:
    """The recipe's configuration, or what is wrong with it."""
    try:
        return override(recipe, overrides) if isinstance(recipe, Config) else load_recipe(recipe, overrides), []
    except MedtuneError as error:
        return None, list(findings_of("recipe", error))


class RecipeExamination:
    """The checks of one recipe, in order: what the first ones learn, memory and disk are reckoned from."""

    def __init__(self, config: Config, run_dir: Path) -> None:
        self.config, self.run_dir = config, run_dir
        self.downloads: dict[str, int] = {}
        self.model_folder: Path | None = None
        self.described: DescribedModel | None = None
        self.rows = self.text_bytes = self.test_rows = 0

    def findings(self) -> Iterator[Finding]:
        """All of them; none hides the others."""
        from medtune.evaluation.metrics import needs_encoder
        from medtune.storage.hub_access import time_limit

        config = self.config
        checks: dict[str, Callable[[], Iterator[Finding]]] = {"recipe": self._settings, "model": self._model}
        if config.model.adapter is not None:
            checks["adapter"] = self._adapter
        if needs_encoder(config.evaluation.metrics):
            checks["BERTScore"] = self._encoder
        checks |= {"data": self._data, "memory": self._memory, "disk": self._disk}
        checks["output"] = partial(check_output, config, self.run_dir)
        with time_limit(), overheard():
            for subject, check in checks.items():
                yield from guarded(subject, check)

    def _settings(self) -> Iterator[Finding]:
        from medtune.evaluation.metrics import require_known
        from medtune.pipeline.checks import check_optimizer, check_trackers
        from medtune.pipeline.engines import check_engine

        found: list[Finding] = []
        checks = (
            partial(check_trackers, self.config),
            partial(check_engine, self.config),
            partial(check_optimizer, self.config.training.optimizer),
            partial(require_known, self.config.evaluation.metrics),
        )
        for check in checks:
            try:
                check()
            except MedtuneError as error:
                found += findings_of("recipe", error)
        yield from found or [Finding("ok", "recipe", "its keys, optimiser, metrics and trackers are in order")]

    def _model(self) -> Iterator[Finding]:
        from medtune.pipeline.checks import check_model

        base, revision = self.config.model.base, self.config.model.revision
        if base == DEMO_MODEL:
            yield Finding("ok", "model", "medtune:demo, about a million parameters, built on the spot")
            return
        with overheard() as said:
            self.model_folder = check_model(self.config)
        yield self._found_model("model", base, revision, said)

    def _encoder(self) -> Iterator[Finding]:
        from medtune.evaluation.encoder import BUNDLED_ENCODER
        from medtune.pipeline.checks import check_encoder

        name = self.config.evaluation.bertscore_model
        with overheard() as said:
            check_encoder(name)
        if name == BUNDLED_ENCODER:
            yield Finding("ok", "BERTScore", f"{name}, which comes with the package")
        else:
            yield self._found_model("BERTScore", name, None, said)

    def _found_model(self, subject: str, name: str, revision: str | None, said: Sequence[LogRecord]) -> Finding:
        """A model that can be had; where the Hub is asked, also whether its weights can, and how large they are."""
        from huggingface_hub import is_offline_mode

        from medtune.storage.hub_access import model_repository

        if os.path.isdir(name):
            size = sum(file.stat().st_size for file in Path(name).glob("*.safetensors"))
            return Finding("ok", subject, f"{name}: a folder with {amount(size)} of weights")
        if is_offline_mode():
            return Finding("ok", subject, f"{name}: in the local cache")
        if said:
            reason = "; ".join(record.getMessage() for record in said)
            return Finding("warning", subject, reason, "check the network if it should be newer than that")
        found = model_repository(name, revision)
        self.downloads[name] = found.missing_bytes
        access = "gated, and this token has access" if found.gated else "open to all"
        licence = f"; licence {found.licence}" if found.licence else ""
        cached = f"{amount(found.bytes - found.missing_bytes)} of {amount(found.bytes)} in the cache"
        return Finding("ok", subject, f"{name} at {found.commit[:7]}: {access}{licence}; {cached}")

    def _adapter(self) -> Iterator[Finding]:
        from medtune.model.adapters import resolve_adapter

        assert self.config.model.adapter is not None
        with overheard():
            resolve_adapter(self.config.model.adapter)
        yield Finding("ok", "adapter", f"{self.config.model.adapter}: in PEFT's format")

    def _data(self) -> Iterator[Finding]:
        data = self.config.data
        if files := streamed_files(data):
            yield self._streamed(files)
            return
        # Read whole, as the data stage would: a Hub data set is downloaded, which that stage finds in the cache.
        read, _ = read_all(data)
        self.rows = len(read.pairs)
        self.text_bytes = sum(len(pair.question) + len(pair.answer) for pair in read.pairs)
        self.test_rows = round(self.rows * data.split.test)
        columns = "; ".join(read.notes) or f"columns {data.columns.question} and {data.columns.answer}"
        without = f", {read.unanswered:,} without" if read.unanswered else ""
        yield Finding("ok", "data", f"{data.named}: {self.rows:,} rows with an answer{without}; {columns}")
        if data.test_source is not None:
            test = read_source(data.test_source, data.columns, table=data.table)
            self.test_rows = len(test.pairs)
            yield Finding("ok", "data", f"{data.test_source}, for the test: {self.test_rows:,} rows with an answer")

    def _streamed(self, files: Sequence[Path]) -> Finding:
        """What can be told of files without reading all of their rows."""
        data = self.config.data
        notes = dict.fromkeys(open_file(path, data).note for path in files)
        self.rows = sum(piece.rows for path in files for piece in pieces_of(path))
        self.text_bytes = text_bytes(files)
        self.test_rows = min(round(self.rows * data.split.test), data.split.most_rows or MOST_ROWS)
        found = "; ".join(filter(None, notes))
        return Finding("ok", "data", f"{data.named}: {self.rows:,} rows, read as a stream{found and '; '}{found}")

    def _memory(self) -> Iterator[Finding]:
        import torch

        from medtune.pipeline import plan as planning
        from medtune.runtime.gpus import DescribedGpu, this_gpu
        from medtune.training.plan.forecast import describe_model

        config, gpu = self.config, this_gpu()
        if config.model.base == DEMO_MODEL:
            yield cpu_memory(DEMO_BYTES, 0, host_free_bytes())
            return
        if self.model_folder is None:
            reason = "neither memory nor disk can be predicted without the model's configuration"
            yield Finding("warning", "memory", reason, "fix what the line about the model says")
            return
        folder = planning.base_folder(config)
        if gpu is None:
            # What a plan asks of a GPU, asked of one that has no kernels of its own.
            host = DescribedGpu("CPU", host_free_bytes() / GIB, (0, 0))
            self.described = describe_model(config, folder, host, choose_dtype(config.model.dtype, "cpu").value)
            shape, size = self.described.shape, self.described.size
            ends = shape.head_parameters + shape.embedding_bytes // shape.item
            parameters = shape.layers * shape.layer_parameters + ends
            # Gradient and both moments of AdamW, in float32.
            yield cpu_memory(size.total + 12 * shape.adapter_parameters, parameters, host_free_bytes())
            return
        dtype = choose_dtype(config.model.dtype, choose_device().value).value
        self.described = describe_model(config, folder, gpu, dtype)
        # Such a model is for all GPUs together.
        processes = torch.cuda.device_count() if config.training.weights == "sharded" else 1
        yield from gpu_memory(planning.forecast(config, folder, gpu, planning.assumed_sizes(config, processes)))

    def _disk(self) -> Iterator[Finding]:
        from huggingface_hub import constants

        if self.described is None and self.config.model.base != DEMO_MODEL:
            return
        cache = Path(constants.HF_HUB_CACHE)
        needs = [Need(cache, f"download of {name}", size) for name, size in self.downloads.items()]
        parameters = self.described.shape.adapter_parameters if self.described is not None else 0
        questions = min(self.test_rows, self.config.evaluation.max_examples or self.test_rows)
        needs += run_needs(self.config, self.run_dir, parameters, questions, self.text_bytes)
        yield from check_disk(needs)


def cpu_memory(needed: int, parameters: int, free: int) -> Finding:
    """A model of `needed` bytes with its adapter's training, against the `free` bytes of the host."""
    from medtune.pipeline.checks import LARGE_FOR_CPUS

    total = needed + CPU_ROOM
    reason = (
        f"{amount(total)} needed on the CPU: {amount(needed)} for the model, its adapter and optimiser, "
        f"{amount(CPU_ROOM)} for the rest; {amount(free)} free"
    )
    if total > free:
        return Finding("failure", "memory", reason, "end other programs, or take a smaller model.base or a GPU")
    if parameters > LARGE_FOR_CPUS:
        reason += f"; {parameters / 1e9:.1f} billion parameters take a CPU days"
        return Finding("warning", "memory", reason, "use a GPU; `medtune plan RECIPE` compares some")
    return Finding("ok", "memory", reason)


def gpu_memory(found: Forecast) -> Iterator[Finding]:
    """The predicted peaks of training and of answers on the GPU that is here."""
    from medtune.pipeline.plan_tables import answer_parts

    plan, answers = found.step.plan, sum(answer_parts(found).values()) / GIB
    reason = (
        f"training takes {plan.peak_bytes / GIB:.1f} of {plan.limit_bytes / GIB:.1f} GiB, in passes of "
        f"{plan.tokens_per_micro_batch:,} tokens; answers {answers:.1f} GiB, {found.answers.batch} at once"
    )
    if answers > found.gpu.memory_gib:
        reason += f", of which {found.gpu.memory_gib:.1f} are free"
        yield Finding("warning", "memory", reason, "lower generation.max_new_tokens, or end other programs on the GPU")
    else:
        yield Finding("ok", "memory", reason)
