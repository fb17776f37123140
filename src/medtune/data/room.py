"""Rows that no length limit can make fit: their prompts alone are too long for training, or for the model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from medtune.config.schema import Config
from medtune.data.left_out import WARNED_SHARE
from medtune.data.preparation import Prepared
from medtune.data.prompts import PromptRenderer
from medtune.data.turns import earlier_exchanges, without_oldest
from medtune.errors import DataError
from medtune.records import QAPair, SplitName
from medtune.runtime.progress import say

RULE = "dropped_prompt_too_long"


def leave_out_unfit(prepared: Prepared, renderer: PromptRenderer, config: Config, positions: int | None) -> Prepared:
    """`prepared` without the rows whose prompts leave no room for an answer; they are said, counted and kept aside.

    In training and validation that is `training.max_length`; in the test it is what the model reads, its `positions`,
    less the longest answer. Raises DataError if a split has no other rows.
    """
    training = training_room(config)
    # A cap that leaves less than half of the context to prompts is what is wrong, and not the rows.
    context = None if positions is None else max(positions - config.generation.max_new_tokens, positions // 2)
    limits: dict[SplitName, int | None] = {"train": training, "validation": training, "test": context}
    counts: dict[str, int] = {}
    dropped: dict[str, QAPair] = {}
    kept: dict[str, tuple[QAPair, ...]] = {}
    for part, limit in limits.items():
        rows: tuple[QAPair, ...] = getattr(prepared.split, part)
        # Training leaves the oldest turns out before it gives a row up.
        asked = rows if part == "test" else [without_oldest(pair, len(earlier_exchanges(pair))) for pair in rows]
        unfit = set() if limit is None else too_long(renderer, asked, limit)
        kept[part] = tuple(pair for pair in rows if pair.id not in unfit)
        dropped |= {pair.id: pair for pair in rows if pair.id in unfit}
        if unfit:
            counts[part] = len(rows) - len(kept[part])
            if not kept[part]:
                problem = f"each of the {len(rows):,} {part} prompts leaves no room for an answer"
                raise DataError("data", problem, f"{_RAISE[part]} or shorten the questions")
    if not counts:
        return prepared
    told = ", ".join(f"{count:,} {part}" for part, count in counts.items())
    line = f"rows left out because their prompts are too long for {_limits(counts)}: {told}"
    say(line)
    split = replace(prepared.split, **kept)
    report = {**prepared.report, RULE: counts, "rows": {name: len(rows) for name, rows in kept.items()}}
    total = sum(len(getattr(prepared.split, part)) for part in limits)
    if sum(counts.values()) > WARNED_SHARE * total:
        report["warnings"] = [
            *report.get("warnings", ()),
            f"{sum(counts.values()) / total:.1%} of the split's rows are lost: {line}.",
        ]
    aside = [*prepared.dropped, *((RULE, pair) for pair in dropped.values())]
    return replace(prepared, split=split, report=report, dropped=aside)


def training_room(config: Config) -> int:
    """The longest prompt in tokens that leaves room for an answer in training."""
    return config.training.max_length - 2  # a token of the answer and the end token


_RAISE: dict[SplitName, str] = {
    "train": "raise training.max_length",
    "validation": "raise training.max_length",
    "test": "lower generation.max_new_tokens",
}


def _limits(counts: Mapping[str, int]) -> str:
    training = "training.max_length" if {"train", "validation"} & counts.keys() else ""
    model = "the model's context and generation.max_new_tokens" if "test" in counts else ""
    return " and ".join(filter(None, (training, model)))


def too_long(renderer: PromptRenderer, rows: Sequence[QAPair], limit: int) -> set[str]:
    """Ids of the rows whose prompt has more than `limit` tokens.

    Only those that could have are encoded: a token takes a byte at least. What turns add is not guessed.
    """
    around = len(renderer.prompt_ids("?"))
    doubtful = [pair for pair in rows if pair.turns or around + len(pair.question.encode()) > limit]
    prompts = renderer.pair_prompts(doubtful)
    return {pair.id for pair, prompt in zip(doubtful, prompts, strict=True) if len(prompt) > limit}
