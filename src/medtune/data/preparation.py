"""The data stage: read, clean, group, split, sample; every row that is left out is counted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medtune.config.schema import Config, DataSection
from medtune.data import cleaning
from medtune.data.focus import fill_focus
from medtune.data.left_out import reading_line, reading_warning, require_long_answers
from medtune.data.mixture import mix, read_all, source_counts
from medtune.data.near_duplicates import SimilarAnswers, find_similar_answers
from medtune.data.row_markup import find_markup
from medtune.data.sources import SourceRows, read_source
from medtune.data.specific_turns import specific_earlier_answers
from medtune.data.split_problems import require_rows
from medtune.data.splits import assign_groups, named_part, sample_rows, split_by_column, split_grouped, split_random
from medtune.records import QAPair, Split
from medtune.runtime.progress import progress_bar, say


@dataclass(frozen=True, slots=True)
class Prepared:
    """The splits, the counts behind them, and the identity of the data they came from.

    `rows` are all rows that cleaning kept, those of a test source last; `similar` says which have similar answers, in
    the same order. `dropped` are the others as they were read, each with the rule that dropped it. `split.train` holds
    a row several times where its source weighs more than 1. `not_split` says why there are no three splits, where that
    is allowed.
    """

    split: Split
    report: dict[str, Any]
    provenance: dict[str, Any]
    rows: list[QAPair]
    similar: SimilarAnswers
    dropped: list[tuple[str, QAPair]]
    not_split: str = ""


def prepare_data(config: Config, *, must_split: bool = True) -> Prepared:
    """Rows of `config.data` as train, validation and test.

    Raises DataError if they cannot be read, or if a split is empty and they `must_split`.
    """
    data = config.data
    read, origins = read_all(data)
    report: dict[str, Any] = {"cleaning_version": cleaning.VERSION}
    pairs, report["source"], dropped = _clean(data.named, read, data, report, several=bool(data.sources))
    provenance: dict[str, Any] = {"source": data.named, "revision": read.revision, "fingerprint": read.fingerprint()}
    provenance |= origins.provenance
    if read.folder_of is not None:
        provenance["folder_of"] = read.folder_of
    test: list[QAPair] = []
    if data.test_source is not None:
        test_read = read_source(data.test_source, data.columns, table=data.table)
        taken = {pair.id for pair in read.pairs}
        renamed = [replace(pair, id=f"test-{pair.id}") if pair.id in taken else pair for pair in test_read.pairs]
        provenance |= {"test_source": data.test_source, "test_fingerprint": test_read.fingerprint()}
        renamed_read = replace(test_read, pairs=renamed)
        test, report["test_source"], more = _clean(data.test_source, renamed_read, data, report)
        dropped += more
    earlier = [specific_earlier_answers(pair) for pair in (*pairs, *test)]
    total = len(earlier) + sum(map(len, earlier))
    with progress_bar("Comparing answers", total, unit="answers") as advance:
        similar = find_similar_answers([pair.answer for pair in (*pairs, *test)], advance, earlier)
    rows = assign_groups([*pairs, *test], similar)
    split = _split(rows[: len(pairs)], rows[len(pairs) :], config, report)
    train = mix(split.train, origins, config.seed)
    if origins.names:
        report["sources"] = source_counts(origins, pairs, split, train)
    split = Split(tuple(sample_rows(train, data.train_limit, config.seed)), split.validation, split.test)
    not_split = require_rows(split, rows, must_split=must_split)
    report["rows"] = {name: len(getattr(split, name)) for name in ("train", "validation", "test")}
    return Prepared(split, report, provenance, rows, similar, dropped, not_split)


def _clean(
    source: str, read: SourceRows, data: DataSection, report: dict[str, Any], *, several: bool = False
) -> tuple[list[QAPair], dict[str, Any], list[tuple[str, QAPair]]]:
    """Clean rows with their focus, what was counted, and the rows that were left out, by rule.

    What was found and what was left out is said, and added to the notes and warnings of `report`. Raises DataError,
    with the rules that dropped rows, if they dropped them all, or more than half of them for being short.
    """
    found = find_markup(read.pairs, data.markup, data.html)
    # Several sources have told already which of them a note is about.
    notes = [note if several else f"{source}: {note}" for note in read.notes]
    notes += [f"{source}: {line}" for line in found.lines]
    for note in notes:
        say(note)
    least = cleaning.MIN_ANSWER_WORDS if data.min_answer_words is None else data.min_answer_words
    cleaned = cleaning.clean_pairs(found.pairs, least)
    require_long_answers(source, len(read.pairs), cleaned.counts, data.min_answer_words)
    pairs, focus = fill_focus(cleaned.pairs)
    counts = {**read.counts, **found.counts, **cleaned.counts, "focus": focus}
    say(reading_line(source, counts))
    if notes:
        report.setdefault("notes", []).extend(notes)
    if warning := reading_warning(source, counts):
        report.setdefault("warnings", []).append(warning)
    return pairs, counts, [*read.left_out, *cleaned.dropped]


def _split(source: Sequence[QAPair], test: Sequence[QAPair], config: Config, report: dict[str, Any]) -> Split:
    settings = config.data.split
    report["split"] = {"method": settings.method}
    most = settings.most_rows or len(source)
    if settings.method == "column":
        named = sum(named_part(pair) == "train" for pair in source)
        split = split_by_column(source, validation=min(settings.validation, most / max(1, named)), seed=config.seed)
        for part in ("validation", "test"):
            rows = getattr(split, part)
            if len(rows) > most and named_part(rows[0]) == part:
                report["split"][f"{part}_left_out"] = len(rows) - most
                split = replace(split, **{part: rows[:most]})
        report["split"]["validation_from_train"] = all(named_part(pair) != "validation" for pair in source)
        return split
    deal = split_random if settings.method == "random" else split_grouped
    if config.data.test_source is None:
        bound = most / max(1, len(source))
        shares = min(settings.validation, bound), min(settings.test, bound)
        return deal(source, validation=shares[0], test=shares[1], seed=config.seed)
    groups = {pair.group for pair in test}
    left = [pair for pair in source if pair.group not in groups]
    report["removed_for_test_source"] = len(source) - len(left)
    kept = deal(left, validation=min(settings.validation, most / max(1, len(left))), test=0.0, seed=config.seed)
    return Split(kept.train, kept.validation, tuple(test))
