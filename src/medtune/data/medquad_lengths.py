"""How long MedQuAD's rows are and how they fall into groups, for plans where the rows are not here; figures, no text.

Lengths are of the prompt in LLaMA-3's layout with the usual system line, and the answer. They were counted with a
vocabulary of 8,192 entries and scaled to 271 tokens an answer, the mean in LLaMA-3's vocabulary: about right for models
of its kind.
"""

from __future__ import annotations

import numpy as np

from medtune.config.schema import Config

SOURCE = "keivalya/MedQuad-MedicalQnADataset"
# Rows with an answer.
ROWS = 16_407
# Tokens at every fortieth of the rows, from the shortest to the longest.
ROW_TOKENS = (
    65, 86, 97, 108, 113, 119, 127, 134, 141, 149, 157, 164, 175, 183, 192, 201, 209, 219, 228, 238, 248, 259, 269, 282,
    296, 311, 329, 343, 357, 371, 388, 406, 429, 454, 487, 528, 583, 661, 791, 1093, 5670,
)  # fmt: skip
# Test rows of the grouped split, and what they count as in groups of equal size.
TEST_ROWS, TEST_GROUPS = 1560, 224.75


def training_tokens(config: Config) -> int:
    """About how many tokens the whole training reads."""
    data, training = config.data, config.training
    share = 1 - data.split.validation - data.split.test
    rows = min(round(ROWS * share), data.train_limit or ROWS)
    places = np.linspace(0, 1, len(ROW_TOKENS))
    lengths = np.interp((np.arange(1000) + 0.5) / 1000, places, ROW_TOKENS)
    if training.overlong == "drop":
        kept = lengths[lengths <= training.max_length]
        rows = round(rows * len(kept) / len(lengths))
    else:
        kept = np.minimum(lengths, training.max_length)
    seen = rows * training.epochs
    if training.max_steps is not None:
        seen = min(seen, training.max_steps * training.effective_batch_rows)
    return int(seen * float(kept.mean())) if len(kept) else 0


def tested(config: Config) -> int:
    """How many test rows are answered."""
    rows = round(ROWS * config.data.split.test)
    return min(rows, config.evaluation.max_examples or rows)
