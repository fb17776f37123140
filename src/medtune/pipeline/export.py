"""`medtune export`: the tuned model as Ollama, llama.cpp or vLLM want it, with what says what it is."""

import os
import shlex
import shutil
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

from medtune.errors import Command, ConfigError, ModelError, Option, spell_out
from medtune.model.adapters import adapter_fingerprint
from medtune.model.loaded import load_renderer
from medtune.model.loading import DEMO_MODEL, base_identity, resolve_base
from medtune.model.merging.folder import record_of, require_whole
from medtune.model.merging.record import MergeRecord
from medtune.model.quantization import PLAIN
from medtune.pipeline.merge import adapter_in_use, in_megabytes, merge_stage
from medtune.publishing.export import gguf_adapters, gguf_files, vllm
from medtune.publishing.export.chat_layout import read_layout
from medtune.publishing.export.modelfile import go_template, modelfile
from medtune.publishing.export.page import MERGED_NAME, ExportRecord, require_own_folder, write_page
from medtune.publishing.export.subject import NOT_ADVICE, Subject, ollama_adds_bos, ollama_obstacle
from medtune.publishing.merge_record import merge_sentences
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import progress_bar, say
from medtune.storage.disk_errors import writing
from medtune.storage.hub import ADAPTER_FILES, ADAPTER_SETTINGS
from medtune.storage.writing import replacing_file, require_room

