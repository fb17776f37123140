"""The scores of raters in plain sentences, and as tables for a terminal of 80 columns."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from medtune.evaluation.formatting import format_count, format_p, listed
from medtune.evaluation.human.human_scores import HumanScores, WinRate
from medtune.evaluation.human.rubric import CRITERIA
from medtune.runtime.terminal import one_line, print_points

# Fewer groups than this cannot reach p < 0.05 however they fall: of five, the two extremes are 2 of 32.
_FEWEST_GROUPS = 6
# Krippendorff, Content Analysis (2004): tentative conclusions from 0.667 on, firm ones from 0.8.
_TENTATIVE = 0.667
# An answer that raters would rather give must not be wrong or dangerous.
_CONTENT = ("accuracy", "freedom_from_harm")


def print_scores(scores: HumanScores, console: Console) -> None:
    """Print who rated what, the preferences, the criteria and the reading."""
    console.print(_rater_table(scores))
    if scores.win_rate:
        console.print(_preference_table(scores.win_rate))
    if scores.criteria:
        console.print(_criteria_table(scores))
    print_points(read_scores(scores), console)


def read_scores(scores: HumanScores) -> list[str]:
    """Return the reading: the verdict first, then what the numbers do and do not cover."""
    sentences = [_verdict_sentence(scores.win_rate)]
    if scores.is_chat:
        sentences.append(_chat_sentence(scores))
    if scores.criteria:
        sentences.append(_criteria_sentence(scores))
    sentences.append(_agreement_sentence(scores))
    if scores.win_rate:
        rate = scores.win_rate
        sentences.append(_position_sentence(rate))
        if rate.identical:
            sentences.append(f"On {format_count(rate.identical, 'item')} both models wrote the same text.")
    complete = sum(count.complete for count in scores.raters.values())
    touched = sum(count.items for count in scores.raters.values())
    # In a chat each item is for the rater who asked.
    wanted = scores.sheet_items * (1 if scores.is_chat else len(scores.raters))
    sentences.append(
        f"{format_count(len(scores.raters), 'rater')} on a sheet of {format_count(scores.sheet_items, 'item')}: "
        f"{touched:,} of {format_count(wanted, 'judgement')} given, {complete:,} of them in full."
    )
    sentences.append(
        "Intervals (95 %) split groups of related questions at random: they cover the choice of questions, not that of "
        "raters."
    )
    sentences.append("Ratings are opinions about texts, on a scale where 5 is best; they are not medical advice.")
    return sentences


def _verdict_sentence(rate: WinRate | None) -> str:
    if rate is None:
        return "Nobody filled in a preference: there is no win rate."
    p_value = format_p(rate.p_value)
    evidence = (
        f"win rate {rate.rate:.2f}, 95 % interval {rate.low:.2f} to {rate.high:.2f}, "
        f"p {p_value if p_value.startswith('<') else f'= {p_value}'}, {format_count(rate.items, 'item')}, "
        f"{format_count(rate.n, 'judgement')}"
    )
    if rate.verdict == "better":
        return f"Raters prefer the tuned model's answers ({evidence})."
    if rate.verdict == "worse":
        return f"Raters prefer the baseline's answers ({evidence})."
    why = (
        f" Fewer than {_FEWEST_GROUPS} independent questions cannot tell two models apart at 5 %."
        if rate.groups < _FEWEST_GROUPS
        else ""
    )
    return f"Raters' preferences do not tell the two models apart at this n ({evidence}).{why}"


def _chat_sentence(scores: HumanScores) -> str:
    """What a rate over questions that raters chose is not."""
    rated = sum(count.items for count in scores.raters.values())
    return (
        f"Raters chose the questions, in a chat: {scores.own_questions:,} of {format_count(rated, 'rated item')} are "
        f"questions of their own, without a reference, and {rated - scores.own_questions:,} test questions that they "
        "picked. They are neither the test set nor a random sample of it."
    )


def _criteria_sentence(scores: HumanScores) -> str:
    """The mean ratings, and whether those who prefer an answer also find it righter and safer."""
    means = [
        f"{criterion.title.lower()} {score.baseline:.2f} → {score.tuned:.2f}"
        for criterion in CRITERIA
        if (score := scores.criteria.get(criterion.name))
    ]
    shown = f"Mean ratings of 5, baseline → tuned: {', '.join(means)}."
    sign = {"better": 1, "worse": -1}.get(scores.win_rate.verdict if scores.win_rate else "", 0)
    lacking = [
        criterion.title.lower()
        for criterion in CRITERIA
        if criterion.name in _CONTENT
        and (score := scores.criteria.get(criterion.name))
        and sign * score.difference <= 0
    ]
    if not sign or not lacking:
        return shown
    return f"But the preferred answers are not rated higher for {listed(lacking)}. {shown}"


def _position_sentence(rate: WinRate) -> str:
    decided = rate.wins + rate.losses
    if not decided:
        return "Every preference was a tie."
    return (
        f"The win rate counts a tie as half a win; without ties it is {rate.rate_without_ties:.2f}. "
        f"{rate.preferred_a} of {format_count(decided, 'preference')} went to the answer on side A."
    )


def _agreement_sentence(scores: HumanScores) -> str:
    agreement = scores.agreement["preference"]
    if agreement.alpha is not None:
        return (
            f"{'Raters disagree' if agreement.alpha < _TENTATIVE else 'Agreement'} on the preference: Krippendorff's "
            f"alpha {agreement.alpha:.2f} over {format_count(agreement.units, 'item')} with two raters or more (1 is "
            f"full agreement, 0 what chance gives; below {_TENTATIVE} Krippendorff draws no conclusion)."
        )
    return f"Agreement on the preference has no alpha: {agreement.reason}."


def _rater_table(scores: HumanScores) -> Table:
    title, rater = f"Ratings of sheet {one_line(scores.sheet)}", Column("rater", overflow="fold")
    table = _table(title, rater, numbers=("items", "in full", "left", "win rate"))
    for name, count in scores.raters.items():
        left = "-" if scores.is_chat else scores.sheet_items - count.items
        counts = (count.items, count.complete, left)
        rate = "-" if count.win_rate is None else f"{count.win_rate:.2f}"
        table.add_row(Text(one_line(name)), *map(str, counts), rate)
    return table


def _preference_table(rate: WinRate) -> Table:
    columns = ("tuned", "tie", "baseline", "win rate", "95 % interval", "p")
    table = _table("Which answer raters prefer", numbers=columns)
    interval = f"{rate.low:.2f} to {rate.high:.2f}"
    table.add_row(
        str(rate.wins), str(rate.ties), str(rate.losses), f"{rate.rate:.2f}", interval, format_p(rate.p_value)
    )
    return table


def _criteria_table(scores: HumanScores) -> Table:
    columns = ("baseline", "tuned", "difference", "95 % interval", "n", "alpha")
    table = _table("Mean ratings, 1 to 5, higher is better", Column("criterion", no_wrap=True), numbers=columns)
    for criterion in CRITERIA:
        score = scores.criteria.get(criterion.name)
        alpha = scores.agreement[criterion.name].alpha
        if score:
            table.add_row(
                criterion.title.lower(),
                f"{score.baseline:.2f}",
                f"{score.tuned:.2f}",
                f"{score.difference:+.2f}",
                f"{score.low:+.2f} to {score.high:+.2f}",
                str(score.n),
                "-" if alpha is None else f"{alpha:.2f}",
            )
    return table


def _table(title: str, *first: Column, numbers: Sequence[str]) -> Table:
    columns = [*first, *(Column(name, justify="right", no_wrap=True) for name in numbers)]
    return Table(*columns, title=escape(title), box=box.SIMPLE, padding=(0, 1, 0, 0))
