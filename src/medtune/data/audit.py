"""The audit of a data set and its split: counts, lengths, duplicates, conflicts, leakage and truncation."""

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.config.schema import Config
from medtune.data.audit_record import (
    Audit,
    AuditCounts,
    AuditSplit,
    Conflict,
    ConflictCounts,
    DuplicateCounts,
    LengthDistribution,
    LengthDistributions,
    Truncation,
)
from medtune.data.cleaning import normalize_question
from medtune.data.leakage import Leakage, deal_again, leakage_table, leaking_test_rows
from medtune.data.preparation import Prepared
from medtune.data.splits import PARTS, TEMPLATE_QUESTIONS, TEMPLATE_TOPICS, focus_key
from medtune.data.turns import asked_text
from medtune.errors import DataError, Option
from medtune.records import QAPair
from medtune.storage.writing import replacing_file

LENGTH_CAPS = (128, 256, 512, 1024)
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class RowLengths:
    """Lengths in tokens of `tokenizer`, one of each kind for every row that cleaning kept, in order.

    `rows` are whole rows as `row_is` says: prompt, answer and end token of a chat model, or question and answer.
    """

    tokenizer: str
    row_is: str
    questions: list[int]
    answers: list[int]
    rows: list[int]
    truncation: Truncation


def audit_rows(prepared: Prepared, lengths: RowLengths, config: Config) -> Audit:
    """Audit the rows of `prepared`, the split as it is trained on beside a random one of the same rows and sizes."""
    rows, split, report = prepared.rows, prepared.split, prepared.report
    leakage = Leakage(rows, prepared.similar)
    types: dict[str, dict[str, int]] = {part: _tally(pair.qtype for pair in getattr(split, part)) for part in PARTS}
    return Audit(
        source=prepared.provenance["source"],
        cleaning={name: report[name] for name in ("source", "test_source") if name in report},
        split=AuditSplit(**report["split"], rows=report["rows"], types=types, not_split=prepared.not_split or None),
        counts=_counts(rows),
        duplicates=_duplicates(prepared),
        conflicting_answers=_conflicts(rows),
        lengths=length_distributions(lengths, config),
        truncation=lengths.truncation,
        leakage=leakage_table(leakage, split, deal_again(split, config.seed)),
        leaking_test_rows=leaking_test_rows(leakage, split),
    )


def write_audit(audit: Audit, path: Path) -> None:
    """Write the audit as JSON. Raises DataError if it cannot be written there."""
    try:
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(audit.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(Option("out", path), f"cannot be written ({error.strerror})", "give another file") from None


def _counts(rows: Sequence[QAPair]) -> AuditCounts:
    groups = Counter(pair.group for pair in rows)
    return AuditCounts(
        rows=len(rows),
        questions=len({pair.question for pair in rows}),
        questions_normalized=len({normalize_question(pair.question) for pair in rows}),
        answers=len({pair.answer for pair in rows}),
        documents=len({pair.document_id for pair in rows} - {""}),
        focuses=len({focus_key(pair.focus) for pair in rows} - {""}),
        rows_without_focus=sum(not pair.focus for pair in rows),
        groups=len(groups),
        largest_group=max(groups.values()),
        types=_tally(pair.qtype for pair in rows),
        sources=_tally(pair.source for pair in rows if pair.source),
    )


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _duplicates(prepared: Prepared) -> DuplicateCounts:
    rows, similar = prepared.rows, prepared.similar
    near = similar.neighbours()
    copies = Counter(similar.answer_of)
    alike = [answer in near or copies[answer] > 1 for answer in similar.answer_of]
    questions = _gather((pair.answer, normalize_question(asked_text(pair))) for pair in rows)
    several = [asked for asked in questions.values() if len(asked) > 1]
    return DuplicateCounts(
        rows_dropped=sum(rule == "dropped_duplicate" for rule, _ in prepared.dropped),
        answers_to_several_questions=len(several),
        most_questions_of_one_answer=max(map(len, questions.values())),
        rows_with_near_duplicate_answer=sum(alike),
        share_with_near_duplicate_answer=round(sum(alike) / len(rows), 4),
        template_rows=sum(pair.template for pair in rows),
        template_rule=f"{TEMPLATE_TOPICS} topics, or {TEMPLATE_QUESTIONS} questions",
    )


def _conflicts(rows: Sequence[QAPair]) -> ConflictCounts:
    answers = _gather((normalize_question(asked_text(pair)), pair.answer) for pair in rows)
    several = {question: given for question, given in answers.items() if len(given) > 1}
    pairs_of = defaultdict(list)
    for pair in rows:
        if (question := normalize_question(asked_text(pair))) in several:
            pairs_of[question].append(pair)
    most = sorted(several, key=lambda question: (-len(several[question]), question))
    exact = _gather((asked_text(pair), pair.answer) for pair in rows)
    return ConflictCounts(
        questions=len(several),
        questions_exact=sum(len(given) > 1 for given in exact.values()),
        rows=sum(map(len, pairs_of.values())),
        most_answers=max(map(len, several.values()), default=0),
        examples=[
            Conflict(pairs_of[key][0].question, len(several[key]), sorted(pair.id for pair in pairs_of[key]))
            for key in most[:EXAMPLES]
        ],
    )


def _gather(items: Iterable[tuple[str, Hashable]]) -> dict[str, set[Hashable]]:
    found: dict[str, set[Hashable]] = defaultdict(set)
    for key, value in items:
        found[key].add(value)
    return found


def length_distributions(lengths: RowLengths, config: Config) -> LengthDistributions:
    """How long questions, answers and rows are."""
    answer_caps = sorted({*LENGTH_CAPS, config.generation.max_new_tokens})
    row_caps = sorted({*LENGTH_CAPS, config.training.max_length})
    return LengthDistributions(
        tokenizer=lengths.tokenizer,
        row_is=lengths.row_is,
        question=_distribution(lengths.questions, LENGTH_CAPS),
        answer=_distribution(lengths.answers, answer_caps),
        row=_distribution(lengths.rows, row_caps),
    )


def _distribution(tokens: Sequence[int], caps: Iterable[int]) -> LengthDistribution:
    """Mean and nearest-rank percentiles of lengths in tokens, and the share of them over each cap."""
    import numpy as np

    median, p90 = np.quantile(tokens, [0.5, 0.9], method="inverted_cdf")
    return LengthDistribution(
        mean=round(sum(tokens) / len(tokens), 1),
        median=int(median),
        p90=int(p90),
        max=max(tokens),
        over={str(cap): round(sum(n > cap for n in tokens) / len(tokens), 4) for cap in caps},
    )