ExportFormat = Literal["ollama", "gguf", "vllm"]
MODELFILE = "Modelfile"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Where an export goes, in which format, and for GGUF in which numbers.

    `merged` is the folder of a merge that is there; without it one is made in the export's folder. With `adapter_only`
    the adapter is exported, for use beside its base.
    """

    to: Path
    format: ExportFormat
    dtype: gguf_files.GgufDtype = "f16"
    merged: Path | None = None
    adapter_only: bool = False


def export_stage(run_dir: RunDir, request: ExportRequest) -> ExportRecord:
    """Export the model of a run, and write `README.md` and `export.json` beside it. Raises MedtuneError."""
    _check(request)
    run_dir.lock()
    adapter = adapter_in_use(run_dir, run_dir.pinned_config)
    fingerprint = adapter_fingerprint(adapter)
    require_own_folder(request.to, fingerprint)
    with writing(request.to):
        request.to.mkdir(parents=True, exist_ok=True)
    record = ExportRecord(request.format, None, base="", revision=None, adapter=fingerprint, files=(), commands=())
    measured: list[str] = []
    if request.adapter_only:
        subject, record = _export_adapter(run_dir, adapter, request, record)
    else:
        subject, record, measured = _export_model(run_dir, fingerprint, request, record)
    if (settings := adapter / ADAPTER_SETTINGS).is_file():
        shutil.copyfile(settings, request.to / ADAPTER_SETTINGS)
    notes = tuple(filter(None, [*record.notes, subject.date_note]))
    for note in notes:
        say(note)
    names = subject.names
    record = replace(record, notes=notes, base=names.base, revision=names.base_revision)
    write_page(subject, request.to, record, measured)
    return record


def _check(request: ExportRequest) -> None:
    if request.format not in get_args(ExportFormat):
        problem = f"must be one of {', '.join(get_args(ExportFormat))}"
        raise ConfigError(Option("format", request.format), problem)
    gguf_files.require_dtype(request.dtype)
    if request.format == "gguf":
        gguf_files.require_gguf()
    if request.adapter_only and request.format == "ollama":
        fix = ("export the merged model, or give ", Option("format", "gguf"), " for llama.cpp")
        raise ConfigError(Option("adapter_only"), "Ollama gets the model in one piece", fix)
    if request.adapter_only and request.merged is not None:
        raise ConfigError(Option("adapter_only"), ("needs no ", Option("merged")), ("leave ", Option("merged"), " out"))


def _export_adapter(
    run_dir: RunDir, adapter: Path, request: ExportRequest, record: ExportRecord
) -> tuple[Subject, ExportRecord]:
    config = run_dir.pinned_config
    base = resolve_base(config.model.base, config.model.revision)
    run_dir.require_same_base(base_identity(config.model.base, base))
    subject = Subject.of(run_dir, base.path, load_renderer(config, base.path))
    if request.format == "vllm":
        target = request.to / "adapter"
        line = vllm.launch_line(subject, _base_name(subject), adapter=adapter, name=target.name)
        _copy_adapter(adapter, target)
        files = (target.name, *vllm.write_serving_files(subject, request.to))
        return subject, replace(record, files=files, commands=(line,))
    name = f"{subject.name}-lora-f32.gguf"
    gguf_adapters.write_adapter(base.path, adapter, request.to / name, subject.label)
    line = f"llama-server -m BASE.gguf --lora {shlex.quote(name)} --jinja"
    return subject, replace(record, files=(name,), dtype="f32", commands=(line,))


def _export_model(
    run_dir: RunDir, fingerprint: str, request: ExportRequest, record: ExportRecord
) -> tuple[Subject, ExportRecord, list[str]]:
    merged, merge = _merged(run_dir, fingerprint, request)
    config = run_dir.pinned_config
    section = {"base": str(merged), "revision": None, "quantization": PLAIN.name, "adapter": None}
    model = config.model.model_copy(update=section)
    subject = Subject.of(run_dir, merged, load_renderer(config.model_copy(update={"model": model}), merged))
    measured = merge_sentences(merge, evaluated=run_dir.is_complete("tuned"), public=True)
    if request.format == "vllm":
        files = vllm.write_serving_files(subject, request.to)
        line = vllm.launch_line(subject, _beside(merged, request.to))
        return subject, replace(record, files=files, commands=(line,)), measured
    if request.format == "gguf":
        return subject, _gguf(subject, request, record), measured
    return subject, _ollama(subject, request, record), measured


def _merged(run_dir: RunDir, fingerprint: str, request: ExportRequest) -> tuple[Path, MergeRecord]:
    """The folder of the merged model, made if none is given. Raises ModelError if it is of another adapter."""
    if (merged := request.merged) is None:
        folder = request.to / MERGED_NAME
        return folder, merge_stage(run_dir, folder)
    fix = ("make one with ", Command("merge", run_dir.path, (Option("to", "DIR"),)))
    if not merged.is_dir() or (record := record_of(merged)) is None:
        raise ModelError(Option("merged", merged), "no merged model", fix)
    if record.adapter != fingerprint:
        raise ModelError(Option("merged", merged), "merged from another adapter than this run's", fix)
    require_whole(merged, record)
    return merged, record


def _gguf(subject: Subject, request: ExportRequest, record: ExportRecord) -> ExportRecord:
    """Write the GGUF file and, where its template can be written for Ollama, a Modelfile beside it."""
    plan = gguf_files.plan_gguf(
        subject.folder,
        subject.renderer.tokenizer,
        request.dtype,
        end_token_id=subject.renderer.end_token_id,
        adds_bos=subject.adds_bos,
    )
    plan = replace(plan, template=subject.template)
    name = f"{subject.name}-{request.dtype}.gguf"
    require_room(request.to, plan.bytes + gguf_files.HEADER_BYTES, Option("to"))
    with progress_bar("Writing GGUF", round(plan.bytes / 1e6), unit="MB") as advance:
        gguf_files.write_gguf(plan, request.to / name, subject.label, on_bytes=in_megabytes(advance))
    lines = [f"llama-server -m {name} --jinja"]
    if request.dtype != "q8_0":
        lines.append(f"llama-quantize {name} {subject.name}-Q4_K_M.gguf Q4_K_M")
    notes, files = [plan.note] if plan.note else [], [name]
    try:
        _write_modelfile(subject, request.to, f"./{name}", adds_bos=True)
        files.append(MODELFILE)
        lines.append(f"ollama create {subject.name} -f {MODELFILE}")
    except ModelError as error:
        notes.append(f"No Modelfile for Ollama: {spell_out(error.problems[0].reason)}.")
    return replace(record, dtype=request.dtype, files=tuple(files), commands=tuple(lines), notes=tuple(notes))


def _ollama(subject: Subject, request: ExportRequest, record: ExportRecord) -> ExportRecord:
    """Write a Modelfile over the merged folder or, where Ollama would read that otherwise, over a GGUF file."""
    read_layout(subject.renderer)  # before a long write
    if (obstacle := ollama_obstacle(subject)) is not None:
        note = f"The Modelfile is over a GGUF file, not the merged folder: {obstacle}."
        gguf_files.require_gguf()
        written = _gguf(subject, request, record)
        return replace(written, commands=_ollama_lines(subject), notes=(*written.notes, note))
    _write_modelfile(subject, request.to, _beside(subject.folder, request.to), adds_bos=ollama_adds_bos(subject))
    return replace(record, files=(MODELFILE,), commands=_ollama_lines(subject))


def _write_modelfile(subject: Subject, folder: Path, source: str, *, adds_bos: bool) -> None:
    bos = str(subject.renderer.tokenizer.bos_token or "") if adds_bos and subject.adds_bos else ""
    template = go_template(read_layout(subject.renderer), bos=bos)
    notes = [f"{subject.name}, tuned with medtune from {subject.names.base}. {NOT_ADVICE}"]
    text = modelfile(source, template, subject.generation, notes)
    with replacing_file(folder / MODELFILE) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _ollama_lines(subject: Subject) -> tuple[str, str]:
    return f"ollama create {subject.name} -f {MODELFILE}", f"ollama run {subject.name}"


def _copy_adapter(adapter: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for file in sorted(adapter.iterdir()):
        if file.is_file() and any(fnmatchcase(file.name, pattern) for pattern in ADAPTER_FILES):
            with replacing_file(target / file.name) as temporary:
                shutil.copyfile(file, temporary)


def _base_name(subject: Subject) -> str:
    if subject.names.base_on_hub:
        return subject.names.base
    return "BASE" if subject.run.config.model.base == DEMO_MODEL else str(subject.folder)


def _beside(folder: Path, export: Path) -> str:
    """The way from an export's folder to another."""
    way = os.path.relpath(folder.resolve(), export.resolve())
    return way if way.startswith("..") else f"./{way}"
