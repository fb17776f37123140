"""What is trained and how: lists, numbers and names that are taken, and those that are not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from medtune.config.schema import parse_config
from medtune.config.training import LoraSection
from medtune.errors import ConfigError
from recipe_files import with_key


def test_a_list_is_taken_for_a_tuple() -> None:
    config = parse_config(with_key("lora.targets", ["q_proj", "v_proj"]), origin="here.yaml")
    assert config.lora.targets == ("q_proj", "v_proj")
    assert parse_config(with_key("training.report_to", ["wandb"]), origin="x").training.report_to == ("wandb",)


def test_a_whole_number_will_do_where_a_fraction_is_meant() -> None:
    config = parse_config(with_key("training.epochs", 2), origin="here.yaml")
    assert config.training.epochs == 2.0


def test_a_section_refuses_unknown_keywords_from_python_too() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        LoraSection(r=8)  # type: ignore[call-arg]


def test_checkpoints_are_pushed_to_a_repository_of_an_owner() -> None:
    values = with_key("training.push_checkpoints_to", "owner/name")
    assert parse_config(values, origin="here.yaml").training.push_checkpoints_to == "owner/name"
    for name in ("name", "a/b/c", "owner/", "/name", "owner/na me", ""):
        with pytest.raises(ConfigError, match="must be a Hub repository of the form owner/name"):
            parse_config(with_key("training.push_checkpoints_to", name), origin="here.yaml")
