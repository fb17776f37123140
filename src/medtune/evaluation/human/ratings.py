"""Filled sheets and the page's exports, checked and gathered into one judgement a rater and item."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medtune.errors import DataError, Problem
from medtune.evaluation.human.rubric import PREFERENCES, RATING_COLUMNS, SCALE, Preference
from medtune.evaluation.human.spreadsheet import Spreadsheet, read_spreadsheet, rearm

_MAX_PROBLEMS = 20
_ANSWERS = ("preference", *RATING_COLUMNS)
# So many items in full, each with nine values: two people do not rate them alike by chance.
_FEWEST_EQUAL = 5


@dataclass(frozen=True, slots=True)
class Judgement:
    """One rater's judgement of one item. `ratings` maps a column such as `accuracy_a` to 1 to 5; gaps are left out."""

    rater: str
    item: str
    ratings: dict[str, int] = field(default_factory=dict)
    preference: Preference | None = None
    comment: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether every criterion of both answers is rated and a preference given."""
        return self.preference is not None and len(self.ratings) == len(RATING_COLUMNS)


@dataclass
class _Gathering:
    """The judgements so far, where each rater's name comes from, and what is wrong."""

    judgements: dict[tuple[str, str], Judgement] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # casefolded → as first written
    unnamed: dict[str, Path] = field(default_factory=dict)  # rater named after a file → that file
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: Path | str, problem: str, fix: str = "") -> None:
        self.problems.append(Problem(path, problem, fix))


def read_judgements(files: Sequence[Path], sheet: str, items: Sequence[str]) -> list[Judgement]:
    """Read filled sheets of the sheet called `sheet` with these `items`; rows that nobody filled in are passed over.

    A rater's name is the `rater` column's, or else the file's. Raises DataError, one line a problem, for another
    sheet's rows, unknown items, values off the scale and two answers of one rater to one question, or if nothing is
    rated.
    """
    gathering = _Gathering()
    for path in files:
        _read_file(path, sheet, frozenset(items), gathering)
    if not gathering.problems and not gathering.judgements:
        names = ", ".join(map(str, files))
        gathering.add(names, "nothing is rated", f"fill in ratings from {SCALE[0]} to {SCALE[-1]} first")
    _find_copies(gathering)
    if len(gathering.problems) > _MAX_PROBLEMS:
        rest = len(gathering.problems) - _MAX_PROBLEMS
        gathering.problems[_MAX_PROBLEMS:] = [Problem(f"and {rest} further problems like these")]
    if gathering.problems:
        raise DataError.together(gathering.problems)
    order = {item: i for i, item in enumerate(items)}
    return sorted(gathering.judgements.values(), key=lambda judgement: (judgement.rater, order[judgement.item]))


def _read_file(path: Path, sheet: str, items: frozenset[str], gathering: _Gathering) -> None:
    table = read_spreadsheet(path)
    if problem := _column_problem(path, table):
        gathering.problems.append(problem)
        return
    filled = [row for row in table.rows if any(row.get(column) for column in (*_ANSWERS, "comment"))]
    strangers = {row.get("sheet", "") for row in table.rows} - {sheet, ""}
    strangers |= {row.get("sheet", "") for row in filled} - {sheet}
    if strangers:
        other = ", ".join(repr(name) for name in sorted(strangers))
        gathering.add(path, f"belongs to sheet {other}, the key to {sheet!r}", "give the key of that sheet")
        return
    rater = _rater_of_file(path, sheet, filled, gathering)
    for row in filled:
        judgement = _judge(row, row.get("rater") or rater, items, path, gathering)
        if judgement:
            _add(judgement, path, gathering)


def _find_copies(gathering: _Gathering) -> None:
    """Two raters who gave the same to every item: a copy of a file under another name would count one person twice."""
    by_rater: dict[str, list[Judgement]] = {}
    for judgement in gathering.judgements.values():
        by_rater.setdefault(judgement.rater, []).append(judgement)
    seen: dict[str, str] = {}
    for rater, items in by_rater.items():
        if sum(judgement.is_complete for judgement in items) < _FEWEST_EQUAL:
            continue
        given = sorted((one.item, one.preference or "", sorted(one.ratings.items())) for one in items)
        first = seen.setdefault(str(given), rater)
        if first != rater:
            problem = f"gave the same ratings to all {len(items)} items"
            gathering.add(f"{first} and {rater}", problem, "give one person's file once")


