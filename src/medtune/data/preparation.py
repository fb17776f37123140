"""The data stage: read, clean, group, split, sample; every row that is left out is counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medtune.config.schema import Config, DataSection
from medtune.data import cleaning
from medtune.data.focus import fill_focus
from medtune.data.near_duplicates import SimilarAnswers, find_similar_answers
from medtune.data.row_markup import find_markup
from medtune.data.sources import SourceRows, read_source
from medtune.data.specific_turns import specific_earlier_answers
from medtune.data.splits import (
    assign_groups,
    named_part,
    require_rows,
    sample_rows,
    split_by_column,
    split_grouped,
    split_random,
)
from medtune.errors import DataError
from medtune.records import QAPair, Split
from medtune.runtime.progress import progress_bar, say


@dataclass(frozen=True, slots=True)
class Prepared:
    """The splits, the counts behind them, and the identity of the data they came from.

    `rows` are all rows that cleaning kept, those of a test source last; `similar` says which have similar answers, in
    the same order. `dropped` are the others as they were read, each with the rule that dropped it.
    """

    split: Split
    report: dict[str, Any]
    provenance: dict[str, Any]
    rows: list[QAPair]
    similar: SimilarAnswers
    dropped: list[tuple[str, QAPair]]


def prepare_data(config: Config) -> Prepared:
    """Rows of `config.data` as train, validation and test. Raises DataError if they cannot be read or split so."""
    data = config.data
    read = read_source(data.source, data.columns, data.revision)
    pairs, counts, dropped = _clean(data.source, read, data)
    report: dict[str, Any] = {"cleaning_version": cleaning.VERSION, "source": counts}
    provenance = {"source": data.source, "revision": read.revision, "fingerprint": read.fingerprint()}
    test: list[QAPair] = []
    if data.test_source is not None:
        test_read = read_source(data.test_source, data.columns)
        taken = {pair.id for pair in read.pairs}
        renamed = [replace(pair, id=f"test-{pair.id}") if pair.id in taken else pair for pair in test_read.pairs]
        test, report["test_source"], test_dropped = _clean(data.test_source, replace(test_read, pairs=renamed), data)
        provenance |= {"test_source": data.test_source, "test_fingerprint": test_read.fingerprint()}
        dropped += test_dropped
    earlier = [specific_earlier_answers(pair) for pair in (*pairs, *test)]
    total = len(earlier) + sum(map(len, earlier))
    with progress_bar("Comparing answers", total, unit="answers") as advance:
        similar = find_similar_answers([pair.answer for pair in (*pairs, *test)], advance, earlier)
    rows = assign_groups([*pairs, *test], similar)
    split = _split(rows[: len(pairs)], rows[len(pairs) :], config, report)
    split = Split(tuple(sample_rows(split.train, data.train_limit, config.seed)), split.validation, split.test)
    require_rows(split)
    report["rows"] = {name: len(getattr(split, name)) for name in ("train", "validation", "test")}
    return Prepared(split, report, provenance, rows, similar, dropped)


def _clean(
    source: str, read: SourceRows, data: DataSection
) -> tuple[list[QAPair], dict[str, Any], list[tuple[str, QAPair]]]:
    """Clean rows with their focus, what was counted, and the dropped rows by rule.

    Raises DataError, with the rules that dropped rows, if they dropped them all.
    """
    found = find_markup(read.pairs, data.markup, data.html)
    for line in (*read.lines, *found.lines):
        say(f"{source}: {line}")
    cleaned = cleaning.clean_pairs(found.pairs)
    if not cleaned.pairs:
        dropped = Counter(rule.replace("_", " ") for rule, _ in cleaned.dropped)
        rules = ", ".join(f"{rule}: {rows:,}" for rule, rows in dropped.items())
        raise DataError(source, f"cleaning left none of its {len(read.pairs):,} rows ({rules})", "check its columns")
    pairs, focus = fill_focus(cleaned.pairs)
    counts = {"unanswered": read.unanswered, **read.counts, **found.counts, **cleaned.counts, "focus": focus}
    return pairs, counts, cleaned.dropped


def _split(source: Sequence[QAPair], test: Sequence[QAPair], config: Config, report: dict[str, Any]) -> Split:
    settings = config.data.split
    report["split"] = {"method": settings.method}
    if settings.method == "column":
        split = split_by_column(source, validation=settings.validation, seed=config.seed)
        report["split"]["validation_from_train"] = all(named_part(pair) != "validation" for pair in source)
        return split
    deal = split_random if settings.method == "random" else split_grouped
    if config.data.test_source is None:
        return deal(source, validation=settings.validation, test=settings.test, seed=config.seed)
    groups = {pair.group for pair in test}
    left = [pair for pair in source if pair.group not in groups]
    report["removed_for_test_source"] = len(source) - len(left)
    kept = deal(left, validation=settings.validation, test=0.0, seed=config.seed)
    return Split(kept.train, kept.validation, tuple(test))
