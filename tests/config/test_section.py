"""Every section is frozen, and holds nothing that no file can hold."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from medtune.config.schema import parse_config
from medtune.errors import ConfigError
from recipe_files import MINIMAL


def test_a_config_is_frozen_at_every_level() -> None:
    config = parse_config(MINIMAL, origin="here.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.data.split.test = 0.3  # type: ignore[misc]


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"source": "rows.csv", "system_prompt": "half \ud83d"}},
        {"lora": {"targets": ["q_proj", "\udc00"]}},
        {"model": {"base": "owner/model", "device_map": {"\ud800": 0}}},
        {"model": {"base": "owner/model", "device_map": {"layer": "\udfff"}}},
    ],
)
def test_half_a_surrogate_pair_is_refused_wherever_it_is(sections: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="half of a surrogate pair, which is no character; leave it out"):
        parse_config({**MINIMAL, **sections}, origin="here.yaml")


def test_every_other_character_is_taken() -> None:
    prompt = "naïve — \u2028 \x85 \ue000 \uffff 😀"
    config = parse_config({**MINIMAL, "data": {"source": "rows.csv", "system_prompt": prompt}}, origin="here.yaml")
    assert config.data.system_prompt == prompt
