"""YAML as recipes hold it: what is read, what is refused, and that a dump parses to the same configuration."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.config.changes import changed_keys
from medtune.config.recipes import load_recipe, read_config
from medtune.config.recipes.yaml_text import dump_config, load_yaml
from medtune.config.schema import parse_config
from medtune.errors import ConfigError
from recipe_files import BASE, refused


@pytest.mark.parametrize(
    ("text", "value"), [("2e-4", 2e-4), ("2.5e-4", 2.5e-4), ("1E-3", 1e-3), ("0.001", 1e-3), ("1", 1.0)]
)
def test_numbers_are_those_of_yaml_1_2(recipe: Path, text: str, value: float) -> None:
    recipe.write_text(f"{BASE}training: {{learning_rate: {text}}}\n", encoding="utf-8")
    assert load_recipe(str(recipe)).training.learning_rate == value


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "y", "1:30"])
def test_words_of_yaml_1_1_are_text(recipe: Path, word: str) -> None:
    recipe.write_text(f"model: {{base: {word}}}\ndata: {{source: rows.csv}}\n", encoding="utf-8")
    assert load_recipe(str(recipe)).model.base == word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must be a mapping of sections such as model and data, got NoneType"),
        ("- demo\n", "must be a mapping of sections such as model and data, got list"),
        ("just words\n", "must be a mapping of sections such as model and data, got str"),
        ("seed: [1\n", "not valid YAML: "),
        ("a: b: c\n", "not valid YAML: mapping values are not allowed here (line 1, column 5)"),
        ("--- {}\n--- {}\n", "not valid YAML: but found another document (line 2, column 1)"),
        ("seed: *missing\n", "not valid YAML: found undefined alias 'missing'"),
        ("? [[1]]\n: 2\n", "not valid YAML: unhashable type"),
        ("? {a: 1}\n: 2\n", "not valid YAML: found unhashable key"),
        ("<<: 3\n", "not valid YAML: expected a mapping"),
        ("seed: !!int ''\n", "YAML tags are not allowed (line 1, column 7)"),
        ("evaluation: {metrics: !!set {bleu, rouge1}}\n", "YAML tags are not allowed (line 1, column 23)"),
        ("lora: !!omap [rank: 4]\n", "YAML tags are not allowed (line 1, column 7)"),
        ("seed: 2020-99-99\n", "not valid YAML: month must be in 1..12"),
        (f"seed: {'9' * 5000}\n", "not valid YAML: Exceeds the limit (4300 digits)"),
        ("seed: 1\nseed: 2\n", 'found duplicate key "seed" (line 2, column 1); keep one of them'),
        ("lora:\n  rank: 8\n  alpha: 1\n  rank: 9\n", 'found duplicate key "rank" (line 4, column 3)'),
        ("a: !!python/object/apply:os.system [ls]\n", "YAML tags are not allowed (line 1, column 4)"),
        ("a: !!python/name:os.system x\n", "YAML tags are not allowed (line 1, column 4)"),
        ("a: !include other.yaml\n", "YAML tags are not allowed (line 1, column 4)"),
        ("a: \x00\n", "not valid YAML: unacceptable character"),
        ("[" * 1000, "nested too deeply"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_yaml_that_is_no_recipe_is_refused_in_one_line(recipe: Path, text: str, expected: str) -> None:
    recipe.write_text(text, encoding="utf-8")
    assert refused(recipe).startswith(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=[1", "--set seed=[1: not valid YAML: "),
        ("seed=!!python/name:os.system x", "--set seed=!!python/name:os.system x: YAML tags are not allowed"),
        (f"seed={'9' * 5000}", "--set seed=999"),
    ],
    ids=lambda value: value[:40],
)
def test_an_override_that_is_not_yaml_is_refused_in_one_line(override: str, expected: str) -> None:
    assert refused("demo", override).startswith(expected)


def test_a_tag_runs_nothing(tmp_path: Path, recipe: Path) -> None:
    mark = tmp_path / "mark"
    recipe.write_text(f"{BASE}seed: !!python/object/apply:os.system ['touch {mark}']\n", encoding="utf-8")
    assert "YAML tags are not allowed" in refused(recipe)
    assert not mark.exists()


def test_an_anchor_may_be_given_twice() -> None:
    """YAML 1.2 lets the later one count; ruamel.yaml warns of it on a terminal unless told not to."""
    assert load_yaml("a: &x 1\nb: &x 2\nc: *x\n", "here") == {"a": 1, "b": 2, "c": 2}


def test_aliases_that_multiply_are_refused_at_once(recipe: Path) -> None:
    names = "abcdefghijklmnopqrst"
    lines = [f"a: &a [{','.join('x' * 9)}]"]
    lines += [f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]" for old, new in pairwise(names)]
    recipe.write_text("\n".join([*lines, f"seed: *{names[-1]}", BASE]), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(recipe))
    found = str(caught.value).splitlines()
    assert len(found) == len(names) + 1
    assert max(map(len, found)) < 300


def test_a_file_that_is_not_utf8(recipe: Path) -> None:
    recipe.write_bytes(b"seed: 1 # caf\xe9\n")
    assert refused(recipe) == "not UTF-8 text (invalid continuation byte at byte 13); save it as UTF-8"


def test_a_file_that_is_no_recipe_by_its_size(recipe: Path) -> None:
    recipe.write_text("#" * (1 << 20) + "\n" + BASE, encoding="utf-8")
    assert refused(recipe).startswith("larger than 1048576 bytes")


TEXTS = st.one_of(
    st.text(min_size=1, max_size=60),
    st.sampled_from(["1e5", "no", "null", "~", "2020-01-01", "a: b", "- a", "# a", "a\n\nb\n", " a ", "\x85", "\u2028",
                     "0x1f", "1_000", "=", "<<", "!x", "&a", "*a", "%a", "'", '"', "\\", "é" * 100, "a  b " * 30]),
)  # fmt: skip


@settings(max_examples=30)
@given(
    text=TEXTS,
    rate=st.floats(min_value=0, max_value=1, exclude_min=True),
    alpha=st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False),
    seed=st.integers(0, 2**32 - 1),
    names=st.lists(TEXTS, min_size=1, max_size=3),
    device_map=st.none() | st.just("auto") | st.dictionaries(TEXTS, st.integers(0, 8) | TEXTS, min_size=1, max_size=2),
)
def test_what_is_dumped_parses_to_the_same_config(
    text: str,
    rate: float,
    alpha: float,
    seed: int,
    names: list[str],
    device_map: dict[str, int | str] | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    values = {
        "seed": seed,
        "model": {"base": text, "device_map": device_map},
        "data": {"source": text, "system_prompt": text},
        "lora": {"alpha": alpha, "targets": names},
        "training": {"learning_rate": rate},
    }
    config = parse_config(values, origin="generated")
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_bytes(dump_config(config).encode("utf-8"))
    assert read_config(path) == config
    assert changed_keys(read_config(path), config) == []


def test_a_long_line_with_control_characters_survives(tmp_path: Path) -> None:
    prompt = "word \x1b\x1b\x1b\x1béword - - - éword word \x1b\x1béé- é\x1b\x1b\x1b\x1b\x1béword \x1b\x1b- \x1b"
    values = {"model": {"base": "b"}, "data": {"source": "s", "system_prompt": prompt}}
    config = parse_config(values, origin="generated")
    path = tmp_path / "dumped.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert read_config(path).data.system_prompt == prompt


def test_a_dump_writes_every_key_out() -> None:
    text = dump_config(load_recipe("demo"))
    assert text.startswith("seed: 0\nmodel:\n  base: medtune:demo\n  revision: null\n")
    assert text.count("\n") > 60
    assert "exact_match" in text
