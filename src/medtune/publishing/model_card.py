"""The model card: metadata that the Hub reads, and a page for people, both made from what a run wrote."""

import math
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from medtune import __version__
from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.comparison_tables import comparison_markdown
from medtune.evaluation.formatting import escape_markdown, metric_label, read_template
from medtune.evaluation.headline import best_control
from medtune.evaluation.metrics import metric_named
from medtune.evaluation.result_files import read_comparison, without_question
from medtune.model.loading import DEMO_MODEL
from medtune.model.merging.record import MergeRecord
from medtune.model.quantization import FORMATS
from medtune.publishing import card_sections
from medtune.publishing.licences import BaseLicence, base_licence, data_licence
from medtune.publishing.loading_code import QUESTION, Target, example_messages, loading_code, printed_dates
from medtune.publishing.merge_record import is_within_bound, merged_notes
from medtune.publishing.public_names import PublicNames, public_names, public_source
from medtune.records import Comparison, ComparisonRow
from medtune.run_dir.directory import RunDir

_LANGUAGE = "en"


@dataclass(frozen=True, slots=True)
class CardRequest:
    """What a card is for: a repository, or with None the run directory itself; an adapter, or a merged model.

    `merge` is the record of that merged model, of which a run may have several. `base_model` is the Hub id of a base
    model that the run read from a folder. `has_report` says that report.html is published with the card.
    """

    repo: str | None = None
    merged: bool = False
    merge: MergeRecord | None = None
    base_model: str | None = None
    has_report: bool = False


def build_card(run: RunDir, request: CardRequest = CardRequest()) -> str:
    """The card of `run`: a YAML header with a `model-index`, then Markdown.

    It depends on the run's files and `request` alone, and names no path of this machine. Raises RunDirError if there
    is no trained adapter, or if a file is damaged.
    """
    run.require("train")
    from huggingface_hub import ModelCardData

    names = public_names(run, request.base_model)
    licence = base_licence(run, names)
    comparison = without_question(read_comparison(run)) if run.is_complete("compare") else None
    # Nobody should find the scores by the name of a merged model that differs from the one measured.
    indexed = comparison if not request.merged or is_within_bound(request.merge) else None
    title = request.repo.rpartition("/")[2] if request.repo else _plain_title(names, licence)
    data: dict[str, Any] = {
        "language": _LANGUAGE,
        "license": licence.identifier,
        "library_name": "transformers" if request.merged else "peft",
        "pipeline_tag": "text-generation",
        "base_model": names.base if names.base_on_hub else None,
        # A merged LoRA is a fine-tune to the Hub, whose `merge` is several models in one.
        "base_model_relation": ("finetune" if request.merged else "adapter") if names.base_on_hub else None,
        "datasets": [names.source] if names.source_on_hub else None,
        "tags": _tags(run, licence),
        "model_name": title,
        "eval_results": _results(indexed, names, merged=request.merged) if indexed else None,
        "metrics": sorted({name for row in _standard(indexed) if (name := metric_named(row.metric).hub_name)})
        if indexed
        else None,
    }
    header = ModelCardData(**{key: value for key, value in data.items() if value})
    return f"---\n{header.to_yaml()}\n---\n\n{_body(run, request, title, comparison)}"


def write_card(run: RunDir) -> Path:
    """Write the card of the run directory itself, and say where. Raises RunDirError as `build_card` does."""
    run.write_text(run.card_file, build_card(run, CardRequest(has_report=run.report_file.is_file())))
    return run.card_file


def loading_example(run: RunDir, request: CardRequest) -> str:
    """Python that loads the model of the card and asks it a question, as the run asked."""
    config, names = run.config, public_names(run, request.base_model)
    target = Target(
        location=request.repo or run.adapter_dir.name,
        merged=request.merged,
        base=None if names.base_on_hub else names.base,
        storage=FORMATS[config.model.quantization],
        dtype=request.merge.dtype if request.merge else card_sections.compute_dtype(card_sections.read_recorded(run)),
    )
    settings = config.model.template_settings
    return loading_code(target, example_messages(run), config.generation.max_new_tokens, printed_dates(run), settings)


