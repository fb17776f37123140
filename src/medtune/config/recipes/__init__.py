"""Recipes: finding, extending, overriding and resolving them into a configuration."""

import difflib
import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache, lru_cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medtune.config.recipes.yaml_text import load_yaml, parse_yaml, read_recipe_text
from medtune.config.schema import Config, parse_config
from medtune.errors import Command, ConfigError, Option, Problem, show_value

_ENDINGS = (".yaml", ".yml")
# What people keep rows in, whether it can be read or not.
_DATA_ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx", ".xls", ".xml", ".gz")
_FILES_LOOKED_AT = 1000
# `key.path=value` as text, with a YAML value, or values by their dotted keys or in sections.
Overrides = Iterable[str] | Mapping[str, Any]


@cache
def shipped_recipes() -> Mapping[str, str]:
    """Name and one-line description (the first comment) of every recipe in the package."""
    found = {}
    for entry in sorted(files(__name__).iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".yaml"):
            first = entry.read_text(encoding="utf-8").splitlines()[0]
            found[entry.name.removesuffix(".yaml")] = first.removeprefix("#").strip()
    return MappingProxyType(found)


@cache
def shipped_configs() -> Mapping[str, Config]:
    """Every recipe in the package, by its name. Reading them all takes a tenth of a second."""
    return MappingProxyType({name: load_recipe(name) for name in shipped_recipes()})


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


# What belongs to a recipe's own source, and to no other.
_OF_A_SOURCE = ("revision", "hub_config", "hub_split", "sources")


def load_for_source(source: str, recipe: str | None = None, overrides: Overrides = ()) -> Config:
    """A configuration to look at `source` with: the recipe's, whose own source it replaces, or else the defaults.

    Raises ConfigError, as `load_recipe` does.
    """
    values: dict[str, Any] = {"model": {"base": "medtune:demo"}} if recipe is None else _read_recipe(recipe, seen=())
    data = values.get("data") or {}
    if isinstance(data, dict):  # anything else is for the schema to refuse
        data = {key: value for key, value in data.items() if key not in _OF_A_SOURCE}
        values["data"] = {**data, "source": source}
    return _resolve(values, overrides, origin=recipe or "data audit")


def _resolve(values: dict[str, Any], overrides: Overrides, origin: str) -> Config:
    problems: list[Problem] = []
    given = flatten(overrides).items() if isinstance(overrides, Mapping) else overrides
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


def read_config(path: Path) -> Config:
    """Read back a resolved `config.yaml`."""
    return _parsed(read_recipe_text(path, str(path)), str(path))


# Every stage of a run reads the file again, in case another process has written; parsing takes longer than some stages.
@lru_cache(maxsize=8)
def _parsed(text: str, origin: str) -> Config:
    return parse_config(parse_yaml(text, origin=origin), origin=origin)


@lru_cache(maxsize=64)
def _parsed_values(text: str, origin: str) -> dict[str, Any]:
    return parse_yaml(text, origin=origin)


def _read_recipe(recipe: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if not seen and _holds_rows(recipe):
        raise _no_recipe(recipe)
    text, where, identity = _find_recipe(recipe)
    if identity in seen:
        raise ConfigError(recipe, f"extends itself ({' → '.join([*seen, identity])})", "remove one `extends`")
    values = deepcopy(_parsed_values(text, recipe))
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise ConfigError(recipe, f"extends: must be a recipe's name or file, got {parent!r}")
    if where is not None and _is_file_name(parent):
        parent = str(where.parent / parent)
    inherited = _read_recipe(parent, (*seen, identity))
    given = values.get("data")
    if isinstance(given, dict):
        for key in given:
            _take_the_place_of(inherited, f"data.{key}")
    return _merge(inherited, values)


# Keys of which one replaces the other, wherever that was given before.
_EITHER = {"data.source": "sources", "data.sources": "source"}


def _take_the_place_of(values: dict[str, Any], key: str) -> None:
    """Forget what `key`, once it is set in `values`, replaces."""
    data = values.get("data")
    if isinstance(data, dict) and key in _EITHER:
        data.pop(_EITHER[key], None)


def _find_recipe(recipe: str) -> tuple[str, Path | None, str]:
    """Text, folder-giving path (None for shipped ones) and identity of a recipe."""
    if _is_file_name(recipe):
        path = Path(recipe)
        if not os.path.isfile(path):  # unlike Path.is_file, no error for a name that is too long
            meant = _meant(recipe)
            fix = f"did you mean {meant}?" if meant else "`medtune recipes` lists the shipped ones"
            raise ConfigError(recipe, "no such recipe file", fix)
        return read_recipe_text(path, recipe), path, str(path.resolve())
    if recipe not in shipped_recipes():
        names, meant = ", ".join(shipped_recipes()), _meant(recipe)
        fix = f"did you mean {meant}?" if meant else "a file's name must end in .yaml or .yml"
        raise ConfigError(recipe, f"unknown recipe; shipped are {names}", fix)
    return (files(__name__) / f"{recipe}.yaml").read_text(encoding="utf-8"), None, recipe


def _holds_rows(path: str) -> bool:
    """Whether it is a table or a folder of tables or XML, by the names: what somebody gives who has only data."""
    if path in shipped_recipes() or os.path.isfile(os.path.join(path, "config.yaml")):  # which is a run
        return False
    looked_at = islice(Path(path).rglob("*"), _FILES_LOOKED_AT) if os.path.isdir(path) else [Path(path)]
    return any(file.name.lower().endswith(_DATA_ENDINGS) and os.path.isfile(file) for file in looked_at)


def _no_recipe(path: str) -> ConfigError:
    rehearsal = Command("run", "demo", (Option("set", f"data.source={path}"), Option("run_dir", "runs/rehearsal")))
    fix = ("rehearse on them with ", rehearsal, ", or write a recipe that has them as data.source (docs/own-data.md)")
    return ConfigError(path, "holds rows, and is no recipe", fix)


def _meant(recipe: str) -> str | None:
    """A file with the other ending or with one at all, or a shipped recipe of a close name."""
    stem = recipe.removesuffix(".yaml").removesuffix(".yml")
    files_there = [f"{stem}{ending}" for ending in _ENDINGS if os.path.isfile(f"{stem}{ending}")]
    return next(iter([*files_there, *difflib.get_close_matches(stem, shipped_recipes(), n=1)]), None)


def _is_file_name(recipe: str) -> bool:
    return recipe.endswith(_ENDINGS) or "/" in recipe


def _apply_override(values: dict[str, Any], given: str | tuple[str, Any]) -> None:
    if isinstance(given, str):
        shown, (key, equals, text) = given, given.partition("=")
    else:
        (key, value), equals = given, "="
        shown = f"{key}={show_value(value)}"
    if not equals or not all(key.split(".")):
        problem = ("must read key.path=value, such as ", Option("set", "training.epochs=2"))
        raise ConfigError(Option("set", shown), problem)
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(Option("set", shown), f"{parent} is a value, not a section")
        node = child
    if isinstance(given, str):
        value = load_yaml(text, origin=Option("set", shown))
    if key != "data.sources" or isinstance(value, list):  # anything else is for the schema to refuse
        _take_the_place_of(values, key)
    node[last] = os.fspath(value) if isinstance(value, os.PathLike) else value


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in extra.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested sections by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
