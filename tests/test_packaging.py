"""What PyPI gets: extras with lower bounds and pins, and metadata without anything that is not there."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: asked for name, asked in PROJECT["optional-dependencies"].items() if name != "dev"}


@pytest.fixture(scope="module")
def solving() -> ModuleType:
    spec = importlib.util.spec_from_file_location("solve_extras", ROOT / ".ci" / "solve_extras.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_has_lower_bounds_and_pins_within_them(solving: ModuleType, extra: str) -> None:
    """Else pip may take any old release, such as mlflow 1.27."""
    pins = solving.read_pins()
    for requirement in map(Requirement, EXTRAS[extra]):
        assert any(bound.operator == ">=" for bound in requirement.specifier), requirement
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_ci_solves_every_extra_and_finds_what_has_no_pin(
    solving: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = solving.read_pins()
    asked: list[str] = []

    def solve(requirements: list[str]) -> dict[str, str]:
        asked.extend(requirements)
        return {**pins, "mlflow-skinny": "1.27.0", "new-package": "1.0"}

    monkeypatch.setattr(solving, "solve", solve)
    with pytest.raises(SystemExit) as ended:
        solving.main()
    assert str(ended.value.code).splitlines() == [
        f"mlflow-skinny 1.27.0: constraints.txt has {pins['mlflow-skinny']}",
        "new-package 1.0: constraints.txt has None",
    ]
    assert asked == [requirement for requirements in EXTRAS.values() for requirement in requirements]
    assert f"extra chat: gradio {pins['gradio']}, pinned {pins['gradio']}" in capsys.readouterr().out
    monkeypatch.setattr(solving, "solve", lambda requirements: pins)
    with pytest.raises(SystemExit) as ended:
        solving.main()
    assert not ended.value.code


def test_ci_has_every_extra_of_the_wheel() -> None:
    (line,) = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.strip().startswith("extras=(")]
    assert line.strip()[len("extras=(") : -1].split() == sorted(EXTRAS.keys() - {"docs"})
    assert f"medtune[{','.join(sorted(EXTRAS))}]" in PROJECT["optional-dependencies"]["dev"]
