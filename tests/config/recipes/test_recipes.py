from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medtune.config.changes import changed_keys
from medtune.config.recipes import (
    load_for_source,
    load_recipe,
    read_config,
    recipe_name,
    shipped_recipes,
)  # fmt: skip
from medtune.config.recipes.yaml_text import dump_config
from medtune.config.schema import Config, DataSection
from medtune.config.training import TrainingSection
from medtune.errors import ConfigError
from recipe_files import BASE, refused

# Shipped recipes ----------------------------------------------------------------------------------------------------


def test_the_recipes_that_ship() -> None:
    assert {
        "demo", "smollm2-135m", "llama3-8b-t4", "llama3-8b-2xt4", "llama3-8b-24gb", "llama3-8b-80gb",
        "llama3-70b-2x24gb",
        "qwen3-0.6b", "qwen3-4b", "qwen3-8b", "smollm3-3b", "llama3.2-1b", "llama3.2-3b", "gemma3-1b", "phi4-mini",
        "mistral-7b", "medquad-lavita", "icliniq", "chatdoctor", "pubmedqa", "medmcqa",
    } == shipped_recipes().keys()  # fmt: skip


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_resolves_and_says_what_it_is(name: str) -> None:
    config = load_recipe(name)
    assert isinstance(config, Config)
    assert 20 < len(shipped_recipes()[name]) < 120
    assert not shipped_recipes()[name].startswith("#")


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_survives_dump_and_parse(name: str, recipe: Path) -> None:
    config = load_recipe(name)
    recipe.write_text(dump_config(config), encoding="utf-8")
    assert read_config(recipe) == config
    assert load_recipe(str(recipe)) == config


def test_the_larger_cards_build_on_the_t4() -> None:
    t4, large = load_recipe("llama3-8b-t4"), load_recipe("llama3-8b-80gb")
    assert large.model.base == t4.model.base
    assert (t4.model.dtype, large.model.dtype) == ("float16", "auto")
    assert large.training.learning_rate == t4.training.learning_rate
    two = load_recipe("llama3-8b-2xt4").training
    assert two.effective_batch_rows == 2 * t4.training.effective_batch_rows  # as many for each of the two
    assert large.training.checkpointing == t4.training.checkpointing == "auto"


def test_a_run_is_named_after_its_recipe() -> None:
    assert recipe_name("demo") == "demo"
    assert recipe_name("some/where/mine.yaml") == "mine"
    assert recipe_name("mine.yml") == "mine"


# Files --------------------------------------------------------------------------------------------------------------


def test_a_recipe_file(recipe: Path) -> None:
    recipe.write_text(f"{BASE}seed: 7\n", encoding="utf-8")
    config = load_recipe(str(recipe))
    assert (config.model.base, config.data.source, config.seed) == ("owner/model", "rows.csv", 7)


@example(text="a.b: 1")
@given(text=st.text(alphabet=st.sampled_from("ab01.:-?!&*{}[],<>|'\"#%@\n\t ~_exo"), max_size=40))
def test_whatever_a_recipe_holds_it_resolves_or_is_refused(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):  # none of these spells out model.base and data.source
        load_recipe(str(path))


def test_a_missing_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.yaml") == "no such recipe file; `medtune recipes` lists the shipped ones"
    assert refused(tmp_path / ("x" * 300 + ".yaml")).startswith("no such recipe file")
    assert refused(f"{tmp_path}/").startswith("no such recipe file")


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    line = refused("dmeo")
    assert line.startswith(f"unknown recipe; shipped are {', '.join(shipped_recipes())}; ")


# extends ------------------------------------------------------------------------------------------------------------


def test_extends_a_shipped_recipe_and_merges_key_by_key(recipe: Path) -> None:
    recipe.write_text("extends: demo\ntraining: {epochs: 2}\n", encoding="utf-8")
    assert changed_keys(load_recipe("demo"), load_recipe(str(recipe))) == ["training.epochs: 6.0 → 2.0"]


