"""Recipes: finding, extending, overriding and resolving them into a configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scanner import Scanner

from medtune.config.schema import Config, parse_config
from medtune.errors import ConfigError, Option, Problem, Text, show_value

MAX_RECIPE_BYTES = 1 << 20
# A recipe has some sixty keys.
MAX_MERGED_KEYS = 10_000
# `key.path=value` as text, with a YAML value, or values by their dotted keys or in sections.
Overrides = Iterable[str] | Mapping[str, Any]


def shipped_recipes() -> dict[str, str]:
    """Name and one-line description (the first comment) of every recipe in the package."""
    found = {}
    for entry in sorted(files(__name__).iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".yaml"):
            first = entry.read_text(encoding="utf-8").splitlines()[0]
            found[entry.name.removesuffix(".yaml")] = first.removeprefix("#").strip()
    return found


def load_recipe(recipe: str | os.PathLike[str], overrides: Overrides = ()) -> Config:
    """Resolve a shipped recipe's name or a YAML file, with overrides, into a checked Config.

    Overrides are a mapping of dotted keys, or texts such as `training.epochs=2`. Raises ConfigError, with a line for
    each problem.

    >>> load_recipe("demo", {"training.epochs": 2, "lora": {"rank": 8}}).lora.rank
    8
    >>> load_recipe("demo", ["training.epochs=2"]).training.epochs
    2.0
    """
    recipe = os.fspath(recipe)
    return _resolve(_read_recipe(recipe, seen=()), overrides, origin=recipe)


def override(config: Config, overrides: Overrides) -> Config:
    """`config` with other values, as `load_recipe` takes them. Raises ConfigError."""
    return _resolve(config.model_dump(mode="json"), overrides, origin="overrides") if overrides else config


def load_for_source(source: str, recipe: str | None = None, overrides: Overrides = ()) -> Config:
    """A configuration to look at `source` with: the recipe's, whose own source it replaces, or else the defaults.

    Raises ConfigError, as `load_recipe` does.
    """
    values: dict[str, Any] = {"model": {"base": "medtune:demo"}} if recipe is None else _read_recipe(recipe, seen=())
    data = values.get("data") or {}
    if isinstance(data, dict):  # anything else is for the schema to refuse
        # The revision is that of the recipe's own source.
        values["data"] = {**data, "source": source, "revision": None}
    return _resolve(values, overrides, origin=recipe or "data audit")


def _resolve(values: dict[str, Any], overrides: Overrides, origin: str) -> Config:
    problems: list[Problem] = []
    given = _flatten(overrides).items() if isinstance(overrides, Mapping) else overrides
    for one in given:
        try:
            _apply_override(values, one)
        except ConfigError as error:
            problems += error.problems
    try:
        config = parse_config(values, origin=origin)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError.together(problems)
    return config


def recipe_name(recipe: str) -> str:
    """The name a run directory takes from its recipe."""
    return Path(recipe).stem if _is_file_name(recipe) else recipe


def dump_config(config: Config) -> str:
    """The configuration as YAML, every key written out."""
    stream = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 2**31 - 1  # where ruamel folds a line beside an escape, a blank comes or goes
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    values = config.model_dump(mode="json")
    # ruamel writes U+0085 as it is and reads it back as a blank; escaped it survives.
    yaml.allow_unicode = "\\x85" not in repr(values)
    yaml.dump(values, stream)
    return stream.getvalue()


def read_config(path: Path) -> Config:
    """Read back a resolved `config.yaml`."""
    return parse_config(_parse_yaml(_read_text(path, str(path)), origin=str(path)), origin=str(path))


# What a run may change when it goes on: it has no part in what comes out, but for the last bits.
MAY_CHANGE = frozenset(
    {
        "training.max_gradient_spike",
        "training.memory_gib",
        "training.keep_checkpoints",
        "training.push_checkpoints_to",
        "training.report_to",
    }
)


def changed_keys(old: Config, new: Config) -> list[str]:
    """Dotted keys whose values differ and may not, as `key: old → new`."""
    before, after = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    keys = sorted(before.keys() | after.keys())
    return [
        f"{key}: {before.get(key)!r} → {after.get(key)!r}"
        for key in keys
        if before.get(key) != after.get(key) and key not in MAY_CHANGE
    ]


def _read_recipe(recipe: str, seen: tuple[str, ...]) -> dict[str, Any]:
    text, where, identity = _find_recipe(recipe)
    if identity in seen:
        raise ConfigError(recipe, f"extends itself ({' → '.join([*seen, identity])})", "remove one `extends`")
    values = _parse_yaml(text, origin=recipe)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise ConfigError(recipe, f"extends: must be a recipe's name or file, got {parent!r}")
    if where is not None and _is_file_name(parent):
        parent = str(where.parent / parent)
    return _merge(_read_recipe(parent, (*seen, identity)), values)


def _find_recipe(recipe: str) -> tuple[str, Path | None, str]:
    """Text, folder-giving path (None for shipped ones) and identity of a recipe."""
    if _is_file_name(recipe):
        path = Path(recipe)
        if not os.path.isfile(path):  # unlike Path.is_file, no error for a name that is too long
            raise ConfigError(recipe, "no such recipe file", "`medtune recipes` lists the shipped ones")
        return _read_text(path, recipe), path, str(path.resolve())
    if recipe not in shipped_recipes():
        names = ", ".join(shipped_recipes())
        raise ConfigError(recipe, f"unknown recipe; shipped are {names}", "a file's name must end in .yaml or .yml")
    return (files(__name__) / f"{recipe}.yaml").read_text(encoding="utf-8"), None, recipe


def _read_text(path: Path, origin: str) -> str:
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise ConfigError(origin, f"larger than {MAX_RECIPE_BYTES} bytes", "a recipe is a short YAML file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise ConfigError(origin, f"not UTF-8 text ({reason})", "save it as UTF-8") from None


def _is_file_name(recipe: str) -> bool:
    return recipe.endswith((".yaml", ".yml")) or "/" in recipe


def _parse_yaml(text: str, origin: str) -> dict[str, Any]:
    values = _load_yaml(text, origin)
    if not isinstance(values, dict):
        raise ConfigError(origin, f"must be a mapping of sections such as model and data, got {type(values).__name__}")
    return values


def _load_yaml(text: str, origin: Text) -> Any:
    # The pure loader speaks YAML 1.2, in which 2e-4 is a number and `no` a string, and refuses duplicate keys.
    try:
        yaml = YAML(typ="safe", pure=True)
        yaml.Scanner = _TaglessScanner
        yaml.Constructor = _BoundedConstructor
        return yaml.load(text)
    except DuplicateKeyError as error:
        problem = str(error.problem or "a key is given twice").split(" with")[0]
        raise ConfigError(origin, f"{problem}{_at(error)}", "keep one of them") from None
    except ConstructorError as error:
        problem = str(error.problem)
        problem = "YAML tags are not allowed" if "tag" in problem else f"not valid YAML: {problem}"
        raise ConfigError(origin, f"{problem}{_at(error)}", "write plain values") from None
    except YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(origin, f"not valid YAML: {problem}{_at(error)}") from None
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        # The constructors' own: a date of month 99, an integer of 5,000 digits, a list as a key, `!!int` of nothing.
        raise ConfigError(origin, f"not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(origin, "nested too deeply", "a recipe has sections and keys only") from None


class _TaglessScanner(Scanner):
    """Refuses any tag: the safe ones make sets, whose order is another in every process, and pairs of one key."""

    def fetch_tag(self) -> None:
        """Raises ConstructorError."""
        raise ConstructorError(problem="a tag", problem_mark=self.reader.get_mark())


class _BoundedConstructor(SafeConstructor):
    """Counts the keys that `<<` brings in: a few lines of it, each merging the last one nine times, make millions."""

    merged = 0

    def flatten_mapping(self, node: Any) -> Any:
        """As the parent class. Raises ConstructorError for more than `MAX_MERGED_KEYS`."""
        super().flatten_mapping(node)
        self.merged += len(getattr(node, "merge", None) or ())
        if self.merged > MAX_MERGED_KEYS:
            raise ConstructorError(problem=f"merges more than {MAX_MERGED_KEYS:,} keys", problem_mark=node.start_mark)


def _at(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""


def _apply_override(values: dict[str, Any], given: str | tuple[str, Any]) -> None:
    if isinstance(given, str):
        shown, (key, equals, text) = given, given.partition("=")
    else:
        (key, value), equals = given, "="
        shown = f"{key}={show_value(value)}"
    if not equals or not all(key.split(".")):
        raise ConfigError(
            Option("set", shown), ("must read key.path=value, such as ", Option("set", "training.epochs=2"))
        )
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(Option("set", shown), f"{parent} is a value, not a section")
        node = child
    if isinstance(given, str):
        value = _load_yaml(text, origin=Option("set", shown))
    node[last] = os.fspath(value) if isinstance(value, os.PathLike) else value


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in extra.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
