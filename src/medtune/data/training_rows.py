"""Training rows: encoded, fitted to the length limit, and refused where a model could not learn from them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal, TypeVar

from medtune.data.learned_answers import LossOn, encode_answers, label_answers
from medtune.data.prompts import PromptRenderer
from medtune.data.turns import earlier_exchanges, without_oldest
from medtune.errors import DataError, Problem
from medtune.records import IGNORED, EncodedRow, QAPair

_T = TypeVar("_T")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)|\n")


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows ready for training, and the effect of the length limit on the others.

    `no_room` are rows whose prompt alone leaves no room for a token of the answer: whole, and not among `rows`.
    `shortened` counts conversations without their oldest exchanges, and `taken_apart` those that became a row for each
    answer. `tokens_lost` counts those that would have been learned.
    """

    rows: list[EncodedRow]
    cut: int
    dropped: int
    tokens_lost: int
    no_room: tuple[EncodedRow, ...] = ()
    shortened: int = 0
    taken_apart: int = 0


def encode_for_training(
    renderer: PromptRenderer,
    pairs: Sequence[QAPair],
    *,
    max_length: int,
    overlong: Literal["cut", "drop"],
    loss_on: LossOn = "all",
) -> EncodedRows:
    """Encode rows of at most `max_length` tokens, with labels as `training.loss_on` says.

    An overlong conversation loses its oldest exchanges until it fits. An overlong answer is cut behind its last
    sentence or line that fits and keeps its end token, so that the model seldom learns to stop in mid-sentence; where
    that would cost more than half of what fits, it is cut at a token. Raises DataError, naming rows, if prompts alone
    leave no room for an answer, or if nothing is left.
    """
    encoded = fit_rows(renderer, pairs, max_length=max_length, overlong=overlong, loss_on=loss_on)
    if encoded.no_room:
        longest = max(row.answer_start for row in encoded.no_room)
        problem = f"{_named(encoded.no_room)}: a prompt of up to {longest} tokens leaves no room for an answer"
        raise DataError("training.max_length", problem, f"raise training.max_length above {longest + 1}")
    if not encoded.rows:
        fix = "raise it or set training.overlong to cut"
        raise DataError("training.max_length", f"no row fits in {max_length} tokens", fix)
    return encoded


def fit_rows(
    renderer: PromptRenderer,
    pairs: Sequence[QAPair],
    *,
    max_length: int,
    overlong: Literal["cut", "drop"],
    loss_on: LossOn = "all",
) -> EncodedRows:
    """As `encode_for_training`, but rows that leave no room are returned instead of refused."""
    whole = encode_answers(renderer, pairs, loss_on)
    apart = len({pair.id for pair, row in whole if row.part}) if loss_on == "all" else 0
    over = [row for _, row in whole if len(row.input_ids) > max_length]
    if overlong == "drop":
        kept = [row for _, row in whole if len(row.input_ids) <= max_length]
        return EncodedRows(kept, 0, len(over), sum(row.learned_tokens for row in over), taken_apart=apart)
    shorter = _without_oldest_turns(renderer, whole, max_length, loss_on)
    shortened = sum(new is not old for (_, new), (_, old) in zip(shorter, whole, strict=True))
    over_still = [(pair, row) for pair, row in shorter if len(row.input_ids) > max_length]
    # Room for the end token and for a token before it.
    no_room = [row for _, row in over_still if row.answer_start + 2 > max_length]
    cut = _cut_rows(renderer, [(p, row) for p, row in over_still if row.answer_start + 2 <= max_length], max_length)
    ends = iter(cut)
    fitting = (row for _, row in shorter if len(row.input_ids) <= max_length or row.answer_start + 2 <= max_length)
    rows = [row if len(row.input_ids) <= max_length else next(ends) for row in fitting]
    lost = sum(row.learned_tokens for _, row in whole) - sum(row.learned_tokens for row in (*rows, *no_room))
    return EncodedRows(rows, len(cut), 0, lost, tuple(no_room), shortened, apart)


