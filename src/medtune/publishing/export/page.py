"""README.md and export.json of an exported model: what it is, under which licence, and how it is run."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from medtune import __version__
from medtune.errors import ModelError, Option
from medtune.publishing.export.subject import NOT_ADVICE, Subject
from medtune.publishing.licences import agreement_files, data_licence
from medtune.storage.reading import DamagedError, check_type, read_mapping, read_text
from medtune.storage.writing import replacing_file

RECORD_NAME, PAGE_NAME, NOTICE_NAME = "export.json", "README.md", "NOTICE"
MERGED_NAME = "merged"


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """What an export wrote, `export.json`. `adapter` is the fingerprint of the adapter; `files` are names in it.

    `commands` run it, `notes` are what its reader has to know.
    """

    format: str
    dtype: str | None
    base: str
    revision: str | None
    adapter: str
    files: tuple[str, ...]
    commands: tuple[str, ...]
    notes: tuple[str, ...] = ()
    version: str = field(default=__version__)


def require_own_folder(folder: Path, adapter: str) -> None:
    """Raises ModelError unless `folder` is new, empty, or an export of the adapter with that fingerprint."""
    if not folder.exists() and not folder.is_symlink():
        return
    fix = ("give another ", Option("to"))
    if not folder.is_dir():
        raise ModelError(folder, "is a file, not a directory", fix)
    if {entry.name for entry in folder.iterdir()} <= {MERGED_NAME}:
        return
    try:
        record = read_mapping(folder / RECORD_NAME)
    except (FileNotFoundError, DamagedError):
        raise ModelError(folder, "not empty, and no export", fix) from None
    if record.get("adapter") != adapter:
        raise ModelError(folder, "holds an export of another adapter", ("delete it, or ", *fix))


def read_record(folder: Path) -> ExportRecord:
    """The record of the export in `folder`. Raises DamagedError or FileNotFoundError."""
    return check_type(ExportRecord, read_mapping(folder / RECORD_NAME))


def write_page(subject: Subject, folder: Path, record: ExportRecord, measured: Sequence[str]) -> None:
    """Write README.md, what the base's licence wants to go along, and export.json last; `measured` is of the merge."""
    for name, file in agreement_files(subject.run).items():
        _write(folder / name, read_text(file))
    if subject.licence.notice:
        _write(folder / NOTICE_NAME, f"{subject.licence.notice}\n")
    _write(folder / PAGE_NAME, _page(subject, record, measured))
    _write(folder / RECORD_NAME, json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n")


def _page(subject: Subject, record: ExportRecord, measured: Sequence[str]) -> str:
    names, licence = subject.names, subject.licence
    generation = subject.generation
    commit = f" (commit {names.base_revision})" if names.base_revision else ""
    facts = [
        f"Base model: {names.base}{commit}, under {licence.title}."
        + (f" **{licence.built_with}.**" if licence.built_with else ""),
        f"Adapter: SHA-256 {record.adapter}, trained with medtune {record.version} on rows of {names.source}.",
        data_licence(names).sentence,
        f"Answers: greedy, at most {generation.cap:,} new tokens, ended by {', '.join(generation.end_tokens)}.",
        *measured,
        *record.notes,
    ]
    commands = "\n".join(record.commands)
    system = generation.system_prompt
    prompt = f"\nThe run asked with this system prompt:\n\n```text\n{system}\n```\n" if system else ""
    page = (
        f"# {subject.name}\n\nA model for questions and answers in medicine, for {record.format}. **{NOT_ADVICE}** Ask "
        f"a doctor or a pharmacist.\n\n```console\n{commands}\n```\n{prompt}\n"
        + "".join(f"- {fact}\n" for fact in facts)
    )
    return names.scrub(page)


def _write(file: Path, text: str) -> None:
    with replacing_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
