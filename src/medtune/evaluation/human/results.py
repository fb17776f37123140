"""Filled sheets and their key, from files to scores on disk."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from medtune.errors import Command, DataError, Option, RunDirError
from medtune.evaluation.formatting import listed
from medtune.evaluation.human.blinding import KEY_FILE, Key, parse_key
from medtune.evaluation.human.human_scores import HumanScores, score_judgements
from medtune.evaluation.human.rating_tables import read_scores
from medtune.evaluation.human.ratings import read_judgements
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import say
from medtune.storage.reading import DamagedError, parse_json, read_text
from medtune.storage.writing import replacing_file

SCORES_FILE = "scores.json"


def find_key(files: Sequence[Path], key: Path | None) -> Path:
    """The key of filled sheets: `key`, which may be a file, an export's folder or a run, or one beside `files`.

    Raises RunDirError if there is none.
    """
    if key is not None:
        candidates = [key, key / KEY_FILE, RunDir(key).human_dir / KEY_FILE]
        lacking = RunDirError(key, f"holds no {KEY_FILE} of {Command('human export')}")
    else:
        candidates = [path.parent / KEY_FILE for path in files]
        what, fix = f"no {KEY_FILE} beside {', '.join(map(str, files))}", ("name it, or the run, with ", Option("key"))
        lacking = RunDirError(what, fix=fix)
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise lacking
    return found


def score_files(files: Sequence[Path], key_file: Path) -> HumanScores:
    """Read, check, unblind and summarise `files`. Raises DataError, one line a problem."""
    key = read_key(key_file)
    return score_judgements(read_judgements(files, key.sheet, list(key.items)), key)


def _raters_in(path: Path) -> set[str]:
    """Whose ratings an earlier file of scores holds; nobody's where there is none, or it is no such file."""
    try:
        return set(parse_json(read_text(path))["raters"]) if path.is_file() else set()
    except (DamagedError, OSError, KeyError, TypeError):
        return set()


def read_key(path: Path) -> Key:
    """The key at `path`. Raises DataError if it is none."""
    try:
        return parse_key(read_text(path), str(path))
    except DamagedError as error:
        raise DataError(path, str(error), "restore it from where it was written") from None


def write_scores(scores: HumanScores, key_file: Path, out: Path | None = None) -> Path:
    """Write the scores and their reading as JSON, to `scores.json` beside the key unless `out` is named; say where.

    An earlier `scores.json` is replaced: raters come in one by one. Raters who were in it and are not in `scores` are
    said. Raises RunDirError if it cannot be written, or if `out` is the key itself.
    """
    path = out or key_file.parent / SCORES_FILE
    if path.resolve() == key_file.resolve():
        raise RunDirError(path, "is the key", ("name another file with ", Option("out")))
    values = {"reading": read_scores(scores), **asdict(scores)}
    if gone := _raters_in(path) - scores.raters.keys():
        say(f"{path}: replaced, without the ratings of {listed(sorted(gone))}; give all files for scores of all raters")
    try:
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        fix = ("name another file with ", Option("out"))
        raise RunDirError(path, f"cannot be written ({error.strerror})", fix) from None
    return path