def _without_oldest_turns(
    renderer: PromptRenderer, whole: Sequence[tuple[QAPair, EncodedRow]], max_length: int, loss_on: LossOn
) -> list[tuple[QAPair, EncodedRow]]:
    """The rows; conversations over `max_length` lose their oldest exchanges until they fit, or have none left."""
    shorter = list(whole)
    over = [place for place, (pair, row) in enumerate(whole) if len(row.input_ids) > max_length and pair.turns]
    surplus = {place: len(whole[place][1].input_ids) - max_length for place in over}
    while over := [place for place in over if surplus[place] > 0 and earlier_exchanges(shorter[place][0])]:
        # A row that was taken apart has one answer to learn, and so has what is left of it.
        for only_last in (True, False):
            places = [place for place in over if whole[place][1].part == only_last]
            pairs = [_without_surplus(renderer, shorter[place][0], surplus[place]) for place in places]
            encoded = label_answers(renderer, pairs, "last" if only_last else loss_on)
            shorter = _replaced(shorter, places, encoded)
        surplus = {place: len(shorter[place][1].input_ids) - max_length for place in over}
    return shorter


def _replaced(rows: list[_T], places: Sequence[int], others: Sequence[_T]) -> list[_T]:
    new = dict(zip(places, others, strict=True))
    return [new.get(place, row) for place, row in enumerate(rows)]


def _without_surplus(renderer: PromptRenderer, pair: QAPair, surplus: int) -> QAPair:
    """`pair` without the oldest exchanges whose texts have `surplus` tokens, or a few less; without one at least."""
    exchanges = earlier_exchanges(pair)
    tokens = renderer.count_tokens([text for exchange in exchanges for text in exchange])
    sums = accumulate(map(sum, zip(tokens[::2], tokens[1::2], strict=True)))
    # With the template's tokens around them, and a few to spare: the next round takes one more if it has to.
    around = renderer.exchange_tokens
    enough = next((n for n, total in enumerate(sums, start=1) if total + n * around >= surplus), len(exchanges))
    return without_oldest(pair, max(1, enough))


def _cut_rows(renderer: PromptRenderer, rows: Sequence[tuple[QAPair, EncodedRow]], max_length: int) -> list[EncodedRow]:
    end, room = renderer.end_token_id, max_length - 1
    cut = [replace(row, input_ids=[*row.input_ids[:room], end], labels=[*row.labels[:room], end]) for _, row in rows]
    whole_sentences = {}
    for place, (pair, row) in enumerate(rows):
        tokens = row.input_ids[row.answer_start : room]
        text = renderer.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        # A first sentence that is a small part of what fits is not worth losing the rest for.
        ends = [match.end() for match in _SENTENCE_END.finditer(text) if match.end() >= len(text) / 2]
        if ends:
            whole_sentences[place] = replace(pair, answer=text[: ends[-1]].strip())
    encoded = renderer.encode_pairs(list(whole_sentences.values()))
    for place, row in zip(whole_sentences, encoded, strict=True):
        if row.answer_start + 1 < len(row.input_ids) <= max_length:
            cut[place] = row
    return cut


def require_sound_rows(rows: Sequence[EncodedRow], renderer: PromptRenderer) -> None:
    """Check the labels and special tokens of rows before any training.

    Raises DataError, a line for each fault that names rows and the fix: a row with two BOS (more than the chat template
    writes by design), with no label at all, or with a learned answer that does not end with the end token.
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
        ): [row for row in rows if row.prompt_length < len(row.labels) and not _ends_answers(row, end)],
    }
    problems = [Problem(f"training {_named(found)}", *fault) for fault, found in faults.items() if found]
    if problems:
        raise DataError.together(problems)


def _ends_answers(row: EncodedRow, end: int) -> bool:
    """Whether the row ends with a label, and every run of labels with the end token."""
    following = [*row.labels[1:], IGNORED]
    ends = [label for label, after in zip(row.labels, following, strict=True) if label != IGNORED == after]
    return row.labels[-1] == end and all(label == end for label in ends)


def _doubles_bos(row: EncodedRow, bos_token_id: int | None, bos_count: int) -> bool:
    if bos_token_id is None:
        return False
    # The last token is left out: in some models one token is both BOS and end token.
    ids = row.input_ids[:-1]
    # A template that opens every turn with BOS (SmolLM2's) writes several, but never two in a row.
    most = bos_count + (row.extra_turns if bos_count > 1 else 0)
    return (bos_token_id, bos_token_id) in pairwise(ids) or ids.count(bos_token_id) > most


def _named(rows: Sequence[EncodedRow]) -> str:
    shown = ", ".join(row.id for row in rows[:5])
    if len(rows) == 1:
        return f"row {shown}"
    return f"rows {shown}" + (f" … ({len(rows)} in all)" if len(rows) > 5 else "")
