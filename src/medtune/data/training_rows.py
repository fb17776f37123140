"""Training rows: encoded, fitted to the length limit, and refused where a model could not learn from them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from medtune.data.prompts import PromptRenderer
from medtune.errors import DataError, Problem
from medtune.records import EncodedRow, QAPair

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)|\n")


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows ready for training, and the effect of the length limit on the others.

    `no_room` are rows whose prompt alone leaves no room for a token of the answer: whole, and not among `rows`.
    """

    rows: list[EncodedRow]
    cut: int
    dropped: int
    tokens_lost: int
    no_room: tuple[EncodedRow, ...] = ()


def encode_for_training(
    renderer: PromptRenderer, pairs: Sequence[QAPair], *, max_length: int, overlong: Literal["cut", "drop"]
) -> EncodedRows:
    """Encode rows of at most `max_length` tokens.

    An overlong answer is cut behind its last sentence or line that fits and keeps its end token, so that the model
    seldom learns to stop in mid-sentence; where that would cost more than half of what fits, it is cut at a token.
    Raises DataError, naming rows, if prompts alone leave no room for an answer, or if nothing is left.
    """
    encoded = fit_rows(renderer, pairs, max_length=max_length, overlong=overlong)
    if encoded.no_room:
        longest = max(row.prompt_length for row in encoded.no_room)
        problem = f"{_named(encoded.no_room)}: a prompt of up to {longest} tokens leaves no room for an answer"
        raise DataError("training.max_length", problem, f"raise training.max_length above {longest + 1}")
    if not encoded.rows:
        fix = "raise it or set training.overlong to cut"
        raise DataError("training.max_length", f"no row fits in {max_length} tokens", fix)
    return encoded


def fit_rows(
    renderer: PromptRenderer, pairs: Sequence[QAPair], *, max_length: int, overlong: Literal["cut", "drop"]
) -> EncodedRows:
    """As `encode_for_training`, but rows that leave no room are returned instead of refused."""
    whole = renderer.encode_pairs(pairs)
    over = [(pair, row) for pair, row in zip(pairs, whole, strict=True) if len(row.input_ids) > max_length]
    if overlong == "drop":
        kept = [row for row in whole if len(row.input_ids) <= max_length]
        return EncodedRows(kept, 0, len(over), sum(len(row.input_ids) - row.prompt_length for _, row in over))
    # Room for the end token and for a token before it.
    no_room = [row for _, row in over if row.prompt_length + 2 > max_length]
    with_room = [(pair, row) for pair, row in over if row.prompt_length + 2 <= max_length]
    cut = _cut_rows(renderer, with_room, max_length)
    shorter = iter(cut)
    fitting = (row for row in whole if len(row.input_ids) <= max_length or row.prompt_length + 2 <= max_length)
    rows = [row if len(row.input_ids) <= max_length else next(shorter) for row in fitting]
    lost = sum(len(row.input_ids) for _, row in with_room) - sum(len(row.input_ids) for row in cut)
    return EncodedRows(rows, len(cut), 0, lost, tuple(no_room))


def _cut_rows(renderer: PromptRenderer, rows: Sequence[tuple[QAPair, EncodedRow]], max_length: int) -> list[EncodedRow]:
    end, room = renderer.end_token_id, max_length - 1
    cut = [EncodedRow(row.id, [*row.input_ids[:room], end], [*row.labels[:room], end]) for _, row in rows]
    whole_sentences = {}
    for place, (pair, row) in enumerate(rows):
        tokens = row.input_ids[row.prompt_length : room]
        text = renderer.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        # A first sentence that is a small part of what fits is not worth losing the rest for.
        ends = [match.end() for match in _SENTENCE_END.finditer(text) if match.end() >= len(text) / 2]
        if ends:
            whole_sentences[place] = replace(pair, answer=text[: ends[-1]].strip())
    encoded = renderer.encode_pairs(list(whole_sentences.values()))
    for place, row in zip(whole_sentences, encoded, strict=True):
        if row.prompt_length + 1 < len(row.input_ids) <= max_length:
            cut[place] = row
    return cut


def require_sound_rows(rows: Sequence[EncodedRow], renderer: PromptRenderer) -> None:
    """Check the labels and special tokens of rows before any training.

    Raises DataError, a line for each fault that names rows and the fix: a row with two BOS (more than the chat template
    writes by design), with no label at all, or whose labels do not end with the end token.
    """
    bos, end, bos_count = renderer.tokenizer.bos_token_id, renderer.end_token_id, renderer.bos_count
    faults = {
        ("BOS is there twice", "take it out of the tokenizer's chat template, or out of what the tokenizer adds"): [
            row for row in rows if _doubles_bos(row, bos, bos_count)
        ],
        ("no token carries a label, so there is nothing to learn", "raise training.max_length"): [
            row for row in rows if row.prompt_length == len(row.labels)
        ],
        (
            "no end token at the end of the labels, so the model would not learn to stop",
            "use the tokenizer and the chat template of the model's chat variant",
        ): [row for row in rows if row.prompt_length < len(row.labels) and row.labels[-1] != end],
    }
    problems = [Problem(f"training {_named(found)}", *fault) for fault, found in faults.items() if found]
    if problems:
        raise DataError.together(problems)


def _doubles_bos(row: EncodedRow, bos_token_id: int | None, bos_count: int) -> bool:
    if bos_token_id is None:
        return False
    # The last token is left out: in some models one token is both BOS and end token.
    ids = row.input_ids[:-1]
    # A template that opens every turn with BOS (SmolLM2's) writes several, but never two in a row.
    return (bos_token_id, bos_token_id) in pairwise(ids) or ids.count(bos_token_id) > bos_count


def _named(rows: Sequence[EncodedRow]) -> str:
    shown = ", ".join(row.id for row in rows[:5])
    if len(rows) == 1:
        return f"row {shown}"
    return f"rows {shown}" + (f" … ({len(rows)} in all)" if len(rows) > 5 else "")
