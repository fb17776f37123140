"""Writes a finished run's answers as a sheet, a page and a key."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from medtune.data.turns import conversation_text
from medtune.errors import Option, RunDirError
from medtune.evaluation.comparison import require_same_rows
from medtune.evaluation.human.blinding import KEY_FILE, blind, key_json
from medtune.evaluation.human.rating_page import rating_page
from medtune.evaluation.human.selection import select_rows
from medtune.evaluation.human.spreadsheet import sheet_csv
from medtune.records import ModelName
from medtune.run_dir.directory import RunDir

SHEET_FILE = "sheet.csv"
PAGE_FILE = "rate.html"
_MODELS: tuple[ModelName, ...] = ("baseline", "tuned")


@dataclass(frozen=True, slots=True)
class Export:
    """The files written: `sheet` and `page` are for raters, `key` is not. `identical` items have one text twice."""

    sheet: Path
    page: Path
    key: Path
    items: int
    identical: int


def export_sheet(run: RunDir, n: int, seed: int | None = None, out: Path | None = None) -> Export:
    """Write `n` rows of a run that is evaluated before and after to `out`, `RUN/human` unless named.

    `seed`, the run's unless given, chooses the rows; the order and the sides are random each time. Raises RunDirError
    if either model is not evaluated or the folder holds anything, DataError if `n` does not fit or the models
    answered other rows.
    """
    for model in _MODELS:
        run.require(model)
    folder = out or run.human_dir
    _require_unused(folder, run.path)
    baseline, tuned = (run.read_predictions(model) for model in _MODELS)
    require_same_rows(baseline, tuned)
    seed = run.config.seed if seed is None else seed
    asked = {pair.id: conversation_text(pair) for pair in run.read_split("test") if pair.turns}
    shown = [replace(answer, question=asked.get(answer.id, answer.question)) for answer in tuned]
    items, key = blind([(baseline[position], shown[position]) for position in select_rows(tuned, n, seed)], seed)
    digests = {str(model): hashlib.sha256(run.predictions_file(model).read_bytes()).hexdigest() for model in _MODELS}
    texts = {
        # The key comes first: the other two are worthless without it.
        KEY_FILE: key_json(replace(key, predictions_sha256=digests)),
        SHEET_FILE: sheet_csv(key.sheet, items),
        PAGE_FILE: rating_page(key.sheet, items),
    }
    try:
        for name, text in texts.items():
            run.write_text(folder / name, text)
    except OSError as error:
        fix = ("name another folder with ", Option("out"))
        raise RunDirError(folder, f"cannot be written ({error.strerror})", fix) from None
    identical = sum(entry.identical for entry in key.items.values())
    return Export(folder / SHEET_FILE, folder / PAGE_FILE, folder / KEY_FILE, n, identical)


def _require_unused(folder: Path, run: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise RunDirError(folder, "is a file, not a folder", ("name another with ", Option("out")))
    if folder.is_dir() and any(folder.iterdir()):
        fix = ("name another folder with ", Option("out"), ", such as ", Option("out", run / "human-2"))
        raise RunDirError(folder, "not empty, and a new key would make its sheet and ratings worthless", fix)
