"""Predictions on test rows: what they are made of, and which plans of an earlier process are followed."""

import pytest

from medtune.config.schema import Config
from medtune.data.prompts import PromptRenderer
from medtune.errors import RunDirError
from medtune.inference import predictions
from medtune.inference.predictions import ask_rows
from medtune.model.answer_loss import add_answer_loss
from medtune.model.loaded import LoadedModel
from medtune.records import QAPair
from medtune.run_dir.partial_results import PartialResults
from medtune.runtime.hardware import Choice

PAIRS = [QAPair(f"row{n}", "causes", f"What causes {'gout ' * n}?", "Uric acid.") for n in range(1, 5)]


def config(**generation):
    values = {"model": {"base": "x/y", "quantization": "none"}, "data": {"source": "x"}, "generation": generation}
    return Config.model_validate(values)


@pytest.fixture
def loaded(tiny):
    model = tiny.load()
    add_answer_loss(model)
    choices = {"device": Choice("cpu", ""), "dtype": Choice("float32", ""), "attention": Choice("row-wise SDPA", "")}
    return LoadedModel(model, PromptRenderer(tiny.tokenizer, "Be kind."), [5], None, "tiny", choices)


def predicted(loaded, tmp_path, **options):
    partial = PartialResults(tmp_path / "partial.jsonl", {})
    settings = config(max_new_tokens=4, batch_size=2)
    return ask_rows(loaded, PAIRS, config=settings, partial=partial, **options).predicted()


def test_rows_come_back_in_their_order_with_answers_and_losses(loaded, tmp_path):
    found = predicted(loaded, tmp_path)
    assert [one.id for one in found.predictions] == [pair.id for pair in PAIRS]
    assert all(one.reference_tokens > 1 and one.reference_nll > 0 for one in found.predictions)
    assert all(1 <= one.new_tokens <= 4 for one in found.predictions)
    assert (found.batch_size, found.times_out_of_memory) == (2, 0)


def test_a_batch_size_that_is_given_overrules_the_configuration(loaded, tmp_path):
    assert predicted(loaded, tmp_path, batch_size=3).batch_size == 3


def test_a_model_that_has_answered_is_not_made_ready_again(loaded, tmp_path, monkeypatch):
    first = predicted(loaded, tmp_path)
    (tmp_path / "partial.jsonl").unlink()
    monkeypatch.setattr(predictions, "prepare_inference", None)
    again = predicted(loaded, tmp_path, weights=first.weights)
    assert again == first


def test_what_is_there_is_not_computed_again(loaded, tmp_path, monkeypatch):
    first = predicted(loaded, tmp_path)
    monkeypatch.setattr(predictions, "plan_batches", None)
    monkeypatch.setattr(loaded.model, "forward", None)
    assert predicted(loaded, tmp_path).predictions == first.predictions


@pytest.mark.parametrize("batches", [[[0, 1], [2]], [[0, 1], [2, 2]], [[0, 1], [2, 3], [4]]])
def test_a_plan_that_leaves_rows_out_or_repeats_them_is_damage(loaded, tmp_path, batches):
    partial = PartialResults(tmp_path / "partial.jsonl", {})
    plan = {"weights": {"value": "nf4", "reason": ""}, "batch_size": 2, "passes": [[3, 2, 1, 0]], "batches": batches}
    with pytest.raises(RunDirError, match=r"partial\.jsonl"):
        predictions._restore_plan(plan, partial, 4)
    assert predictions._restore_plan({**plan, "batches": [[1, 0], [2, 3]]}, partial, 4).batch_size == 2
