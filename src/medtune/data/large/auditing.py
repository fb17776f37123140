"""The audit of streamed data: exact counts, lengths from a sample, and in words what is left out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medtune.config.schema import Config
from medtune.data.audit import length_distributions
from medtune.data.audit_record import (
    Audit,
    AuditCounts,
    AuditSplit,
    ConflictCounts,
    DuplicateCounts,
    KindLeakage,
    SharedRows,
    SharedWith,
)
from medtune.data.large import arrays
from medtune.data.large.grouping import focus_kind
from medtune.data.large.preparation import Streamed
from medtune.data.large.writing import Tables
from medtune.data.leakage import KINDS, NEAR_DUPLICATE
from medtune.data.near_duplicates import SimilarAnswers
from medtune.data.preparation import Prepared
from medtune.data.prompts import PromptRenderer
from medtune.data.splits import PARTS, TEMPLATE_QUESTIONS, TEMPLATE_TOPICS
from medtune.data.token_lengths import row_lengths
from medtune.records import Split, SplitName

# Rows whose lengths in tokens are counted.
SAMPLE = 5_000


def audit_streamed(
    streamed: Streamed, tables: Tables, config: Config, renderer: PromptRenderer | None, rows: dict[SplitName, int]
) -> Audit:
    """Audit the rows of `streamed` and their split, which has so many `rows` in each part in the end."""
    sample = np.unique(np.linspace(0, streamed.found.rows - 1, SAMPLE).astype(np.int64))
    pairs = tables.pairs(sample.tolist())
    train = tuple(pair for pair, code in zip(pairs, streamed.dealt.codes[sample], strict=True) if code == 0)
    sampled = Prepared(Split(train, (), ()), {}, {}, pairs, SimilarAnswers([], []), [])
    lengths = row_lengths(sampled, config, renderer)
    leakage = _Leakage(streamed)
    report = streamed.report
    return Audit(
        source=streamed.provenance["source"],
        cleaning={"source": report["source"]},
        split=AuditSplit(
            method=report["split"]["method"],
            validation_from_train=report["split"].get("validation_from_train"),
            rows={str(part): count for part, count in rows.items()},
            types=_types(streamed),
        ),
        counts=_counts(streamed),
        duplicates=_duplicates(streamed),
        conflicting_answers=_conflicts(streamed),
        lengths=length_distributions(lengths, config),
        truncation=lengths.truncation,
        leakage=leakage.table(),
        leaking_test_rows=leakage.ids(tables),
        not_computed=_not_computed(streamed, len(pairs)),
    )


def _not_computed(streamed: Streamed, sampled: int) -> list[str]:
    searched = streamed.groups.searched
    lines = [
        "A random split of the same rows is not made for comparison, nor are examples of conflicting answers given."
    ]
    if sampled < streamed.found.rows:
        lines.append(f"Lengths, and what is cut of training rows, are those of {sampled:,} rows, spread over all.")
    if searched.not_searched:
        lines.append(
            f"Near-duplicates were not looked for among {searched.not_searched:,} different answers: equal ones alone "
            "are joined and counted."
        )
    elif streamed.report["rows"]["train"] < streamed.dealt.rows["train"]:
        lines.append(
            f"Shared rows are counted among all {streamed.dealt.rows['train']:,} training rows, of which "
            f"data.train_limit takes {streamed.report['rows']['train']:,}."
        )
    if not searched.not_searched:
        lines.append("Test rows near a training row's answer include those that are near it through other answers.")
    return lines


def _tally(names: Iterable[str], counts: Any) -> dict[str, int]:
    found = {name: int(count) for name, count in zip(names, counts, strict=True) if count}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _types(streamed: Streamed) -> dict[str, dict[str, int]]:
    found, codes = streamed.found, streamed.dealt.codes
    counts = np.zeros((len(PARTS), len(found.types)), np.int64)
    for start, kinds in arrays.blocks(found.file("type"), np.int32):
        for place in range(len(PARTS)):
            chosen = codes[start : start + len(kinds)] == place
            counts[place] += np.bincount(kinds[chosen], minlength=len(found.types))
    return {part: _tally(found.types, counts[place]) for place, part in enumerate(PARTS)}


def _code_counts(path: Path, size: int) -> Any:
    return sum((np.bincount(codes, minlength=size) for _, codes in arrays.blocks(path, np.int32)), np.zeros(size, int))


def _counts(streamed: Streamed) -> AuditCounts:
    found = streamed.found
    sizes = streamed.groups.groups.sizes(found.file("group_sizes"))
    held = [sizes[start : start + arrays.BLOCK] for start in range(0, found.rows, arrays.BLOCK)]
    sources = dict(zip(found.sources, _code_counts(found.file("source"), len(found.sources)), strict=True))
    sources.pop("", None)
    focus = found.file(focus_kind(found))
    return AuditCounts(
        rows=found.rows,
        questions=arrays.distinct_count(found.file("question_exact")),
        questions_normalized=arrays.distinct_count(found.file("question")),
        answers=arrays.distinct_count(found.file("answer_exact")),
        documents=arrays.distinct_count(found.file("document")),
        focuses=arrays.distinct_count(focus),
        rows_without_focus=sum(int((values == 0).sum()) for _, values in arrays.blocks(focus, np.uint64)),
        groups=sum(int((block > 0).sum()) for block in held),
        largest_group=max(int(block.max()) for block in held),
        types=_tally(found.types, _code_counts(found.file("type"), len(found.types))),
        sources=_tally(sources, sources.values()),
    )


def _duplicates(streamed: Streamed) -> DuplicateCounts:
    found, groups = streamed.found, streamed.groups
    several, most, _ = _partners(found.file("answer_exact"), found.file("question"))
    sizes = groups.clusters.sizes(found.file("cluster_sizes"))
    alike = templates = 0
    for start in range(0, found.rows, arrays.BLOCK):
        cluster = groups.clusters.of(np.arange(start, min(found.rows, start + arrays.BLOCK)))
        alike += int((sizes[cluster] > 1).sum())
        templates += int(groups.template[cluster].sum())
    return DuplicateCounts(
        rows_dropped=found.counts["dropped_duplicate"],
        answers_to_several_questions=several,
        most_questions_of_one_answer=max(1, most),
        rows_with_near_duplicate_answer=alike,
        share_with_near_duplicate_answer=round(alike / found.rows, 4),
        template_rows=templates,
        template_rule=f"{TEMPLATE_TOPICS} topics, or {TEMPLATE_QUESTIONS} questions",
    )


def _partners(first: Path, second: Path) -> tuple[int, int, Any]:
    """How many keys of `first` have several in `second`, the most that one has, and which keys these are."""
    most, keys = 0, [np.empty(0, np.uint64)]
    for one, _ in arrays.distinct_pairs(first, second):
        names, counts = np.unique(one, return_counts=True)
        keys.append(names[counts > 1])
        most = max(most, int(counts.max(initial=0)))
    several = np.concatenate(keys)
    return len(several), most if len(several) else 0, several


def _conflicts(streamed: Streamed) -> ConflictCounts:
    found = streamed.found
    questions, most, several = _partners(found.file("question"), found.file("answer_exact"))
    exact, _, _ = _partners(found.file("question_exact"), found.file("answer_exact"))
    rows = sum(int(np.isin(keys, several).sum()) for _, keys in arrays.blocks(found.file("question"), np.uint64))
    return ConflictCounts(questions=questions, questions_exact=exact, rows=rows, most_answers=most)


@dataclass(frozen=True, slots=True)
class _Shared:
    """Which test rows share something with a training row, and with a training or validation row."""

    train: Any
    both: Any


class _Leakage:
    """What test rows share with training and validation rows, by kind."""

    def __init__(self, streamed: Streamed) -> None:
        self._streamed = streamed
        self._test = np.array(streamed.dealt.test, np.int64)
        found, clusters = streamed.found, streamed.groups.clusters
        self._templates = streamed.groups.template[clusters.of(self._test)] == 1
        files = {
            "question_exact": "question_exact",
            "question_normalized": "question",
            "answer_exact": "answer_exact",
            NEAR_DUPLICATE: "cluster_names",
            "document": "document",
            "focus": focus_kind(found),
        }
        names = found.file("cluster_names")
        names.unlink(missing_ok=True)
        for start in range(0, found.rows, arrays.BLOCK):
            cluster = clusters.of(np.arange(start, min(found.rows, start + arrays.BLOCK)))
            arrays.append(names, (cluster + 1).astype(np.uint64))
        self._shared = {kind: self._find(found.file(files[kind])) for kind in KINDS if self._given(files[kind], kind)}

    def _given(self, name: str, kind: str) -> bool:
        if kind == NEAR_DUPLICATE:
            return not self._streamed.groups.searched.not_searched
        return any(bool(values.any()) for _, values in arrays.blocks(self._streamed.found.file(name), np.uint64))

    def _find(self, path: Path) -> _Shared:
        codes = self._streamed.dealt.codes
        own = arrays.mapped(path, np.uint64, len(codes))[self._test]
        shared = [np.zeros(len(own), bool) for _ in range(2)]
        for start, keys in arrays.blocks(path, np.uint64):
            for place in range(2):
                shared[place] |= np.isin(own, keys[codes[start : start + len(keys)] == place])
        has = own != 0
        return _Shared(shared[0] & has, (shared[0] | shared[1]) & has)

    def table(self) -> dict[str, KindLeakage | None]:
        """For each kind the rows and the share of the test rows; None where the source has no values."""
        return {kind: self._of_kind(kind) if kind in self._shared else None for kind in KINDS}

    def _of_kind(self, kind: str) -> KindLeakage:
        def count(found: Any) -> SharedRows:
            compares = kind in ("answer_exact", NEAR_DUPLICATE)
            templates = int((found & self._templates).sum()) if compares else None
            return SharedRows(int(found.sum()), round(int(found.sum()) / max(1, len(found)), 6), templates)

        shared = self._shared[kind]
        return KindLeakage(SharedWith(count(shared.train), count(shared.both)))

    def ids(self, tables: Tables) -> dict[str, list[str]]:
        """Ids of the test rows that share something with a training row, near-duplicates by template and other."""
        none = np.zeros(len(self._test), bool)
        found = {kind: self._shared[kind].train if kind in self._shared else none for kind in KINDS}
        near = found.pop(NEAR_DUPLICATE)
        found[f"{NEAR_DUPLICATE}_template"] = near & self._templates
        found[f"{NEAR_DUPLICATE}_other"] = near & ~self._templates
        return {kind: tables.ids(self._test[rows]) for kind, rows in found.items()}