def _body(run: RunDir, request: CardRequest, title: str, comparison: Comparison | None) -> str:
    names = public_names(run, request.base_model)
    # A path is looked for before Markdown's escapes change its letters.
    template = read_template(
        files("medtune.publishing") / "card.md.jinja", md=lambda text: escape_markdown(names.scrub(text))
    )
    config, recorded = run.config, card_sections.read_recorded(run)
    reading = reading_of(comparison) if comparison else None
    page = template.render(
        title=title,
        names=names,
        licence=base_licence(run, names),
        data_licence=data_licence(names),
        notes=merged_notes(request.merge, config.model.quantization, evaluated=comparison is not None)
        if request.merged
        else [],
        headline=reading.headline if reading else None,
        verdict=[*reading.verdict, *reading.controls] if reading else [],
        primary=card_sections.primary_rows(comparison) if comparison else [],
        merged=request.merged,
        code=loading_example(run, request),
        command=_command(request, names),
        evaluation=comparison_markdown(comparison, reading.sentences) if comparison and reading else None,
        human=card_sections.human_lines(run),
        merge=card_sections.merge_lines(run, request.merge),
        data=card_sections.data_sentence(config, names),
        counts=card_sections.count_rows(run),
        leakage=card_sections.leakage_rows(run),
        recipe=card_sections.recipe_rows(config, recorded),
        system_prompt=config.data.system_prompt.strip() or "none",
        hardware=card_sections.hardware_lines(recorded),
        times=card_sections.time_rows(recorded),
        versions=card_sections.version_line(recorded),
        medtune_version=__version__,
        published=request.repo is not None,
        report=request.has_report,
    )
    return names.scrub(re.sub(r"\n{3,}", "\n\n", page)).rstrip() + "\n"


def _command(request: CardRequest, names: PublicNames) -> str | None:
    """What asks the model in a shell; nothing where that takes a base that only this machine has."""
    if request.merged or (request.repo and not names.base_on_hub and names.base != DEMO_MODEL):
        return None
    return f'medtune ask {request.repo or "."} "{QUESTION}"'


def _plain_title(names: PublicNames, licence: BaseLicence) -> str:
    base = names.base.rpartition("/")[2].removeprefix("Meta-").replace(":", "-")
    start = f"{licence.name_prefix}-" if licence.name_prefix and not base.startswith(licence.name_prefix) else ""
    return base if base.startswith("medtune") else f"{start}{base}-medtune"


def _tags(run: RunDir, licence: BaseLicence) -> list[str]:
    config = run.config
    tags = ["medtune", FORMATS[config.model.quantization].method, "medical", "question-answering"]
    if "medquad" in public_source(config).lower():
        tags.append("medquad")
    return [*tags, "llama-3"] if licence.built_with else tags


def _standard(comparison: Comparison) -> list[ComparisonRow]:
    return [row for row in comparison.rows if row.table == "standard"]


def _results(comparison: Comparison, names: PublicNames, *, merged: bool) -> list[Any]:
    """The tuned model's scores of the standard table; a value that is no number is none for the Hub either."""
    from huggingface_hub import EvalResult

    measured = " (of the adapter, before merging)" if merged else ""
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Medical question answering",
            dataset_type=names.source if names.source_on_hub else re.sub(r"[^\w.-]+", "-", names.source),
            dataset_name=names.source,
            dataset_split="test",
            dataset_revision=names.source_revision,
            metric_type=metric_named(row.metric).hub_name or row.metric,
            metric_name=metric_label(row.metric) + measured,
            metric_value=round(row.tuned, 6),
            metric_args={
                "baseline": round(row.baseline, 6), "rows": row.n, "signature": row.signature, "verdict": row.verdict,
                **_best_control(comparison, row.metric),
            },
        )
        for row in _standard(comparison)
        if math.isfinite(row.tuned) and math.isfinite(row.baseline)
    ]  # fmt: skip


def _best_control(comparison: Comparison, metric: str) -> dict[str, Any]:
    best = best_control(comparison, metric)
    return {"best_control": best[0], "best_control_value": round(best[1], 6)} if best else {}
