"""How any tool's predictions are measured: the settings that a recipe has for a run, as options or arguments."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from pydantic import ValidationError

from medtune.config.evaluation import EvaluationSection, FileSettings
from medtune.config.section import in_plain_words
from medtune.errors import ConfigError, Option, Problem, show_value
from medtune.evaluation.metrics import METRIC_NAMES, known_instead, metric_named

# As for `evaluation.resamples` of a recipe.
_FEWEST_RESAMPLES, _MOST_RESAMPLES = 200, 100_000


def checked_settings(settings: Mapping[str, Any], primary: Sequence[str] | None = None) -> EvaluationSection:
    """The settings as a recipe's section, in which `metrics` not given are all that there are.

    Raises ConfigError, naming options, for what a recipe may not have either, and TypeError for an unknown key.
    """
    if unknown := settings.keys() - FileSettings.__annotations__.keys():
        raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}")
    given = {name: value for name, value in {**settings, "primary": primary}.items() if not _is_left_out(value)}
    if "resamples" in given:
        given["resamples"] = _checked_resamples(given["resamples"])
    values = {"metrics": list(METRIC_NAMES), **given}
    _require_known("metric", values["metrics"])
    _require_measured(given.get("primary", ()), values["metrics"])
    try:
        return EvaluationSection.model_validate(values)
    except ValidationError as error:
        found = [_describe(problem, given) for problem in error.errors(include_url=False)]
        raise ConfigError.together(dict.fromkeys(found)) from None


def _is_left_out(value: object) -> bool:
    return value is None or (isinstance(value, list | tuple) and not value)


def require_measurable(option: str, names: Sequence[str], *, encoder: str | None, different_tokens: bool) -> None:
    """Raises ConfigError, naming the `option`, for a metric that lacks its encoder or a common tokenizer."""
    for metric in map(metric_named, names):
        if metric.needs_encoder and encoder is None:
            fix = ("name one with ", Option("bertscore_model"))
            raise ConfigError((Option(option, metric.name), " needs an encoder"), fix=fix)
        if metric.counts_tokens and different_tokens:
            raise ConfigError(
                Option(option, metric.name),
                "the files count different tokens of the same references, and perplexities of different tokenizers "
                "never compare",
                ("leave ", Option(option), " out to get bits per byte"),
            )


def _require_known(option: str, names: object) -> None:
    # Anything but a list of texts is for the schema to refuse.
    for name in names if isinstance(names, list | tuple) else ():
        if isinstance(name, str) and name not in METRIC_NAMES:
            raise ConfigError(Option(option, name), "unknown", known_instead(name))


def _require_measured(primary: object, metrics: object) -> None:
    _require_known("primary", primary)
    if isinstance(primary, list | tuple) and isinstance(metrics, list | tuple):
        for name in primary:
            if name not in metrics:
                raise ConfigError(Option("primary", name), "not measured", ("add ", Option("metric", name)))


def _checked_resamples(resamples: Any) -> int:
    if not isinstance(resamples, Integral) or not _FEWEST_RESAMPLES <= int(resamples) <= _MOST_RESAMPLES:
        raise ConfigError(
            Option("resamples", show_value(resamples)),
            f"must be a whole number from {_FEWEST_RESAMPLES} to {_MOST_RESAMPLES:,}",
        )
    return int(resamples)


def _describe(problem: Any, given: Mapping[str, Any]) -> Problem:
    name = str(next(iter(problem["loc"]), "primary"))
    return Problem(Option("metric" if name == "metrics" else name, show_value(given[name])), in_plain_words(problem))
