"""The data stage for a source that is larger than memory, and its audit without a run."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medtune.config.schema import Config
from medtune.data.audit_record import Audit
from medtune.data.audit_tables import print_leakage
from medtune.data.large.auditing import audit_streamed
from medtune.data.large.gathering import write_dropped
from medtune.data.large.preparation import Streamed, prepare_streamed
from medtune.data.large.training_part import TrainingPart
from medtune.data.large.writing import Tables, write_rows
from medtune.data.near_duplicates import SimilarAnswers
from medtune.data.preparation import Prepared
from medtune.data.prompts import PromptRenderer
from medtune.data.room import RULE, leave_out_unfit
from medtune.errors import DataError, Option
from medtune.records import Split
from medtune.run_dir.artefacts import dropped_row, fewer_rows
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import console, progress_bar, say
from medtune.storage.writing import replacing_file


def prepare_streamed_stage(
    run_dir: RunDir, files: Sequence[Path], renderer: PromptRenderer, context: int | None
) -> None:
    """Read, clean, split and audit the rows of `files`, a part of them in memory at a time."""
    config = run_dir.config
    with prepare_streamed(config, files, run_dir.split_file("train").parent) as streamed:
        tables = Tables(streamed.found, streamed.groups)
        held = leave_out_unfit(_held(streamed, tables), renderer, config, context)
        part = TrainingPart(streamed, tables, config, renderer)
        size = _write_train(run_dir, part, tables)
        report = _with_train(held.report, part, size)
        run_dir.write_parts(validation=held.split.validation, test=held.split.test)
        with replacing_file(run_dir.dropped_file) as temporary:
            write_dropped(streamed.found, temporary)
            with temporary.open("a", encoding="utf-8") as file:
                for rule, pair in (*held.dropped, *((RULE, pair) for pair in part.unfit)):
                    file.write(json.dumps(dropped_row(rule, pair), ensure_ascii=False) + "\n")
        audit = audit_streamed(streamed, tables, config, renderer, report["rows"])
    run_dir.write_json(run_dir.data_report_file, report)
    run_dir.write_json(run_dir.audit_file, audit.as_json())
    run_dir.update_provenance(data=streamed.provenance)
    rows = report["rows"]
    say(f"rows: {rows['train']} train, {rows['validation']} validation, {rows['test']} test")
    print_leakage(audit, console())


def audit_files(config: Config, files: Sequence[Path], renderer: PromptRenderer | None) -> tuple[Audit, list[str]]:
    """The audit of `files` and the warnings of reading them; what it writes to disk is deleted in the end."""
    with (
        tempfile.TemporaryDirectory(prefix="medtune-") as folder,
        prepare_streamed(config, files, Path(folder)) as found,
    ):
        audit = audit_streamed(found, Tables(found.found, found.groups), config, renderer, found.report["rows"])
        return audit, found.report.get("warnings", [])


def _held(streamed: Streamed, tables: Tables) -> Prepared:
    """What is held in memory: validation and test."""
    dealt = streamed.dealt
    split = Split((), tuple(tables.pairs(dealt.validation)), tuple(tables.pairs(dealt.test)))
    return Prepared(split, streamed.report, streamed.provenance, [], SimilarAnswers([], []), [])


def _write_train(run_dir: RunDir, part: TrainingPart, tables: Tables) -> int:
    path = run_dir.split_file("train")
    with replacing_file(path) as temporary, progress_bar("Writing training rows", part.count) as advance:
        return write_rows(temporary, part.tables(), tables.schema, advance)


def _with_train(report: dict[str, Any], part: TrainingPart, size: int) -> dict[str, Any]:
    """`report` with the training rows, and a warning if they are more than training can hold."""
    rows = part.count - len(part.unfit)
    if not rows:
        raise DataError("data", f"each of the {part.count:,} train prompts leaves no room for an answer", _RAISE)
    found = {**report, "rows": {**report["rows"], "train": rows}}
    if part.unfit:
        found[RULE] = {"train": len(part.unfit), **report.get(RULE, {})}
        say(f"rows left out because their prompts are too long for training.max_length: {len(part.unfit):,} train")
    if (fewer := fewer_rows(rows, size)) is not None:
        few = Option("set", f"data.train_limit={fewer}")
        line = (
            f"the {rows:,} training rows ({size / 1e9:.1f} GB) are more than training holds; take a sample with {few}"
        )
        say(line)
        found["warnings"] = [*report.get("warnings", ()), line]
    return found


_RAISE = "raise training.max_length or shorten the questions"
