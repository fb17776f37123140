"""The audit as tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import shorten
from typing import TYPE_CHECKING

from medtune.data.audit_record import Audit, LengthDistributions
from medtune.data.leakage import KIND_NAMES, KINDS, NEAR_DUPLICATE
from medtune.runtime.terminal import one_line, print_points

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_audit(audit: Audit, console: Console) -> None:
    """Print the whole audit: cleaning, split, leakage, lengths, and what else was found as sentences."""
    for name, counts in audit.cleaning.items():
        title = "Cleaning" if name == "source" else "Cleaning of the test source"
        _print_section(console, title, _cleaning_table(counts))
    _print_section(console, f"Split, {audit.split.method}", _split_table(audit))
    _print_section(console, f"Lengths in tokens of {audit.lengths.tokenizer}", _length_table(audit.lengths))
    _print_list(console, _findings(audit))
    if audit.split.not_split is None:
        print_leakage(audit, console)
    else:
        _print_list(console, [f"No split: {audit.split.not_split}."])


def print_leakage(audit: Audit, console: Console) -> None:
    """Print the share of the test rows that the model may have seen in training, and in words what that means."""
    _print_section(console, "Share of the test rows with a match in train", leakage_table(audit))
    sentences = leak_sentences(audit)
    if audit.split.validation_from_train:
        rows = audit.split.rows["validation"]
        sentences.append(
            f"The source names no validation rows: whole groups of its training rows, {rows:,}, are taken."
        )
    _print_list(console, sentences)


def leakage_table(audit: Audit) -> Table:
    """The share of the test rows found in train, and in train or validation, in this split and in a random one."""
    method = audit.split.method
    has_random = any(leak.random for leak in audit.leakage.values() if leak)
    titles = [method, "random"] if method != "random" and has_random else [method]
    table = _table("shared", *(name for title in titles for name in (title, "+ validation")))
    total = audit.split.rows["test"]
    for kind in KINDS:
        leak = audit.leakage.get(kind)
        if leak is None:
            table.add_row(KIND_NAMES[kind], *["not given"] * 2 * len(titles))
            continue
        splits = [leak.split, leak.random][: len(titles)]
        found = [shared for split in splits if split for shared in (split.in_train, split.in_train_or_validation)]
        table.add_row(KIND_NAMES[kind], *(f"{shared.share:.1%}" for shared in found))
        if kind == NEAR_DUPLICATE:
            table.add_row("  of which templates", *(f"{(shared.template_rows or 0) / total:.1%}" for shared in found))
    return table


def leak_sentences(audit: Audit) -> list[str]:
    """What the split lets through, in plain words; nothing for a split that leaks nothing but templates."""
    total = audit.split.rows["test"]
    found = {kind: leak.split.in_train for kind, leak in audit.leakage.items() if leak is not None}
    leaks = [
        f"{count / total:.1%} {what}"
        for kind, what in _LEAKS.items()
        if kind in found and (count := found[kind].rows - (found[kind].template_rows or 0))
    ]
    if not leaks:
        return []
    return [
        f"This split ({audit.split.method}) leaks. Among its {total:,} test rows {', '.join(leaks)} with a training "
        "row. Scores on such rows measure what was seen, not what was learnt; data.split.method grouped keeps them "
        "apart."
    ]


_LEAKS = {
    "question_normalized": "share their question",
    NEAR_DUPLICATE: "nearly share their answer",
    "document": "share their document",
    "focus": "share their focus",
}
# A column of free text would fill the screen.
_TYPES = 20


def _print_section(console: Console, title: str, table: Table) -> None:
    # Not the table's own title, which wraps at the table's width.
    console.print(f"\n{title}", style="bold", markup=False, highlight=False)
    console.print(table)


def _print_list(console: Console, sentences: Iterable[str]) -> None:
    print_points(sentences, console)


def _table(first: str, *others: str) -> Table:
    from rich.table import Column, Table

    return Table(first, *(Column(name, justify="right", no_wrap=True) for name in others))


def _cleaning_table(counts: dict[str, int | str]) -> Table:
    table = _table("rule", "rows")
    table.add_row("without an answer", f"{counts['unanswered']:,}")
    for rule, rows in counts.items():
        if rule not in ("unanswered", "focus"):
            table.add_row(rule.replace("_", " "), f"{rows:,}")
    return table


def _split_table(audit: Audit) -> Table:
    from rich.text import Text

    split, types = audit.split, list(audit.counts.types)
    table = _table("type", *split.rows)
    table.add_row("all", *(f"{rows:,}" for rows in split.rows.values()), end_section=True)
    for qtype in types[:_TYPES]:
        counts = (split.types[part].get(qtype, 0) for part in split.rows)
        # Text, not str: a name may hold what rich takes for markup.
        table.add_row(Text(one_line(shorten(qtype, 60)) or "(none)"), *(f"{count:,}" for count in counts))
    if len(types) > _TYPES:
        table.add_row(f"({len(types) - _TYPES} other types)", *[""] * len(split.rows))
    return table


def _length_table(lengths: LengthDistributions) -> Table:
    kinds = (lengths.question, lengths.answer, lengths.row)
    table = _table("", "question", "answer", "row")
    for name in ("mean", "median", "p90", "max"):
        table.add_row(name, *(f"{getattr(kind, name):,}" for kind in kinds))
    for cap in sorted({cap for kind in kinds for cap in kind.over}, key=int):
        shares = (kind.over.get(cap) for kind in kinds)
        table.add_row(f"over {cap}", *("" if share is None else f"{share:.1%}" for share in shares))
    return table


def _findings(audit: Audit) -> list[str]:
    counts, copies, conflicts, cut = audit.counts, audit.duplicates, audit.conflicting_answers, audit.truncation
    oldest = f", and {cut.shortened:,} conversations lose their oldest turns" if cut.shortened else ""
    focus = " and ".join(dict.fromkeys(str(part["focus"]) for part in audit.cleaning.values()))
    return [
        f"Rows kept: {counts.rows:,} with {counts.questions:,} questions ({counts.questions_normalized:,} by "
        f"their words), {counts.answers:,} answers, {counts.documents:,} documents and {counts.focuses:,} "
        f"focus topics ({focus}).",
        f"Groups: {counts.groups:,}; the largest has {counts.largest_group:,} rows.",
        f"{copies.answers_to_several_questions:,} answers serve several questions, one of them "
        f"{copies.most_questions_of_one_answer:,}; {copies.rows_with_near_duplicate_answer:,} rows "
        f"({copies.share_with_near_duplicate_answer:.1%}) have an equal or near-duplicate answer elsewhere, and "
        f"{copies.template_rows:,} rows hold a template.",
        f"{conflicts.questions_exact:,} questions ({conflicts.questions:,} by their words) have several answers, "
        f"{conflicts.most_answers:,} at the most.",
        f"A row is {audit.lengths.row_is}. training.max_length {cut.max_length} ({cut.policy}): of "
        f"{cut.rows:,} training rows {cut.cut:,} are cut, {cut.dropped:,} dropped and {cut.no_room:,} "
        f"leave no room for an answer{oldest}; {cut.tokens_lost:,} of {cut.tokens:,} tokens "
        f"({cut.tokens_lost / max(1, cut.tokens):.1%}) are lost.",
        *(audit.not_computed or ()),
    ]
