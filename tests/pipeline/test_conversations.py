"""A run on conversations from end to end, and a model that learns to use what was said before the question."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medtune.config.recipes import load_recipe
from medtune.model.loaded import renderer_of
from medtune.pipeline import run as pipeline
from medtune.pipeline.run import perform
from medtune.records import AnswerLoss, QAPair
from medtune.run_dir.directory import RunDir
from tiny_model import Tiny

NAMES = ["gout", "asthma", "eczema", "migraine", "acne", "anemia", "stroke", "mumps", "rickets", "cholera", "measles"]
WORDS = ["red", "blue", "green", "white", "black", "grey", "brown", "pink", "cold", "warm"]


def conversation(number: int) -> dict[str, Any]:
    """Two exchanges; only the first says which medicine the second has to name."""
    name, word = NAMES[number % len(NAMES)], WORDS[(7 * number) % len(WORDS)]
    texts = (
        f"I have {name} of kind {number}, and the {word} medicine is mine.",
        f"I have noted the {word} medicine against {name} of kind {number}.",
        "Which medicine should I take?",
        f"Please take the {word} medicine, which is yours.",
    )
    roles = ("system", "user", "assistant", "user", "assistant")
    return {"messages": [{"role": r, "content": t} for r, t in zip(roles, ("Be brief.", *texts), strict=True)]}


def write_conversations(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps(conversation(number)) + "\n" for number in range(count)), encoding="utf-8")
    return path


def start(folder: Path, base: Path, count: int, **sections: Any) -> RunDir:
    values = {
        "model": {"base": str(base), "dtype": "float32", "quantization": "none"},
        "data": {"source": str(write_conversations(folder / "rows.jsonl", count))},
        "generation": {"max_new_tokens": 16, "batch_size": 8},
        "evaluation": {"metrics": ["bleu", "perplexity"], "controls": ["few_shot", "retrieval"], "resamples": 200},
        **sections,
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(values))
    return pipeline.start_run(load_recipe(str(recipe), []), folder / "run", resume=False)


def test_a_run_on_conversations_answers_and_scores_their_last_turns(tiny: Tiny, tmp_path: Path, caplog: Any) -> None:
    run = start(tmp_path, tiny.path, 40, training={"max_steps": 2, "max_length": 400})
    for stage in ("data", "baseline", "controls", "train", "tuned", "compare"):
        perform(stage, run)
    rows = {pair.id: pair for part in ("train", "validation", "test") for pair in run.read_split(part)}
    assert {(pair.question, len(pair.turns)) for pair in rows.values()} == {("Which medicine should I take?", 3)}
    # "Which medicine should I take?" joins nothing; an equal answer does.
    assert len({pair.group for pair in rows.values()}) == len(WORDS)
    for prediction in run.read_predictions("tuned"):
        assert prediction.reference == rows[prediction.id].answer
        (row,) = renderer_of(run.config).encode_pairs([rows[prediction.id]])
        assert prediction.reference_tokens == len(row.input_ids) - row.prompt_length
    assert "40 conversations in messages, 80 answers, 40 with a system turn of their own" in caplog.text
    assert run.stage_records["train"]["rows"]["train"] == len(run.read_split("train"))


# The stand-in ---------------------------------------------------------------------------------------------------------


def nll(run: RunDir, pairs: list[QAPair]) -> AnswerLoss:
    """Of the last answers, under the tuned model."""
    from medtune.inference.scoring import answer_losses
    from medtune.model.adapters import attach_adapter
    from medtune.model.answer_loss import add_answer_loss
    from medtune.model.loaded import load_model

    loaded = load_model(run.config, for_training=False)
    model = attach_adapter(loaded.model, run.adapter_dir, trainable=False)
    add_answer_loss(model.get_base_model())
    losses = answer_losses(model, loaded.renderer.encode_pairs(pairs), tokens_per_batch=2048)
    return AnswerLoss(sum(loss.nll for loss in losses), sum(loss.tokens for loss in losses))


@pytest.mark.slow
def test_the_stand_in_learns_to_use_what_was_said_before(shared_data: Path, tmp_path: Path) -> None:
    """The second answer names the medicine of the first turn: with another row's turns it is a surprise."""
    base = shared_data.parent / "models" / "standin-16m"
    if not base.is_dir():
        pytest.skip("needs the stand-in model beside the data")
    training = {"max_steps": 24, "learning_rate": 5e-3, "effective_batch_rows": 8, "max_length": 256}
    run = start(tmp_path, base, 240, training={**training, "checkpoint_steps": 6, "validation_limit": 16})
    for stage in ("data", "train"):
        perform(stage, run)
    history = run.read_history()
    validated = [entry["validation_loss"] for entry in history if "validation_loss" in entry]
    test = run.read_split("test")
    others = random.Random(0).sample(test, len(test))
    swapped = [
        replace(pair, turns=other.turns)
        for pair, other in zip(test, others, strict=True)
        if pair.answer != other.answer
    ]
    kept = {pair.id for pair in swapped}
    true, false = nll(run, [pair for pair in test if pair.id in kept]), nll(run, swapped)
    print("validation", validated, "nll a token", true.nll / true.tokens, false.nll / false.tokens)
    assert true.tokens == false.tokens
    assert validated[-1] < 0.5 * validated[0]
    assert true.nll < 0.7 * false.nll
