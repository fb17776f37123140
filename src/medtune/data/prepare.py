"""The data stage: read, clean, group, split, sample; with a count for everything that left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from medtune.config import Config
from medtune.data import cleaning
from medtune.data.sources import read_source
from medtune.data.splits import assign_groups, remove_groups, require_rows, sample_rows, split_grouped
from medtune.records import Split


@dataclass(frozen=True, slots=True)
class Prepared:
    """The splits, the counts behind them, and the identity of the data they came from."""

    split: Split
    report: dict[str, Any]
    provenance: dict[str, Any]


def prepare_data(config: Config) -> Prepared:
    """Rows of `config.data` as train, validation and test. Raises DataError if that cannot be had."""
    data = config.data
    read = read_source(data.source, data.columns, data.revision)
    cleaned = cleaning.clean_pairs(read.pairs)
    report: dict[str, Any] = {
        "cleaning_version": cleaning.VERSION,
        "source": {"unanswered": read.unanswered, **cleaned.counts},
    }
    provenance = {"source": data.source, "revision": read.revision, "fingerprint": read.fingerprint()}
    if data.test_source is None:
        grouped = assign_groups(cleaned.pairs)
        split = split_grouped(grouped, validation=data.split.validation, test=data.split.test, seed=config.seed)
    else:
        test_read = read_source(data.test_source, data.columns)
        taken = {pair.id for pair in cleaned.pairs}
        test_cleaned = cleaning.clean_pairs(
            replace(pair, id=f"test-{pair.id}") if pair.id in taken else pair for pair in test_read.pairs
        )
        report["test_source"] = {"unanswered": test_read.unanswered, **test_cleaned.counts}
        provenance |= {"test_source": data.test_source, "test_fingerprint": test_read.fingerprint()}
        grouped = assign_groups([*cleaned.pairs, *test_cleaned.pairs])
        source, test = grouped[: len(cleaned.pairs)], grouped[len(cleaned.pairs) :]
        left = remove_groups(source, {pair.group for pair in test})
        report["removed_for_test_source"] = len(source) - len(left)
        kept = split_grouped(left, validation=data.split.validation, test=0.0, seed=config.seed)
        split = Split(kept.train, kept.validation, tuple(test))
    split = Split(tuple(sample_rows(split.train, data.train_limit, config.seed)), split.validation, split.test)
    require_rows(split)
    report["rows"] = {name: len(getattr(split, name)) for name in ("train", "validation", "test")}
    return Prepared(split, report, provenance)
