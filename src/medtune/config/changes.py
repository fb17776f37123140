"""What may differ in the configuration of a run that is resumed."""

from medtune.config.evaluation import EvaluationSection
from medtune.config.recipes import flatten
from medtune.config.schema import Config
from medtune.records import ControlName

# What a run may change when it resumes: it has no part in what comes out, except for the last bits.
MAY_CHANGE = frozenset(
    {
        "training.max_gradient_spike",
        "training.memory_gib",
        "training.keep_checkpoints",
        "training.push_checkpoints_to",
        "training.report_to",
    }
)


# The default of medtune 0.1.0. What a later default names besides is no choice of the user's.
_FIRST_CONTROLS: tuple[ControlName, ...] = ("few_shot", "random_answer", "nearest_question", "cut_reference")


def continued(old: Config, new: Config) -> Config:
    """`new` as a run that was made with `old` goes on with it: where only the default gained controls, without them."""
    if (old.evaluation.controls, new.evaluation.controls) != (_FIRST_CONTROLS, EvaluationSection().controls):
        return new
    evaluation = new.evaluation.model_copy(update={"controls": old.evaluation.controls})
    return new.model_copy(update={"evaluation": evaluation})


def changed_keys(old: Config, new: Config) -> list[str]:
    """Dotted keys whose values differ and may not, as `key: old → new`."""
    before = flatten(old.model_dump(mode="json"))
    after = flatten(continued(old, new).model_dump(mode="json"))
    keys = sorted(before.keys() | after.keys())
    return [
        f"{key}: {before.get(key)!r} → {after.get(key)!r}"
        for key in keys
        if before.get(key) != after.get(key) and key not in MAY_CHANGE
    ]
