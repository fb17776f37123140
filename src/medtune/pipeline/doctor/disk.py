"""Disk: what a run downloads and writes against what is free, and whether its directory can be made."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.config.schema import Config
from medtune.errors import Option, RunDirError
from medtune.pipeline.doctor.findings import MIB, Finding, amount, findings_of
from medtune.run_dir.directory import RunDir
from medtune.storage.writing import nearest_folder

# A checkpoint holds the adapter in float32 and at most two moments of an optimiser in float32.
CHECKPOINT_BYTES, ADAPTER_BYTES = 12, 4
# A tokenizer of LLaMA-3's size, saved with every checkpoint and with the adapter.
TOKENIZER = 20 * MIB
# A line of predictions.jsonl: bytes of an answer's token, and of question, reference and numbers.
TOKEN_BYTES, LINE_BYTES = 5, 4000
# The splits hold every text raw and clean, and the source of a dropped row once more.
TEXT_COPIES = 3


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that will be written somewhere in `folder`, which need not be there yet."""

    folder: Path
    label: str
    bytes: int


def run_needs(config: Config, run_dir: Path, parameters: int, questions: int, text_bytes: int) -> list[Need]:
    """What a run writes to its directory.

    `parameters` are the adapter's, `questions` those that are answered, `text_bytes` the source's text. The newest and
    the best checkpoint always stay, and the next is whole before an older one goes.
    """
    checkpoints = max(config.training.keep_checkpoints, 2) + 1
    systems = 2 + len(config.evaluation.controls)
    line = TOKEN_BYTES * config.generation.max_new_tokens + LINE_BYTES
    return [
        Need(run_dir, f"{checkpoints} checkpoints", checkpoints * (CHECKPOINT_BYTES * parameters + TOKENIZER)),
        Need(run_dir, "the adapter", ADAPTER_BYTES * parameters + TOKENIZER),
        Need(run_dir, "rows and answers", TEXT_COPIES * text_bytes + systems * questions * line),
    ]


def check_disk(needs: Sequence[Need]) -> Iterator[Finding]:
    """One finding a file system: the sum of what goes there, against what is free."""
    disks: dict[int, list[Need]] = {}
    for need in needs:
        disks.setdefault(device_of(nearest_folder(need.folder)), []).append(need)
    for _, parts in sorted(disks.items()):
        total = sum(need.bytes for need in parts)
        free = shutil.disk_usage(nearest_folder(parts[0].folder)).free
        terms = " + ".join(f"{amount(need.bytes)} {need.label}" for need in parts if need.bytes)
        reason = f"{amount(total)} to be written ({terms}), {amount(free)} free"
        if total > free:
            fix = (f"free {amount(total - free)}, or set HF_HOME or ", Option("run_dir"), " to a larger disk")
            yield Finding("failure", "disk", reason, fix)
        elif total > 0.9 * free:
            yield Finding("warning", "disk", reason, "free some more: other programs write as well")
        else:
            yield Finding("ok", "disk", reason)


def check_output(config: Config, run_dir: Path) -> Iterator[Finding]:
    """Whether the run's directory is unused and can be made."""
    try:
        RunDir(run_dir).check(config, resume=False)
    except RunDirError as error:
        yield from findings_of("output", error, "warning" if run_dir.is_dir() else "failure")
        return
    folder = nearest_folder(run_dir)
    above = [parent for parent in (run_dir, *run_dir.parents) if os.path.lexists(parent)][:1]
    problem = None
    if above and not above[0].is_dir():
        problem = f"{above[0]} is no folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem = f"{folder} cannot be written"
    if problem is None:
        yield Finding("ok", "output", f"{run_dir} can be written")
    else:
        yield Finding("failure", "output", f"{run_dir}: {problem}", ("choose another ", Option("run_dir")))


def device_of(folder: Path) -> int:
    """The number of the file system that `folder` is on."""
    return os.stat(folder).st_dev
