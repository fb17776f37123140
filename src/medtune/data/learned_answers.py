"""Which answers of a conversation are learned: labels on each of them, or a row for each where that is not sound.

A learned answer has before it what the model is given when it has to write that answer. Where a template writes an
earlier turn otherwise once another question follows, a conversation in one row would break that, and is taken apart.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from medtune.data.prompts import PromptRenderer
from medtune.data.turns import single_answers
from medtune.records import EncodedRow, QAPair

LossOn = Literal["all", "last"]


def encode_answers(
    renderer: PromptRenderer, pairs: Sequence[QAPair], loss_on: LossOn
) -> list[tuple[QAPair, EncodedRow]]:
    """The rows of `pairs` in their order, each with what it encodes: mostly one a pair, or one for each answer."""
    encoded = label_answers(renderer, pairs, loss_on)
    apart = {place: single_answers(pair) for place, (pair, row) in enumerate(encoded) if row.part}
    singles = iter(renderer.encode_pairs([single for parts in apart.values() for single in parts]))
    rows: list[tuple[QAPair, EncodedRow]] = []
    for place, found in enumerate(encoded):
        rows += [(pair, replace(next(singles), part=True)) for pair in apart[place]] if place in apart else [found]
    return rows


def label_answers(
    renderer: PromptRenderer, pairs: Sequence[QAPair], loss_on: LossOn
) -> list[tuple[QAPair, EncodedRow]]:
    """A row for each of `pairs`, with labels on its last answer and, for `all`, on its earlier ones.

    Where these are not in the row as they would be asked for, the row is marked as a `part`, with its last one alone.
    """
    rows = renderer.encode_pairs(pairs)
    if loss_on == "last":
        return list(zip(pairs, rows, strict=True))
    earlier = [single_answers(pair)[:-1] for pair in pairs]
    prompts = iter(renderer.pair_prompts([single for singles in earlier for single in singles]))
    labelled = []
    for pair, row, singles in zip(pairs, rows, earlier, strict=True):
        if not singles:
            labelled.append((pair, row))
            continue
        own = [next(prompts) for _ in singles]
        with_labels = _with_labels(row, own, renderer.end_token_id) if renderer.keeps_turns(pair) else None
        labelled.append((pair, replace(row, part=True) if with_labels is None else with_labels))
    return labelled


def _with_labels(row: EncodedRow, prompts: Sequence[list[int]], end_token_id: int) -> EncodedRow | None:
    """`row` with labels on the answer behind each of `prompts` too; None if it does not begin with one of them."""
    labels = list(row.labels)
    for prompt in prompts:
        start = len(prompt)
        if row.input_ids[:start] != prompt or end_token_id not in row.input_ids[start:]:
            return None
        # A text that spells the end token does not become one, so the next is the template's.
        stop = row.input_ids.index(end_token_id, start) + 1
        labels[start:stop] = row.input_ids[start:stop]
    return replace(row, labels=labels)
