"""All of a run's charts, by name; as SVG for a notebook or a talk."""

from medtune.publishing.report.difference_charts import draw_differences, make_panels
from medtune.publishing.report.length_charts import draw_lengths
from medtune.publishing.report.reading_run import ReportData, read_report
from medtune.publishing.report.svg import Chart, house_style, to_svg
from medtune.publishing.report.training_charts import draw_learning_rate, draw_loss, draw_memory, draw_speed
from medtune.run_dir.directory import RunDir


def figures(run: RunDir) -> dict[str, str]:
    """Every chart of a compared run as SVG by its name, to be shown anywhere: a notebook, a talk.

    The names are `differences`, `lengths`, `memory`, and of a run that trained here `loss`, `learning_rate` and
    `speed`. Raises RunDirError as `read_report` does.
    """
    return {chart.name: to_svg(chart, standalone=True) for chart in draw_charts(read_report(run)).values()}


def draw_charts(data: ReportData) -> dict[str, Chart]:
    """Every chart that `data` has the numbers for, by name; all differences in one."""
    with house_style():
        differences = draw_differences(make_panels(data.comparison))
    return ({differences.name: differences} if differences else {}) | draw_course(data)


def draw_course(data: ReportData) -> dict[str, Chart]:
    """The charts of answers and training, without those of the differences."""
    cap = data.config.generation.max_new_tokens
    with house_style():
        drawn = (
            draw_lengths(data.predictions["baseline"], data.predictions["tuned"], cap),
            draw_loss(data.history),
            draw_learning_rate(data.history),
            draw_speed(data.history),
            draw_memory(data.provenance),
        )
    return {chart.name: chart for chart in drawn if chart}
