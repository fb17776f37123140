"""A run whose answers vLLM writes, or a stub in its place: beside our losses, and never beside our answers."""

import gc
import json
import shutil
import weakref
from pathlib import Path

import pytest

from medtune.config.recipes import load_recipe
from medtune.errors import DataError, ModelError, RunDirError
from medtune.evaluation.comparison import compare_measured
from medtune.evaluation.result_files import read_measured
from medtune.evaluation.significance import Subsamples
from medtune.inference.vllm import answering
from medtune.pipeline import engines, evaluate
from medtune.pipeline import run as pipeline
from medtune.pipeline.checks import check_inputs
from medtune.pipeline.run import perform
from medtune.run_dir.directory import RunDir
from stub_vllm import use_stub
from tiny_model import write_rows

ROWS, CAP = 6, 4


@pytest.fixture(scope="module")
def recipe(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    values = {
        "model": {"base": str(tiny.path), "dtype": "float32", "quantization": "none"},
        "data": {"source": str(write_rows(folder / "rows.csv", 30)), "split": {"test": 0.2, "validation": 0.1}},
        "training": {"max_length": 256},
        "generation": {"max_new_tokens": CAP, "engine": "vllm"},
        "evaluation": {
            "metrics": ["bleu", "perplexity"],
            "controls": ["few_shot", "cut_reference", "retrieval"],
            "resamples": 500,
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(values))
    return folder / "recipe.yaml"


def started(recipe: Path, place: Path, engine: str) -> RunDir:
    run_dir = pipeline.start_run(load_recipe(str(recipe), [f"generation.engine={engine}"]), place, resume=False)
    perform("data", run_dir)
    return run_dir


@pytest.fixture(scope="module")
def prepared(recipe, tmp_path_factory) -> Path:
    """With a baseline by vLLM, and what it was asked."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("prepared")
        use_stub(folder / "stub", monkeypatch)
        perform("baseline", started(recipe, folder / "run", "vllm"))
    return folder


@pytest.fixture
def run_dir(prepared, tmp_path) -> RunDir:
    return RunDir(shutil.copytree(prepared / "run", tmp_path / "run"))


@pytest.fixture
def stub(tmp_path, monkeypatch):
    return use_stub(tmp_path / "stub", monkeypatch)


def measured_alike(first: RunDir, second: RunDir) -> None:
    groups = [row.group for row in first.read_predictions("baseline")]
    subsamples = Subsamples.draw(groups, splits=200, seed=0)
    compare_measured(read_measured(first, "baseline"), read_measured(second, "baseline"), subsamples)


def test_the_engine_is_recorded_and_in_the_signature_of_what_it_wrote(prepared):
    run_dir = RunDir(prepared / "run")
    assert run_dir.stage_records["baseline"]["vllm"] == "0.33.0"
    assert run_dir.stage_records["baseline"]["batch_size"] == 128
    scores = run_dir.read_scores("baseline")
    assert f"max_new_tokens:{CAP}|decoding:greedy|engine:vllm" in scores["bleu"].signature
    assert "engine" not in scores["perplexity"].signature  # the losses are ours
    rows = run_dir.read_predictions("baseline")
    assert len(rows) == ROWS
    assert all(row.reference_nll > 0 for row in rows)


def test_answers_of_one_are_not_compared_with_those_of_the_other(prepared, recipe, tmp_path):
    ours = started(recipe, tmp_path / "ours", "medtune")
    perform("baseline", ours)
    assert "engine" not in ours.read_scores("baseline")["bleu"].signature
    assert "vllm" not in ours.stage_records["baseline"]
    theirs = RunDir(prepared / "run")
    measured_alike(theirs, theirs)
    with pytest.raises(DataError) as error:
        measured_alike(ours, theirs)
    assert str(error.value) == (
        "generation.engine: medtune wrote the answers of baseline, vllm those of tuned model: they never compare; "
        "evaluate both again with the same engine"
    )
    config = load_recipe(str(recipe), ["generation.engine=medtune"])
    with pytest.raises(RunDirError, match=r"generation\.engine: 'vllm' → 'medtune'"):
        pipeline.start_run(config, theirs.path, resume=True)


def test_controls_go_through_it_too_and_our_model_is_gone_by_then(run_dir, stub, monkeypatch):
    models, gone = [], []
    load, start = evaluate.load_model, answering.answer_with_vllm

    def loading(*args, **options):
        loaded = load(*args, **options)
        models.append(weakref.ref(loaded.model))
        return loaded

    def starting(*args):
        gc.collect()
        gone.append(models[0]() is None)
        start(*args)

    monkeypatch.setattr(evaluate, "load_model", loading)
    monkeypatch.setattr(answering, "answer_with_vllm", starting)
    perform("controls", run_dir)
    assert gone == [True]
    assert len(stub.requests) == 2 * ROWS  # of the worked examples; nobody asks for the cut reference
    assert all(len(one["prompt"]) > 40 for one in stub.requests)
    record = run_dir.stage_records["controls"]
    assert (record["batch_size"], record["retrieval"]["batch_size"]) == (128, 128)
    for name in ("few_shot", "cut_reference", "retrieval"):
        assert "engine:vllm" in run_dir.read_scores(name)["bleu"].signature


def test_another_version_is_refused_in_a_run_that_has_answers(run_dir, stub, monkeypatch):
    monkeypatch.setenv("STUB_VERSION", "0.34.0")
    with pytest.raises(RunDirError, match=r"baseline stage was answered by vLLM 0\.33\.0, and this is 0\.34"):
        perform("controls", run_dir)
    assert not stub.requests


def test_an_adapter_that_it_does_not_serve_is_refused_before_a_run(recipe, stub):
    check_inputs(load_recipe(str(recipe), []))
    with pytest.raises(ModelError, match=r"^lora: has DoRA, which vLLM .*; leave out generation\.engine$"):
        engines.check_engine(load_recipe(str(recipe), ["lora.dora=true"]))
    with pytest.raises(ModelError, match=r"^lora: has rank 600, which vLLM"):
        engines.check_engine(load_recipe(str(recipe), ["lora.rank=600"]))
