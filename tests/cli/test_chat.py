"""`medtune chat`: which options reach the work, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from command_line import Medtune
from medtune.inference.serving.chat.settings import ChatSettings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    got: list[Any] = []
    monkeypatch.setattr(
        "medtune.inference.serving.chat.starting.chat",
        lambda target, settings, **options: got.append((target, settings, options)),
    )
    return got


def test_without_options_it_is_a_page_for_this_machine(medtune: Medtune, started: list[Any]) -> None:
    assert medtune("chat", "runs/demo").status == 0
    assert started == [("runs/demo", ChatSettings("127.0.0.1", 7860), {"in_terminal": False})]
    assert started[0][1].address.is_local


def test_every_option_reaches_the_work(medtune: Medtune, started: list[Any]) -> None:
    options = "--host 0.0.0.0 --port 81 --no-browser --blind --terminal --rater"
    assert medtune("chat", "x", *options.split(), "Anna Ö").status == 0
    assert started == [("x", ChatSettings("0.0.0.0", 81, False, True, "Anna Ö"), {"in_terminal": True})]
    assert not started[0][1].address.is_local


def test_what_is_no_model_is_refused_in_one_line(medtune: Medtune) -> None:
    result = medtune("chat", "absent", "--terminal")
    assert result.status == 2
    assert result.err.splitlines()[-1].startswith("medtune: absent: ")
    assert medtune("chat", "absent", "--port", "70000").status == 2
