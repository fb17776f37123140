"""How a Python call spells the options and commands that an error names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medtune.errors import Command, MedtuneError, Option, show_value

# Options whose argument has another name, or is a list.
_LISTS = {"set": "overrides", "metric": "metrics"}
_SWITCHES = {
    **{name: f"{name}=True" for name in ("base", "measure", "private", "resume")},
    **{name.replace("-", "_"): f"options=['{name}']" for name in ("overwrite", "without-evaluation")},
}
_FUNCTIONS = {"data prepare": "prepare", **{name: name for name in ("compare", "evaluate", "plan", "run", "train")}}


def as_call(part: object) -> str:
    """A part of an error's text; commands without a function stay what they are."""
    if isinstance(part, Option):
        name = _LISTS.get(part.name, part.name)
        if part.value is None or part.name in _SWITCHES:
            return _SWITCHES.get(part.name, name)
        return _argument(part) if part.name == "set" else f"{name} {part.value}"
    if isinstance(part, Command) and part.name in _FUNCTIONS:
        target = [show_value(str(part.target))] if part.target else []
        return f"`medtune.{_FUNCTIONS[part.name]}({', '.join([*target, *map(_argument, part.options)])})`"
    if isinstance(part, Command) and part.name == "merge":
        return f"`medtune.load_run({show_value(str(part.target))}).merge({', '.join(map(_argument, part.options))})`"
    return str(part)


@contextmanager
def spelled_as_calls() -> Iterator[None]:
    """Errors that leave the block, or the function that this decorates, are for those who call medtune from Python."""
    try:
        yield
    except MedtuneError as error:
        error.spelling = as_call
        raise


def _argument(option: Option) -> str:
    """As it is written in a call."""
    if option.name in _SWITCHES or option.value is None:
        return _SWITCHES.get(option.name, option.name)
    if option.name in _LISTS:
        return f"{_LISTS[option.name]}=[{show_value(str(option.value))}]"
    return f"{option.name}={show_value(str(option.value))}"
