"""A run that is evaluated before and after, and sheets filled in by raters who are not there."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from command_line import Medtune, command_runner
from medtune.config.recipes import load_recipe
from medtune.evaluation.human.blinding import Key, KeyEntry
from medtune.evaluation.human.rubric import RATING_COLUMNS
from medtune.records import Prediction, QAPair, Split, Turn
from medtune.run_dir.directory import RunDir

QTYPES = ("symptoms", "treatment", "causes", "outlook")


MakeRun = Callable[..., RunDir]
Fill = Callable[..., Path]


def answer(model: str, number: int) -> str:
    """A text that the test can tell by its maker and the sheet cannot."""
    return f"{'Plain' if model == 'baseline' else 'Other'} words about matter {number}."


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a run directory with both models' answers to `n` questions; changes are functions of the row's number."""

    def make(
        n: int = 20, name: str = "run", turns: Mapping[int, tuple[Turn, ...]] = {}, **changes: Callable[[int], Any]
    ) -> RunDir:
        run = RunDir.create(tmp_path / name, load_recipe("demo", ["evaluation.controls=[]"]), resume=False)
        asked = [
            QAPair(f"MQ-{i:04}", "", f"What is matter {i} ?", f"Matter {i} is what it is.", turns=turns.get(i, ()))
            for i in range(n)
        ]
        run.write_split(Split((), (), tuple(asked)))
        run.complete("data", {})
        for model in ("baseline", "tuned"):
            rows = []
            for number in range(n):
                fields: dict[str, Any] = {
                    "id": f"MQ-{number:04}",
                    "question": f"What is matter {number} ?",
                    "reference": f"Matter {number} is what it is.",
                    "prediction": answer(model, number),
                    "qtype": QTYPES[number % len(QTYPES)],
                    "group": f"topic-{number}",
                }
                fields |= {key: change(number) for key, change in changes.items() if key not in ("baseline", "tuned")}
                if model in changes:
                    fields["prediction"] = changes[model](number)
                rows.append(Prediction(**fields))
            run.write_predictions(model, rows)
            run.write_scores(model, {})
            run.row_statistics_file(model).touch()
            run.complete(model, {})
        return run

    return make


@pytest.fixture
def make_key() -> Callable[..., Key]:
    """A key of the sheet `bcdfghjk`; `tuned` spells the sides, such as "abba"; each row is a group unless named."""

    def make(tuned: str, groups: Sequence[str] | None = None, identical: Sequence[int] = ()) -> Key:
        entries = {
            str(i): KeyEntry(f"row-{i}", "symptoms", groups[i - 1] if groups else "", side, i in identical)  # type: ignore[arg-type]
            for i, side in enumerate(tuned, start=1)
        }
        return Key("bcdfghjk", entries, seed=1)

    return make


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Writes a file of ratings: item → column → value. Further columns of a row precede these."""

    def write(
        name: str,
        rows: Mapping[str, Mapping[str, object]],
        sheet: str = "bcdfghjk",
        columns: Sequence[str] = (*RATING_COLUMNS, "preference", "comment"),
        delimiter: str = ",",
        encoding: str = "utf-8",
    ) -> Path:
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter)
        extra = sorted({key for row in rows.values() for key in row} - set(columns) - {"sheet", "item"})
        header = ["sheet", "item", *extra, *columns]
        writer.writerow(header)
        for item, row in rows.items():
            writer.writerow([row.get(column, {"sheet": sheet, "item": item}.get(column, "")) for column in header])
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(out.getvalue().encode(encoding))
        return path

    return write


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Medtune:
    """Runs a command line in this process, at 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    return command_runner(monkeypatch, capsys)