def test_extends_a_file_relative_to_the_recipe_and_not_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, parent = tmp_path / "a" / "child.yaml", tmp_path / "b" / "parent.yaml"
    for path in (child, parent):
        path.parent.mkdir()
    parent.write_text(f"extends: root.yml\n{BASE}", encoding="utf-8")
    (parent.parent / "root.yml").write_text("seed: 1\nlora: {rank: 4, alpha: 4}\n", encoding="utf-8")
    child.write_text("extends: ../b/parent.yaml\nlora: {rank: 8}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = load_recipe("a/child.yaml")
    assert (config.seed, config.lora.rank, config.lora.alpha) == (1, 8, 4)


def test_a_list_is_replaced_and_not_joined(recipe: Path) -> None:
    recipe.write_text("extends: demo\nlora: {targets: [q_proj]}\n", encoding="utf-8")
    assert load_recipe(str(recipe)).lora.targets == ("q_proj",)


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_cycle_of_extends_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name, following in zip(names, [*names[1:], names[0]], strict=True):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {following}.yaml\n{BASE}", encoding="utf-8")
    line = refused(tmp_path / "a.yaml")
    assert "extends itself" in line
    assert line.count("→") == len(names)


@pytest.mark.parametrize("parent", ["3", "[demo]", "{a: 1}"])
def test_extends_must_be_a_name(recipe: Path, parent: str) -> None:
    recipe.write_text(f"extends: {parent}\n{BASE}", encoding="utf-8")
    assert refused(recipe).startswith("extends: must be a recipe's name or file, got ")


def test_a_parent_that_is_not_there(recipe: Path) -> None:
    recipe.write_text("extends: absent.yaml\n", encoding="utf-8")
    assert refused(recipe).endswith("absent.yaml: no such recipe file; `medtune recipes` lists the shipped ones")
    recipe.write_text("extends: absent\n", encoding="utf-8")
    assert refused(recipe).startswith("absent: unknown recipe")


# --set --------------------------------------------------------------------------------------------------------------


def test_overrides_are_yaml_and_the_last_one_counts() -> None:
    overrides = ["training.learning_rate=1e-5", "lora.targets=[q_proj, v_proj]", "seed=1", "seed=2",
                 "data.train_limit=null", "data.system_prompt=''", "generation={max_new_tokens: 9}"]  # fmt: skip
    config = load_recipe("demo", overrides)
    assert config.training.learning_rate == 1e-5
    assert config.lora.targets == ("q_proj", "v_proj")
    assert config.seed == 2
    assert config.data.train_limit is None
    assert config.data.system_prompt == ""
    assert config.generation.max_new_tokens == 9
    assert config.training.epochs == 6


def test_an_override_may_hold_further_equals_signs() -> None:
    assert load_recipe("demo", ["data.system_prompt=a=b=c"]).data.system_prompt == "a=b=c"


def test_an_override_can_open_a_section_that_the_recipe_leaves_out() -> None:
    assert load_recipe("demo", ["data.columns.question=frage"]).data.columns.question == "frage"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "--set seed: must read key.path=value, such as --set training.epochs=2"),
        ("=3", "--set =3: must read key.path=value"),
        (".seed=3", "--set .seed=3: must read key.path=value"),
        ("lora..rank=3", "--set lora..rank=3: must read key.path=value"),
        ("lora.=3", "--set lora.=3: must read key.path=value"),
        ("model.base.x=3", "--set model.base.x=3: base is a value, not a section"),
        ("seed=", "seed: input should be a valid integer, got None"),
        ("seed.x=3", "seed: input should be a valid integer, got {'x': 3}"),
        ("model=3", "model: must be a section of keys"),
        ("lora.rank=abc", "lora.rank: input should be a valid integer, got 'abc'"),
        ("lora.ranks=3", "lora.ranks: unknown key; did you mean lora.rank?"),
        ("training.lr=1", "training.lr: unknown key; "),
        ("extends=demo", "extends: unknown key; "),
    ],
    ids=lambda value: value[:40],
)
def test_an_override_that_is_wrong(override: str, expected: str) -> None:
    assert refused("demo", override).startswith(expected)


def test_problems_of_several_overrides_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("demo", ["lora.rank=0", "training.epoch=1", "model.dtype=int4"])
    assert sorted(str(caught.value).splitlines()) == [
        "demo: lora.rank: input should be greater than or equal to 1, got 0",
        "demo: model.dtype: must be 'auto', 'bfloat16', 'float16' or 'float32', got 'int4'",
        "demo: training.epoch: unknown key; did you mean training.epochs?",
    ]


# Dumping and comparing ----------------------------------------------------------------------------------------------


def test_reading_back_a_damaged_config(recipe: Path) -> None:
    recipe.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        read_config(recipe)
    recipe.write_text(dump_config(load_recipe("demo")).split("data:")[0], encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: data: missing"):
        read_config(recipe)


# A source to look at ------------------------------------------------------------------------------------------------


def test_a_source_takes_the_place_of_the_recipes_own(recipe: Path) -> None:
    recipe.write_text(
        "extends: demo\ndata: {source: theirs.csv, revision: v1, columns: {question: q}}\n", encoding="utf-8"
    )
    config = load_for_source("mine.csv", str(recipe), ["data.split.test=0.3"])
    assert (config.data.source, config.data.revision) == ("mine.csv", None)
    assert (config.data.columns.question, config.data.split.test) == ("q", 0.3)
    assert load_for_source("x/y", "demo", ["data.revision=v2"]).data.revision == "v2"


def test_without_a_recipe_everything_else_is_the_default() -> None:
    config = load_for_source("mine.csv")
    assert config.data == DataSection(source="mine.csv")
    assert config.training == TrainingSection()
    with pytest.raises(ConfigError) as caught:
        load_for_source("mine.csv", None, ["data.split.test=2", "seed"])
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("--set seed: must read")
    assert lines[1].startswith("data audit: data.split.test: input should be less than")


def test_a_recipe_whose_data_is_no_section_is_refused(recipe: Path) -> None:
    recipe.write_text("model: {base: x}\ndata: 5\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: data: "):
        load_for_source("mine.csv", str(recipe))


# What was meant -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [("mine.yml", "mine.yaml"), ("mine", "mine.yaml"), ("other.yaml", "other.yml"), ("other", "other.yml"),
     ("llama3-8b-t4.yaml", "llama3-8b-t4"), ("llama-8b-t4", "llama3-8b-t4"), ("Demo", "demo")],
)  # fmt: skip
def test_a_name_that_is_nearly_right_leads_to_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yaml", "other.yml"):
        (tmp_path / name).write_text("extends: demo\n", encoding="utf-8")
    assert refused(given).endswith(f"; did you mean {meant}?")


def test_both_endings_may_be_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.yml").endswith("`medtune recipes` lists the shipped ones")


def test_rows_where_a_recipe_is_expected_lead_to_a_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "medquad" / "1_GARD").mkdir(parents=True)
    (tmp_path / "medquad" / "1_GARD" / "1.xml").write_text("<Document/>", encoding="utf-8")
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    for name in ("medquad", "./medquad", "rows.xlsx"):
        assert refused(name) == (
            f"holds rows, and is no recipe; rehearse on them with `medtune run demo --set data.source={name} "
            "--run-dir runs/rehearsal`, or write a recipe that has them as data.source (docs/own-data.md)"
        )
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "rows.csv").touch()
    assert load_recipe("demo").data.source == "medtune:demo"