def _column_problem(path: Path, table: Spreadsheet) -> Problem | None:
    missing = [name for name in ("sheet", "item") if name not in table.columns]
    twice = sorted({name for name in table.columns if name in _ANSWERS and table.columns.count(name) > 1})
    if twice and not missing:
        return Problem(path, f"two columns {twice[0]}", "take one of them out")
    if not set(_ANSWERS) & set(table.columns):
        missing = missing or ["of ratings"]
    if not missing:
        return None
    return Problem(path, f"no column {' and no column '.join(missing)}", "give a filled sheet or the page's export")


def _rater_of_file(path: Path, sheet: str, rows: Sequence[dict[str, str]], gathering: _Gathering) -> str:
    """Who filled in the rows without a name: the rater named in the others, or else the file's own name."""
    if all(row.get("rater") for row in rows):
        return ""
    named = {row["rater"].casefold(): row["rater"] for row in rows if row.get("rater")}
    if len(named) > 1:
        gathering.add(path, "several raters' rows, and some without a name", "fill in the rater column")
    if named:
        return next(iter(named.values()))
    rater = path.stem.removeprefix(f"ratings-{sheet}-")
    other = gathering.unnamed.setdefault(rater.casefold(), path)
    if other != path:
        gathering.add(
            path, f"its rater would be called {rater!r} after the file, as that of {other}", "fill in the rater column"
        )
    return rater


def _judge(
    row: dict[str, str], rater: str, items: frozenset[str], path: Path, gathering: _Gathering
) -> Judgement | None:
    number = _whole_number(row.get("item", ""))
    item = row.get("item", "") if number is None else str(number)
    if item not in items:
        gathering.add(path, f"item {item!r} is not on the sheet, which has 1 to {len(items)}")
        return None
    ratings = {}
    for column in filter(row.get, RATING_COLUMNS):
        value = row[column]
        rating = _whole_number(value)
        if rating not in SCALE:
            gathering.add(path, f"item {item}: {column} is {value!r}", f"must be {SCALE[0]} to {SCALE[-1]}, or empty")
        else:
            ratings[column] = rating
    preference = row.get("preference", "").lower()
    if preference and preference not in PREFERENCES:
        gathering.add(path, f"item {item}: preference is {row['preference']!r}", "must be A, B or tie, or empty")
    known = next((choice for choice in PREFERENCES if choice == preference), None)
    name = gathering.names.setdefault(rater.casefold(), rater)
    return Judgement(name, item, ratings, known, rearm(row.get("comment", "")))


def _whole_number(text: str) -> int | None:
    """`4`, and `4.0` or `4,0` as a spreadsheet may write it."""
    whole, _, decimals = text.replace(",", ".").partition(".")
    return int(whole) if whole.isdecimal() and not decimals.strip("0") else None


def _add(new: Judgement, path: Path, gathering: _Gathering) -> None:
    """Join `new` with what the rater said of the item before, in an earlier export of the same work perhaps."""
    old = gathering.judgements.get((new.rater, new.item))
    if old is None:
        gathering.judgements[new.rater, new.item] = new
        return
    before = {**old.ratings, **({"preference": old.preference} if old.preference else {})}
    after = {**new.ratings, **({"preference": new.preference} if new.preference else {})}
    for column in sorted(before.keys() & after.keys()):
        if before[column] != after[column]:
            gathering.add(
                path,
                f"item {new.item}: {new.rater} gives {column} {after[column]} here and {before[column]} elsewhere",
                "take one of them out",
            )
    gathering.judgements[new.rater, new.item] = Judgement(
        new.rater, new.item, old.ratings | new.ratings, new.preference or old.preference, new.comment or old.comment
    )
