"""Which predictions an older version measured together with text that is not the answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medtune.config.schema import parse_config
from medtune.pipeline.measure import _template_words, is_outdated
from medtune.records import Prediction


def row(text: str) -> Prediction:
    return Prediction(
        id="1", question="What is gout ?", reference="A disease.", prediction=text, new_tokens=5, finish_reason="stop",
        reference_nll=1.0, reference_tokens=3, group="1", qtype="",
    )  # fmt: skip


def run_of(record: dict[str, Any], answers: str = "separated") -> Any:
    values = {
        "model": {"base": "owner/model"}, "data": {"source": "rows.csv"}, "evaluation": {"answers": answers},
    }  # fmt: skip
    return SimpleNamespace(
        path=Path("run"), config=parse_config(values, origin="test"), stage_records={"baseline": record}
    )


@pytest.mark.parametrize(
    ("record", "text", "outdated"),
    [
        ({}, "<think>Let me see.</think>A disease.", True),
        ({}, "A disease.", False),  # both versions read the same
        ({"answers": "separated"}, "<think>Let me see.</think>A disease.", False),  # by this version
    ],
)
def test_only_what_was_scored_with_more_than_the_answer_is_outdated(
    record: dict[str, Any], text: str, outdated: bool
) -> None:
    assert is_outdated(run_of(record), "baseline", [row(text)]) is outdated


def test_a_run_that_wants_texts_as_they_are_has_them_so() -> None:
    assert not is_outdated(run_of({}, answers="raw"), "baseline", [row("<think>Let me see.</think>A disease.")])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({}, ""),
        ({"template_settings": {"enable_thinking": False, "a": [1]}}, "|a:[1]|enable_thinking:false"),
        ({"chat_template": "/somewhere/mine.jinja"}, "|chat_template:mine.jinja"),
    ],
)
def test_signatures_name_what_changes_the_template_and_nothing_by_default(model: dict[str, Any], words: str) -> None:
    values = {"model": {"base": "somebody/model", **model}, "data": {"source": "medtune:demo"}}
    assert _template_words(parse_config(values, origin="test").model) == words
