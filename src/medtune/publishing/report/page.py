"""The report as one HTML file: no network, no text of a row as markup, and useful without a script."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from medtune.config.recipes.yaml_text import dump_config
from medtune.evaluation.comparison_sentences import Reading, reading_of
from medtune.evaluation.formatting import format_value, metric_label, read_template
from medtune.evaluation.headline import best_control
from medtune.evaluation.human.rating_page import page_policy
from medtune.evaluation.metrics import metric_named
from medtune.publishing.public_names import public_name, without_paths
from medtune.publishing.report import answers, header, run_tables, score_tables
from medtune.publishing.report.charts import draw_course
from medtune.publishing.report.difference_charts import draw_panel, make_panels
from medtune.publishing.report.reading_run import ReportData, read_report
from medtune.publishing.report.svg import Chart, house_style, to_svg
from medtune.records import Comparison, Verdict
from medtune.run_dir.directory import RunDir
from medtune.runtime.terminal import harmless

_ASSETS = files("medtune.publishing.report") / "assets"


def write_report(run: RunDir) -> Path:
    """Write `report.html` of a compared run; say where. Raises RunDirError as `read_report` does."""
    run.write_text(run.report_file, render_report(read_report(run)))
    return run.report_file


def render_report(data: ReportData) -> str:
    """The page, under a policy that allows its one style and script, and no request at all."""
    from markupsafe import Markup

    # Every value is escaped but those that are marked as markup here: the assets, and the charts, which ElementTree
    # wrote and escaped.
    template = read_template(_ASSETS / "report.html.jinja", autoescape=True)
    style, script = ((_ASSETS / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    charts = {name: _drawn(chart) for name, chart in draw_course(data).items()}
    page = template.render(
        policy=page_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        charts=charts,
        panels=_panels(data.comparison),
        packed=answers.pack_answers(data),
        types=answers.question_types(data)[:500],
        examples=answers.examples(data),
        **_sections(data),
    )
    # What cannot be written, or would end a text for a browser, wherever it came from.
    return harmless(page)


def _drawn(chart: Chart) -> dict[str, Any]:
    from markupsafe import Markup

    return {"title": chart.title, "svg": Markup(to_svg(chart, prefix="chart-"))}


def _panels(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """The small multiples, those that are shown at once apart from the others."""
    shown = [row.metric for row in score_tables.shown_rows(comparison)]
    drawn: dict[str, list[dict[str, Any]]] = {"primary": [], "others": []}
    with house_style():
        for panel in make_panels(comparison):
            drawn["primary" if panel.row.metric in shown else "others"].append(_drawn(draw_panel(panel)))
    return drawn


def _cards(comparison: Comparison) -> list[dict[str, Any]]:
    """The primary metrics, each with its verdict and the best control."""
    cards = []
    for row in score_tables.shown_rows(comparison):
        cards.append(
            {
                "name": metric_label(row.metric),
                "gloss": metric_named(row.metric).gloss,
                "direction": "lower is better" if metric_named(row.metric).lower_is_better else "higher is better",
                "baseline": format_value(row.metric, row.baseline),
                "tuned": format_value(row.metric, row.tuned),
                "verdict": score_tables.verdict_cell(row.verdict),
                "control": _best_control(comparison, row.metric),
            }
        )
    return cards


def _best_control(comparison: Comparison, metric: str) -> str | None:
    """Name and value, and how the tuned model compares with it."""
    best = best_control(comparison, metric)
    if best is None:
        return None
    shown = f"{best[0].replace('_', ' ')} {format_value(metric, best[1])}"
    (control,) = (control for control in comparison.controls if control.name == best[0])
    verdict = next((row.verdict for row in control.against_tuned if row.metric == metric), None)
    return f"{shown}, {_BESIDE_TUNED[verdict]}" if verdict in _BESIDE_TUNED else shown


# What the tuned model's verdict against a control says of the control.
_BESIDE_TUNED: dict[Verdict | None, str] = {
    "worse": "better than the tuned model",
    "better": "worse than the tuned model",
    "equivalent": "as good as the tuned model",
    "cannot tell": "not told apart from the tuned model",
}


def _reading(data: ReportData) -> Reading:
    """The reading, with what the data stage warned of."""
    reading = reading_of(data.comparison)
    of_rows = (f"Warning: {without_paths(warning)}" for warning in data.rows.warnings)
    return replace(reading, warnings=(*reading.warnings, *of_rows))


def _sections(data: ReportData) -> dict[str, Any]:
    comparison, provenance = data.comparison, data.provenance
    standard = [row for row in comparison.rows if row.table == "standard"]
    shown = score_tables.shown_rows(comparison)
    others = [row for row in standard if row not in shown]
    compat = [row for row in comparison.rows if row.table == "compat"]
    human, splits = data.human, data.config.evaluation.resamples
    return {
        "model": public_name(data.config.model.base),
        "facts": header.header_facts(data),
        "reading": _reading(data),
        "cards": _cards(comparison),
        "scores": score_tables.score_table(shown, "Primary metrics", splits=splits) if shown else None,
        "others": score_tables.score_table(others, "Other metrics", splits=splits) if others else None,
        "compat": (score_tables.score_table(compat, "As public write-ups score", splits=splits) if compat else None),
        "signatures": score_tables.signature_table(comparison.rows),
        "controls": score_tables.control_table(comparison) if comparison.controls else None,
        "descriptions": [(control.name.replace("_", " "), control.description) for control in comparison.controls],
        "strata": score_tables.strata_table(comparison),
        "lengths": score_tables.length_table(data),
        "curves": run_tables.curve_table(data.history),
        "costs": run_tables.cost_table(provenance),
        "cost_sentences": run_tables.cost_sentences(provenance),
        "audit": run_tables.audit_tables(data.audit),
        "audit_sentences": [*run_tables.audit_sentences(data.audit), *map(without_paths, data.rows.notes)],
        "human": human,
        "human_table": score_tables.human_table(human) if human else None,
        "merge": [without_paths(sentence) for sentence in data.merge],
        "identity": run_tables.identity_table(data),
        "versions": run_tables.version_table(provenance),
        "choices": run_tables.choice_table(provenance),
        "config": without_paths(dump_config(data.config)),
    }
