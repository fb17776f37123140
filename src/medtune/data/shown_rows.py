"""Rows as the model sees them, for people to look at before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from medtune.config.schema import Config
from medtune.data.learned_answers import encode_answers
from medtune.data.preparation import Prepared
from medtune.data.prompts import PromptRenderer
from medtune.data.splits import PARTS
from medtune.data.training_rows import fit_rows
from medtune.errors import DataError, Option
from medtune.records import IGNORED, EncodedRow, QAPair, SplitName
from medtune.runtime.terminal import harmless, one_line

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as training encodes it, and whether it was cut; `encoded` is the whole row where it does not fit at all."""

    part: SplitName
    pair: QAPair
    encoded: EncodedRow
    fate: str


def rows_to_show(
    prepared: Prepared, config: Config, renderer: PromptRenderer, *, count: int, row_id: str | None
) -> list[ShownRow]:
    """The first `count` training rows, or the row of that id, wherever it went.

    Raises DataError if no row has that id, or cleaning dropped it.
    """
    parts = {pair.id: (part, pair) for part in PARTS for pair in getattr(prepared.split, part)}
    if row_id is None:
        return [row for pair in prepared.split.train[:count] for row in _shown("train", pair, config, renderer)]
    if row_id in parts:
        return _shown(*parts[row_id], config, renderer)
    rule = next((rule for rule, pair in prepared.dropped if pair.id == row_id), None)
    if rule is not None:
        problem = f"cleaning dropped that row ({rule.replace('_', ' ')})"
        raise DataError(Option("id", row_id), problem, "give another id")
    if any(pair.id == row_id for pair in prepared.rows):
        problem = "that row is in no split (data.train_limit or data.test_source)"
        raise DataError(Option("id", row_id), problem, "give another")
    fix = ("`medtune data show RECIPE` without ", Option("id"), " shows some")
    raise DataError(Option("id", row_id), "no row has that id", fix)


def _shown(part: SplitName, pair: QAPair, config: Config, renderer: PromptRenderer) -> list[ShownRow]:
    """The row as it is trained on: one, or one for each answer of a conversation that is taken apart."""
    training = config.training
    limit = training.max_length
    fitted = fit_rows(renderer, [pair], max_length=limit, overlong=training.overlong, loss_on=training.loss_on)
    encoded = [row for _, row in encode_answers(renderer, [pair], training.loss_on)]
    if fitted.taken_apart:
        fate = f"one of {len(encoded)} rows, as the chat template writes earlier turns otherwise"
        return [ShownRow(part, pair, row, fate) for row in fitted.rows or encoded]
    whole = encoded[0]
    if not fitted.rows:
        why = "its prompt leaves no room for an answer" if fitted.no_room else "training.overlong is drop"
        return [ShownRow(part, pair, whole, f"not trained on: over training.max_length {limit}, and {why}")]
    turns = "without its oldest turns, " if fitted.shortened else ""
    if fitted.cut or fitted.shortened:
        fate = f"{turns}cut from {len(whole.input_ids)} to fit training.max_length {limit}"
        return [ShownRow(part, pair, fitted.rows[0], fate)]
    return [ShownRow(part, pair, whole, "not cut")]


def print_rows(shown: Sequence[ShownRow], renderer: PromptRenderer, console: Console) -> None:
    """Print rows with every special token, the tokens of the loss in colour, or in ⟦ ⟧ where there is no colour."""
    from rich.text import Text

    colour = console.color_system is not None and not console.no_color
    mark = "green" if colour else "⟦ … ⟧"
    console.print(Text(f"{mark}: the loss looks at these tokens; the rest is the prompt"), soft_wrap=True)
    for row in shown:
        ids = row.encoded.input_ids
        console.print(Text(f"\n── {row.part} row {one_line(row.pair.id)}"), soft_wrap=True)
        # Text, not str: a row may contain rich's markup.
        text = Text()
        for learned, part in _runs(row.encoded):
            decoded = renderer.tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            words = harmless(decoded)
            text.append(words if colour or not learned else f"⟦{words}⟧", "bold green" if learned else "dim")
        console.print(text, soft_wrap=True)
        console.print(Text(f"{len(ids)} tokens, {row.encoded.learned_tokens} in the loss; {row.fate}"), soft_wrap=True)


def _runs(row: EncodedRow) -> list[tuple[bool, list[int]]]:
    """The row's tokens in runs that are in the loss, True, and that are not."""
    labelled = zip(row.input_ids, row.labels, strict=True)
    runs = groupby(labelled, key=lambda token: token[1] != IGNORED)
    return [(learned, [token for token, _ in run]) for learned, run in runs]
