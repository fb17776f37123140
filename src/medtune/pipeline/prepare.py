"""The data stage: rows of the source as three splits, and the audit of both."""

from typing import Any

from medtune.data.audit_tables import print_leakage
from medtune.data.large.source_files import streamed_files
from medtune.data.mixture import with_own_ids
from medtune.data.preparation import prepare_data
from medtune.data.room import leave_out_unfit
from medtune.data.token_lengths import audit_prepared
from medtune.pipeline.checks import renderer_and_context
from medtune.pipeline.prepare_streamed import prepare_streamed_stage
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import console, say


def prepare_stage(run_dir: RunDir, record: dict[str, Any]) -> None:
    """Read, clean, split and audit the rows of the recipe's source."""
    config = run_dir.config
    files = streamed_files(config.data)
    renderer, context = renderer_and_context(run_dir.pinned_config)
    if files:
        prepare_streamed_stage(run_dir, files, renderer, context)
        return
    prepared = leave_out_unfit(prepare_data(config), renderer, config, context)
    audit = audit_prepared(prepared, config, renderer)
    run_dir.write_split(with_own_ids(prepared.split))
    run_dir.write_dropped(prepared.dropped)
    run_dir.write_json(run_dir.data_report_file, prepared.report)
    run_dir.write_json(run_dir.audit_file, audit.as_json())
    run_dir.update_provenance(data=prepared.provenance)
    rows = prepared.report["rows"]
    say(f"rows: {rows['train']} train, {rows['validation']} validation, {rows['test']} test")
    print_leakage(audit, console())
