"""What readers of a comparison have to know of its rows: too few groups, references that the cap cuts, leaks, texts."""

from collections.abc import Mapping, Sequence
from textwrap import shorten

from medtune.data.leakage import KIND_NAMES
from medtune.data.splits import ENOUGH_GROUPS
from medtune.evaluation.formatting import format_count, listed, with_article
from medtune.evaluation.headline import CUT_SHARE_WARNING
from medtune.evaluation.significance import fewest_groups
from medtune.evaluation.text_warnings import text_warnings
from medtune.records import Comparison, ComparisonRow, GroupSizes, Score
from medtune.runtime.terminal import one_line

_INDEPENDENT = (
    "Note: no row has a group, so all rows count as independent of each other. If several are about one topic or "
    "document, say which in a field or column `group` of either file; intervals are too narrow without it."
)
_QUESTION_WIDTH = 60


def comparison_warnings(comparison: Comparison) -> list[str]:
    """Sentences on groups, the cap, leaking rows and the texts, in this order; none where there is nothing to say."""
    warnings = []
    rows = comparison.rows
    warnings += _group_warnings(comparison)
    references = comparison.references
    if references is not None and references.share_over_cap > CUT_SHARE_WARNING:
        warnings.append(
            f"Warning: the cap of {references.cap} new tokens cuts {references.share_over_cap:.1%} of the references, "
            "so the overlap scores measure the cap too; raise generation.max_new_tokens and evaluate again."
        )
    if comparison.leaking_rows and rows:
        shares = [f"{KIND_NAMES[kind]} {count / rows[0].n:.1%}" for kind, count in comparison.leaking_rows.items()]
        free = any(stratum.value == "does not leak" for stratum in comparison.strata)
        where = "strata.json has the scores without them" if free else "no test row is free of them"
        warnings.append(
            f"Warning: test rows share things with training rows ({listed(shares)} of the test rows), so that "
            f"remembering passes for answering; {where}."
        )
    return warnings + _cap_warnings(comparison) + text_warnings(_scores_by_name(comparison))


def _scores_by_name(comparison: Comparison) -> dict[str, Mapping[str, Score]]:
    before, after = map(with_article, comparison.names)
    return {
        before: comparison.scores.get("baseline", {}),
        after: comparison.scores.get("tuned", {}),
        **{f"the control {control.name}": control.scores for control in comparison.controls},
    }


def _group_warnings(comparison: Comparison) -> list[str]:
    """Say so where few groups, or a few large ones, carry the intervals, and where no row has a group."""
    groups, primary = comparison.groups, [row for row in comparison.rows if row.is_primary]
    if groups is None or not primary:
        return []
    # A run's rows have groups; those of a file may have none.
    return [*([] if groups.largest else [_INDEPENDENT]), *_few_groups_warnings(groups, primary)]


def _few_groups_warnings(groups: GroupSizes, primary: Sequence[ComparisonRow]) -> list[str]:
    if groups.groups < fewest_groups(len(primary)):
        return [
            f"Warning: {format_count(groups.groups, 'independent group')} of rows cannot carry a verdict on "
            f"{format_count(len(primary), 'primary metric')}; test on at least {fewest_groups(len(primary))} topics."
        ]
    if groups.effective >= ENOUGH_GROUPS:
        return []
    counted = f"the rows fall into {format_count(groups.groups, 'group')}"
    if groups.effective < 0.9 * groups.groups:
        counted += (
            f", which count as {groups.effective:.0f} of equal size: the largest ({_largest(groups)}) holds "
            f"{groups.largest_share:.0%} of the rows"
        )
    return [
        f"Warning: {counted}. With so few, intervals are a little too narrow where a gain comes from a few topics "
        "alone: they cover 92 to 95 % in place of 95 %. Test on more topics."
    ]


def _largest(groups: GroupSizes) -> str:
    """The largest group by its first question, as a run names groups by ids; by its own name if it has no question."""
    if not groups.largest_question:
        return f"group {one_line(groups.largest)}"
    return f'that of "{one_line(shorten(groups.largest_question, _QUESTION_WIDTH, placeholder=" …"))}"'


def _cap_warnings(comparison: Comparison) -> list[str]:
    shares = (comparison.lengths[name].share_at_cap for name in ("baseline", "tuned"))
    over = [
        f"{share:.0%} of the answers of {with_article(name)}"
        for name, share in zip(comparison.names, shares, strict=True)
        if share is not None and share > CUT_SHARE_WARNING
    ]
    if not over:
        return []
    return [
        f"Warning: the cap cut {' and '.join(over)}, "
        "so the overlap scores measure the cap too; raise generation.max_new_tokens and evaluate again."
    ]
