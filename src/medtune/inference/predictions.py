"""One model's answers and reference losses on the test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from medtune.config import Config
from medtune.inference.generation import choose_batch_size, generate_answers
from medtune.inference.preparation import scoring_tokens
from medtune.model.answer_loss import answer_losses
from medtune.progress import progress_bar, say
from medtune.prompts import PromptRenderer
from medtune.records import Prediction, QAPair


def predict(
    model: Any,
    renderer: PromptRenderer,
    pairs: Sequence[QAPair],
    *,
    end_token_ids: Sequence[int],
    batch_size: int | None,
    config: Config,
    examples: Mapping[str, Sequence[QAPair]] = MappingProxyType({}),
) -> tuple[list[Prediction], int]:
    """Answer every question and measure every reference answer; rows come back in the order of `pairs`.

    `examples` maps a row's id to the worked examples that stand before its question.
    Also returns the batch size: `batch_size` if it is given, else what the configuration says or the memory allows.
    Reference losses cover the whole answer and its end token: no length limit cuts what perplexity is about.
    """
    tokenizer = renderer.tokenizer
    rows = renderer.encode_pairs(pairs, examples)
    with progress_bar("Scoring reference answers", len(pairs)) as advance:
        losses = answer_losses(
            model,
            rows,
            tokens_per_batch=scoring_tokens(model, config.training.tokens_per_micro_batch),
            on_rows=advance,
        )
    prompts = [row.input_ids[: row.prompt_length] for row in rows]
    if batch_size is None:
        batch_size = _choose_batch_size(model, prompts, config)
    else:
        say(f"batch size: {batch_size} (that of the other model)")
    with progress_bar("Answering questions", len(pairs)) as advance:
        answers = generate_answers(
            model,
            tokenizer,
            prompts,
            end_token_ids=end_token_ids,
            max_new_tokens=config.generation.max_new_tokens,
            batch_size=batch_size,
            on_rows=advance,
        )
    predictions = [
        Prediction(
            id=pair.id,
            question=pair.question,
            reference=pair.answer,
            prediction=answer.text,
            new_tokens=answer.new_tokens,
            finish_reason=answer.finish_reason,
            reference_nll=loss.nll,
            reference_tokens=loss.tokens,
            group=pair.group,
            qtype=pair.qtype,
        )
        for pair, answer, loss in zip(pairs, answers, losses, strict=True)
    ]
    return predictions, batch_size


def _choose_batch_size(model: Any, prompts: Sequence[list[int]], config: Config) -> int:
    cap, wanted = config.generation.max_new_tokens, config.generation.batch_size
    if wanted != "auto":
        say(f"batch size: {wanted} (asked for)")
        return wanted
    fits = choose_batch_size(model, longest_prompt=max(map(len, prompts)), max_new_tokens=cap)
    say(f"batch size: {fits} (half of the free memory at {cap} new tokens)")
    return fits
