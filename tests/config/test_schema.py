from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from medtune.config.schema import Config, SplitSection, parse_config
from medtune.config.section import Section
from medtune.errors import ConfigError, MedtuneError
from recipe_files import MINIMAL, with_key


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(values, origin="here.yaml")
    return str(caught.value).splitlines()


def sections(section: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    yield prefix, section
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from sections(field.annotation, f"{prefix}{name}.")


def test_a_minimal_config_takes_every_other_value_from_the_defaults() -> None:
    config = parse_config(MINIMAL, origin="here.yaml")
    assert config.model.base == "owner/model"
    assert config.model.quantization == "nf4"
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (16, 16, 0.0)
    assert config.training.learning_rate == 2e-4
    assert config.data.split == SplitSection(validation=0.1, test=0.1)
    assert config.generation.decoding == "greedy"
    assert config.seed == 0


def test_every_key_says_what_it_is() -> None:
    bare = [f"{prefix}{name}" for prefix, section in sections(Config) for name, f in section.model_fields.items()
            if not f.description]  # fmt: skip
    assert bare == []
    assert sum(len(section.model_fields) for _, section in sections(Config)) > 40


@pytest.mark.parametrize(
    ("path", "value", "attribute"),
    [
        ("model.device_map", "auto", "auto"),
        ("model.device_map", {"": 0}, {"": 0}),
        ("generation.batch_size", "auto", "auto"),
        ("generation.batch_size", 4, 4),
        ("data.columns.qtype", None, None),
        ("seed", 2**32 - 1, 2**32 - 1),
        ("lora.rank", 1024, 1024),
        ("data.split.validation", 0.49, 0.49),
    ],
)
def test_values_at_the_edge_of_what_is_allowed(path: str, value: Any, attribute: Any) -> None:
    found: Any = parse_config(with_key(path, value), origin="here.yaml")
    for part in path.split("."):
        found = getattr(found, part)
    assert found == attribute


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("lora.ranks", "did you mean lora.rank?"),
        ("training.learning_rat", "did you mean training.learning_rate?"),
        ("data.columns.anwser", "did you mean data.columns.answer?"),
        ("data.split.tset", "did you mean data.split.test?"),
        ("modell", "did you mean model?"),
        (
            "lora.zzz",
            "known keys here: rank, alpha, dropout, targets, layers, rank_pattern, alpha_pattern, rslora, dora, init, "
            "modules_to_save",
        ),
        ("str", "known keys here: seed, model, data, lora, training, generation, evaluation"),
        ("lora.int", "did you mean lora.init?"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(path: str, suggestion: str) -> None:
    assert problems(with_key(path, 3)) == [f"here.yaml: {path}: unknown key; {suggestion}"]


@pytest.mark.parametrize("key", ["a.b", ".", "..", "lora.rank", "", "two\nlines", "\x1b[31m"])
@pytest.mark.parametrize("section", ["", "lora"])
def test_a_key_of_any_shape_is_refused_in_one_line(section: str, key: str) -> None:
    values = {**MINIMAL, section: {key: 1}} if section else {**MINIMAL, key: 1}
    (line,) = problems(values)
    shown = key if key.isprintable() else repr(key)
    assert line.startswith(f"here.yaml: {'lora.' if section else ''}{shown}: unknown key; ")
    assert line.isprintable()


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        # Types
        ("seed", "7", "input should be a valid integer, got '7'; write the number without quotes"),
        ("seed", True, "input should be a valid integer, got True"),
        ("seed", 1.0, "input should be a valid integer, got 1.0"),
        ("seed", None, "input should be a valid integer, got None"),
        ("model.base", 3, "input should be a valid string, got 3"),
        ("training.fused_adapters", "yes", "input should be a valid boolean, got 'yes'"),
        ("training.fused_adapters", 1, "input should be a valid boolean, got 1"),
        ("training.learning_rate", "2e-4", "a valid number, got '2e-4'; write the number without quotes"),
        ("training.learning_rate", "low", "input should be a valid number, got 'low'"),
        ("lora", 3, "must be a section of keys, got "),
        ("lora", None, "must be a section of keys, got "),
        ("lora.targets", "q_proj", "must be a list, got 'q_proj'"),
        # Ranges
        ("seed", -1, "input should be greater than or equal to 0, got -1"),
        ("seed", 2**32, "input should be less than 4294967296, got 4294967296"),
        ("lora.rank", 0, "input should be greater than or equal to 1, got 0"),
        ("lora.rank", 1025, "input should be less than or equal to 1024, got 1025"),
        ("lora.alpha", 0, "input should be greater than 0, got 0"),
        ("lora.dropout", 1, "input should be less than 1, got 1"),
        ("lora.targets", [], "must hold at least 1 item, got []"),
        ("training.epochs", 0, "input should be greater than 0, got 0"),
        ("training.learning_rate", 1.1, "input should be less than or equal to 1, got 1.1"),
        ("training.max_length", 15, "input should be greater than or equal to 16, got 15"),
        ("data.train_limit", 0, "input should be greater than or equal to 1, got 0"),
        ("data.split.validation", 0, "input should be greater than 0, got 0"),
        ("data.split.test", 0.9, "input should be less than 0.9, got 0.9"),
        ("model.base", "", "string should have at least 1 character, got ''"),
        ("data.source", "", "string should have at least 1 character, got ''"),
        ("evaluation.metrics", [], "must hold at least 1 item, got []"),
        ("training.learning_rate", float("inf"), "input should be a finite number, got inf"),
        ("lora.alpha", float("nan"), "input should be a finite number, got nan"),
        # Choices
        ("model.quantization", "int8", "must be 'nf4' or 'none', got 'int8'"),
        ("generation.decoding", "sample", "must be 'greedy', got 'sample'"),
        ("evaluation.metrics", ["bleu", "met eor"], "should match pattern '^[A-Za-z0-9_]+$', got 'met eor'"),
        ("training.report_to", ["x"], ".0: must be 'tensorboard', 'mlflow', 'wandb' or 'trackio', got 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_key_and_what_would_be_right(path: str, value: Any, reason: str) -> None:
    (line,) = problems(with_key(path, value))
    assert line.startswith(f"here.yaml: {path}")
    assert reason in line


@pytest.mark.parametrize(
    ("path", "value"),
    [("generation.batch_size", "many"), ("generation.batch_size", 0), ("model.device_map", {"a": [1]})],
)
def test_a_union_names_the_key_and_not_its_members(path: str, value: Any) -> None:
    for line in problems(with_key(path, value)):
        assert line.startswith(f"here.yaml: {path}")
        assert "constrained" not in line
        assert "[key]" not in line


def test_missing_keys_say_how_to_give_them() -> None:
    assert problems({"model": {}}) == [
        "here.yaml: model.base: missing; give it in the recipe or with --set model.base=…",
        "here.yaml: data: missing; give it in the recipe or with --set data=…",
    ]


def test_all_problems_are_reported_together() -> None:
    values = with_key("lora", {"rank": 0, "alhpa": 1})
    values["training"] = {"epochs": "two"}
    assert problems(values) == [
        "here.yaml: lora.rank: input should be greater than or equal to 1, got 0",
        "here.yaml: lora.alhpa: unknown key; did you mean lora.alpha?",
        "here.yaml: training.epochs: input should be a valid number, got 'two'",
    ]


def test_a_long_value_is_shown_in_part() -> None:
    (line,) = problems(with_key("seed", "x" * 5000))
    assert len(line) < 200


def test_a_value_that_shares_its_parts_is_shown_at_once() -> None:
    # Nine to the power of thirty items, in thirty lists: what a few lines of YAML aliases make.
    value: list[Any] = ["x"] * 9
    for _ in range(30):
        value = [value] * 9
    (line,) = problems(with_key("seed", value))
    assert line.startswith("here.yaml: seed: input should be a valid integer, got [[")
    assert len(line) < 200


def test_a_config_error_is_one_that_the_user_can_mend() -> None:
    assert issubclass(ConfigError, MedtuneError)


@pytest.mark.parametrize("limits", [{0: "14GiB", "cpu": "24GiB"}, {"0": "14GiB", "cpu": "24GiB"}])
def test_memory_limits_need_a_device_map(limits: dict[int | str, str]) -> None:
    def parse(**model: object) -> Config:
        values = {"model": {"base": "owner/model", "max_memory": limits, **model}, "data": {"source": "rows.csv"}}
        return parse_config(values, origin="here.yaml")

    assert parse(device_map="auto").model.max_memory == limits
    with pytest.raises(ConfigError, match=r"model: max_memory limits a device_map; set model\.device_map too"):
        parse()
