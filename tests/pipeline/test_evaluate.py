"""An evaluation stopped anywhere goes on where it was: every artefact is that of one that was not stopped."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medtune.config.recipes import load_recipe
from medtune.data.prompts import PromptRenderer
from medtune.errors import RunDirError
from medtune.inference import fused_model, generation, predictions, scoring
from medtune.model.loaded import renderer_of
from medtune.model.packing import prompts_checksum
from medtune.pipeline import evaluate
from medtune.pipeline import run as pipeline
from medtune.pipeline.evaluate import load_run_model
from medtune.pipeline.run import perform
from medtune.run_dir.directory import RunDir
from medtune.runtime.interruption import Interrupted
from tiny_model import write_rows

# The cap is above the shorter half of the answers: longer ones cannot be worked examples.
ROWS, BATCH, CAP = 10, 3, 30
CONTROLS = ["few_shot", "retrieval", "tuned_retrieval"]


@pytest.fixture(scope="module")
def prepared(tiny, tmp_path_factory) -> Path:
    """A run with data and nothing else, whose answers come in four batches and losses in several passes."""
    folder = tmp_path_factory.mktemp("prepared")
    values = {
        "model": {"base": str(tiny.path), "dtype": "float32"},
        "data": {"source": str(write_rows(folder / "rows.csv", 50)), "split": {"test": 0.2, "validation": 0.1}},
        "training": {"tokens_per_micro_batch": 500, "max_length": 256},
        "generation": {"max_new_tokens": CAP, "batch_size": BATCH},
        "evaluation": {"metrics": ["bleu", "perplexity"], "controls": CONTROLS, "resamples": 500},
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(values))
    run_dir = pipeline.start_run(load_recipe(str(recipe), []), folder / "run", resume=False)
    perform("data", run_dir)
    assert len(run_dir.read_split("test")) == ROWS
    return run_dir.path


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory) -> RunDir:
    run_dir = RunDir(shutil.copytree(prepared, tmp_path_factory.mktemp("uninterrupted") / "run"))
    perform("baseline", run_dir)
    perform("controls", run_dir)
    return run_dir


@pytest.fixture
def run_dir(prepared, tmp_path) -> RunDir:
    return RunDir(shutil.copytree(prepared, tmp_path / "run"))


@pytest.fixture(autouse=True)
def read_every_pass(monkeypatch) -> None:
    monkeypatch.setattr(scoring, "SECONDS_PER_LOOK", 0)


class Calls:
    """Counts the calls of a function, and raises at one of them."""

    def __init__(self, monkeypatch, owner, name, *, at=None, after=False):
        self.count, self.at, self.after = 0, at, after
        self.function = getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *args, **options):
        self.count += 1
        if self.count == self.at and not self.after:
            raise Interrupted(15)
        result = self.function(*args, **options)
        if self.count == self.at:
            raise Interrupted(15)
        return result


PASS = (scoring, "sums_if_they_fit")
DECODED = (generation, "_decode_if_it_fits")


def artefacts(run_dir: RunDir, system="baseline") -> dict[str, bytes]:
    files = run_dir.predictions_file(system), run_dir.scores_file(system), run_dir.row_statistics_file(system)
    return {file.name: file.read_bytes() for file in files}


def stages(run_dir: RunDir, name: str) -> dict:
    """What provenance tells of a stage, except when it ended, what it cost and how much memory was free."""
    record = dict(run_dir.stage_records[name])
    record["choices"] = {name: choice["value"] for name, choice in record["choices"].items()}
    differing = ("ended", "seconds", "peak_rss_bytes", "peak_gpu_bytes")
    return {key: value for key, value in record.items() if key not in differing}


def entries(run_dir: RunDir, system="baseline") -> list[dict]:
    return [json.loads(line) for line in run_dir.partial_file(system).read_text().splitlines()[1:]]


def passes_of(run_dir: RunDir) -> int:
    return len(json.loads(run_dir.partial_file("baseline").read_text().splitlines()[0])["plan"]["passes"])


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("place", "at"), [(PASS, 1), (PASS, 2), (DECODED, 1), (DECODED, 3), (DECODED, 4)])
def test_stopped_at_any_batch_it_goes_on_as_if_it_had_not(run_dir, uninterrupted, monkeypatch, capfd, place, at, after):
    with monkeypatch.context() as patch:
        stopped = Calls(patch, *place, at=at, after=after)
        with pytest.raises(Interrupted):
            perform("baseline", run_dir)
        assert stopped.count == at
    assert not run_dir.scores_file("baseline").exists()
    passes = passes_of(run_dir)
    assert passes > 2, "the test needs several"
    scored = at - 1 if place is PASS else passes
    answered = at - 1 if place is DECODED else 0
    assert len(entries(run_dir)) == scored + answered
    capfd.readouterr()
    more_passes, more_batches = Calls(monkeypatch, *PASS), Calls(monkeypatch, *DECODED)
    perform("baseline", run_dir)
    assert (more_passes.count, more_batches.count) == (passes - scored, 4 - answered)
    assert artefacts(run_dir) == artefacts(uninterrupted)
    assert stages(run_dir, "baseline") == stages(uninterrupted, "baseline")
    assert not run_dir.partial_file("baseline").exists()
    said = f"resuming: {10 if place is DECODED else ''}"
    assert (said in capfd.readouterr().err) == (scored > 0)


def test_stopped_while_it_measures_nothing_is_answered_again(run_dir, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        Calls(patch, evaluate, "measure_systems", at=1)
        with pytest.raises(Interrupted):
            perform("baseline", run_dir)
    passes, batches = Calls(monkeypatch, *PASS), Calls(monkeypatch, *DECODED)
    perform("baseline", run_dir)
    assert passes.count == batches.count == 0
    assert artefacts(run_dir) == artefacts(uninterrupted)


@pytest.mark.parametrize(("control", "at"), [("few_shot", 3), ("retrieval", 4 + 3)])
def test_the_controls_that_a_model_writes_go_on_too(run_dir, uninterrupted, monkeypatch, control, at):
    perform("baseline", run_dir)
    with monkeypatch.context() as patch:
        Calls(patch, *DECODED, at=at)
        with pytest.raises(Interrupted):
            perform("controls", run_dir)
    assert run_dir.partial_file(control).is_file()
    batches = Calls(monkeypatch, *DECODED)
    perform("controls", run_dir)
    assert batches.count == 2 * 4 - at + 1
    for name in ("few_shot", "retrieval"):
        assert artefacts(run_dir, name) == artefacts(uninterrupted, name)
        assert not run_dir.partial_file(name).exists()
    assert stages(run_dir, "controls") == stages(uninterrupted, "controls")
    assert not run_dir.scores_file("tuned_retrieval").exists(), "there is no tuned model yet"


def with_adapter(run_dir, tiny, folder: Path) -> RunDir:
    """The run as if it had been made with an adapter that is there."""
    from medtune.config.training import LoraSection
    from medtune.model.adapters import attach_new_adapter

    model = attach_new_adapter(tiny.load(), LoraSection(), 0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero in a new one, which would change no answer
            torch.nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(folder)
    run_dir.config_file.write_text(run_dir.config_file.read_text().replace("adapter: null", f"adapter: {folder}"))
    return RunDir(run_dir.path)


def test_the_tuned_model_answers_with_retrieval_in_its_own_stage(run_dir, uninterrupted, tiny, tmp_path, monkeypatch):
    run_dir = with_adapter(run_dir, tiny, tmp_path / "adapter")
    whole = RunDir(shutil.copytree(run_dir.path, tmp_path / "whole"))
    perform("tuned", whole)
    assert whole.damage("tuned") is None
    record = whole.stage_records["tuned"]
    assert {f"controls/tuned_retrieval/{name}" for name in artefacts(whole, "tuned_retrieval")} <= set(record["files"])
    assert record["tuned_retrieval"] == {
        "questions_with_fewer_examples": 0, "batch_size": BATCH, "times_out_of_memory": 0,
    }  # fmt: skip
    answers = {name: whole.read_predictions(name) for name in ("tuned", "tuned_retrieval")}
    for field in ("prediction", "reference_nll"):
        told = {name: [getattr(row, field) for row in rows] for name, rows in answers.items()}
        assert told["tuned"] != told["tuned_retrieval"]
        assert told["tuned_retrieval"] != [getattr(row, field) for row in uninterrupted.read_predictions("retrieval")]
    with monkeypatch.context() as patch:
        Calls(patch, *DECODED, at=4 + 2)
        with pytest.raises(Interrupted):
            perform("tuned", run_dir)
    assert run_dir.partial_file("tuned_retrieval").is_file()
    batches = Calls(monkeypatch, *DECODED)
    perform("tuned", run_dir)
    assert batches.count == 3
    for name in ("tuned", "tuned_retrieval"):
        assert artefacts(run_dir, name) == artefacts(whole, name)
        assert not run_dir.partial_file(name).exists()
    whole.scores_file("tuned_retrieval").unlink()
    assert whole.damage("tuned") == "controls/tuned_retrieval/scores.json is missing"


@pytest.mark.parametrize("stage", ["controls", "tuned"])
def test_a_stage_loads_and_prepares_its_model_once(uninterrupted, tiny, tmp_path, monkeypatch, stage):
    run_dir = RunDir(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    run_dir = with_adapter(run_dir, tiny, tmp_path / "adapter")
    loaded, prepared = Calls(monkeypatch, evaluate, "load_model"), Calls(monkeypatch, predictions, "prepare_inference")
    perform(stage, run_dir, again=True)
    assert (loaded.count, prepared.count) == (1, 1)


def asked_with(run_dir, stage, monkeypatch) -> list[dict[str, list]]:
    """The examples that a stage gives its questions, pass by pass."""
    given = []

    def spied(*args, examples=None, **options):
        given.append(examples or {})
        return predictions_predict(*args, **options, **({"examples": examples} if examples else {}))

    predictions_predict = predictions.ask_rows
    monkeypatch.setattr(predictions, "ask_rows", spied)
    perform(stage, run_dir, again=True)
    return given


@pytest.mark.parametrize("most", [1, 4])
def test_what_is_retrieved_are_training_rows_alone_and_so_many(uninterrupted, tmp_path, monkeypatch, most):
    """Other rows of the test and validation splits ask nearly the same here."""
    run_dir = RunDir(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    run_dir.config_file.write_text(run_dir.config_file.read_text().replace("retrieved: 3", f"retrieved: {most}"))
    few_shot, retrieved = asked_with(RunDir(run_dir.path), "controls", monkeypatch)
    train = run_dir.read_split("train")
    for examples, count in ((few_shot, 3), (retrieved, most)):
        assert list(examples) == [row.id for row in run_dir.read_split("test")]
        assert {len(rows) for rows in examples.values()} == {count}
        assert all(row in train for rows in examples.values() for row in rows)
    assert few_shot != retrieved


def test_what_was_chosen_by_free_memory_stays_when_there_is_less(run_dir, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        Calls(patch, *DECODED, at=3)
        with pytest.raises(Interrupted):
            perform("baseline", run_dir)
    kept = run_dir.partial_file("baseline").read_bytes()
    for module, name in ((predictions, "choose_batch_size"), (predictions, "scoring_tokens")):
        monkeypatch.setattr(module, name, lambda *args, **options: 1)
    monkeypatch.setattr(fused_model, "_choose_weights", lambda *args: pytest.fail("chosen again"))
    with monkeypatch.context() as patch:
        Calls(patch, *DECODED, at=2)
        with pytest.raises(Interrupted):
            perform("baseline", run_dir)
    assert run_dir.partial_file("baseline").read_bytes().startswith(kept)
    perform("baseline", run_dir)
    assert artefacts(run_dir) == artefacts(uninterrupted)


def test_less_memory_than_the_kept_weights_take_is_said(run_dir, monkeypatch):
    from medtune.errors import ModelError

    with monkeypatch.context() as patch:
        Calls(patch, *DECODED, at=1)
        with pytest.raises(Interrupted):
            perform("baseline", run_dir)
    monkeypatch.setattr(fused_model, "free_bytes", lambda device: 10)
    with pytest.raises(ModelError, match=r"of dequantised weights, with which these answers were begun, do not fit in"):
        perform("baseline", run_dir)
    assert run_dir.partial_file("baseline").is_file()


def test_a_torn_line_is_computed_again(run_dir, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        Calls(patch, *DECODED, at=3)
        with pytest.raises(Interrupted):
            perform("baseline", run_dir)
    file = run_dir.partial_file("baseline")
    file.write_bytes(file.read_bytes()[:-9])
    batches = Calls(monkeypatch, *DECODED)
    perform("baseline", run_dir)
    assert batches.count == 3
    assert artefacts(run_dir) == artefacts(uninterrupted)


@pytest.mark.parametrize(
    ("key", "before", "after", "name"),
    [
        ("max_new_tokens: 30", "max_new_tokens: 30", "max_new_tokens: 9", "generation"),
        ("system_prompt", "system_prompt: ", "system_prompt: Now ", "rows or prompts"),
        ("dtype", "dtype: float32", "dtype: bfloat16", "dtype"),
    ],
)
def test_answers_of_something_else_are_thrown_away(run_dir, monkeypatch, facts, capfd, key, before, after, name):
    facts.cpu(amx=True)  # without matrix units bfloat16 would fall back to float32, which is no change
    with monkeypatch.context() as patch:
        Calls(patch, *DECODED, at=3)
        with pytest.raises(Interrupted):
            perform("baseline", run_dir)
    config = run_dir.config_file.read_text()
    assert key in config
    run_dir.config_file.write_text(config.replace(before, after))
    capfd.readouterr()
    batches = Calls(monkeypatch, *DECODED)
    perform("baseline", RunDir(run_dir.path))
    assert batches.count == 4
    file = run_dir.partial_file("baseline")
    assert f"{file}: begun with another {name}, thrown away; all rows are computed again" in capfd.readouterr().err


def test_in_bfloat16_it_goes_on_as_if_it_had_not_stopped(run_dir, tmp_path, monkeypatch, facts):
    facts.cpu(amx=True)
    run_dir.config_file.write_text(run_dir.config_file.read_text().replace("dtype: float32", "dtype: bfloat16"))
    run_dir, whole = RunDir(run_dir.path), RunDir(shutil.copytree(run_dir.path, tmp_path / "whole"))
    perform("baseline", whole)
    for place, at in ((PASS, 2), (DECODED, 3)):
        with monkeypatch.context() as patch:
            Calls(patch, *place, at=at)
            with pytest.raises(Interrupted):
                perform("baseline", run_dir)
    perform("baseline", run_dir)
    assert artefacts(run_dir) == artefacts(whole)
    assert whole.stage_records["baseline"]["choices"]["dtype"]["value"] == "bfloat16"


def test_answers_of_another_adapter_are_thrown_away(run_dir, tiny, tmp_path, monkeypatch, capfd):
    from medtune.config.training import LoraSection
    from medtune.model.adapters import attach_new_adapter

    for seed in (0, 1):
        attach_new_adapter(tiny.load(), LoraSection(), seed).save_pretrained(tmp_path / f"adapter-{seed}")
    shutil.copytree(tmp_path / "adapter-0", tmp_path / "adapter")
    config = run_dir.config_file.read_text()
    run_dir.config_file.write_text(config.replace("adapter: null", f"adapter: {tmp_path / 'adapter'}"))
    run_dir = RunDir(run_dir.path)
    for _ in range(2):
        with monkeypatch.context() as patch:
            Calls(patch, *DECODED, at=2)
            with pytest.raises(Interrupted):
                perform("tuned", run_dir)
    assert "thrown away" not in capfd.readouterr().err
    shutil.copytree(tmp_path / "adapter-1", tmp_path / "adapter", dirs_exist_ok=True)
    perform("tuned", run_dir)
    assert "begun with another adapter, thrown away" in capfd.readouterr().err


def test_another_base_of_the_same_name_is_told_by_every_later_stage(uninterrupted, tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    run_dir = RunDir(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    identity = run_dir.stage_records["controls"]["base_identity"]
    assert identity == run_dir.stage_records["baseline"]["base_identity"]
    base = shutil.copytree(tiny.path, tmp_path / "base")
    run_dir.config_file.write_text(run_dir.config_file.read_text().replace(str(tiny.path), str(base)))
    # As if the run had been made with this folder.
    run_dir.provenance_file.write_text(run_dir.provenance_file.read_text().replace(str(tiny.path), str(base)))
    run_dir = RunDir(run_dir.path)
    load_run_model(run_dir, {}, for_training=False)
    weights = base / "model.safetensors"
    save_file({name: weight * 2 for name, weight in load_file(weights).items()}, weights, {"format": "pt"})
    with pytest.raises(RunDirError, match=f"{base} has changed since the baseline stage; put the model that was there"):
        perform("train", run_dir)
    # Versions that recorded nothing of it go on.
    run_dir.provenance_file.write_text(run_dir.provenance_file.read_text().replace("base_identity", "older"))
    load_run_model(RunDir(run_dir.path), {}, for_training=False)


def test_both_models_see_the_same_prompts(uninterrupted, tmp_path, monkeypatch):
    """A template that prints the date has that of the run's start, whenever a stage runs."""
    records = uninterrupted.stage_records
    checksum = records["baseline"]["prompts_sha256"]
    assert records["controls"]["prompts_sha256"] == checksum
    prompts = uninterrupted_prompts(uninterrupted)
    assert checksum == prompts_checksum(prompts)
    run_dir = RunDir(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    monkeypatch.setattr(PromptRenderer, "pair_prompts", lambda *_: [[*ids, 1] for ids in prompts])
    expected = (
        f"{run_dir.path}: the prompts of the test rows are not those of the controls stage: the tokenizer or chat "
        f"template of {run_dir.config.model.base} has changed, or the template prints a date or anything else that "
        "changes; restore its files, or start a new run in another --run-dir"
    )
    with pytest.raises(RunDirError, match="not those of the baseline stage"):
        perform("controls", run_dir, again=True)
    with pytest.raises(RunDirError) as error:
        perform("baseline", run_dir, again=True)
    assert str(error.value) == expected
    # Versions that recorded none go on.
    provenance = run_dir.provenance_file.read_text()
    run_dir.provenance_file.write_text(provenance.replace("prompts_sha256", "older"))
    perform("baseline", RunDir(run_dir.path), again=True)


def uninterrupted_prompts(run_dir: RunDir) -> list[list[int]]:
    renderer = renderer_of(run_dir.pinned_config)
    return [renderer.prompt_ids(row.question) for row in run_dir.read_split("test")]


def test_text_that_is_no_answer_is_counted_and_told(run_dir, monkeypatch, capfd):
    answer = generation.answer_of

    def thinking(*arguments):
        found = answer(*arguments)
        return replace(found, text=f"<think>\n\n</think>\n\n{found.text}")

    monkeypatch.setattr(generation, "answer_of", thinking)
    perform("baseline", run_dir)
    assert run_dir.stage_records["baseline"]["not_answer"] == {
        "baseline": {"answers": {"reasoning": ROWS}, "references": {}}
    }
    told = f"text that is not the answer was left out before scoring: reasoning in {ROWS} answers of baseline."
    assert told in capfd.readouterr().err
    assert all("<think>" in row.prediction for row in run_dir.read_predictions("baseline"))


def test_a_file_left_behind_by_a_complete_stage_is_taken_away(uninterrupted):
    for system, stage in (("baseline", "baseline"), ("few_shot", "controls"), ("retrieval", "controls")):
        uninterrupted.partial_file(system).write_text("{}\n")
        perform(stage, uninterrupted)
        assert not uninterrupted.partial_file(system).exists()


def scarce(monkeypatch, rows):
    """Memory for so many questions at once."""
    decode = generation.DynamicDecoder.decode

    def limited(self, prompts):
        if len(prompts) > rows:
            raise torch.OutOfMemoryError
        return decode(self, prompts)

    monkeypatch.setattr(generation.DynamicDecoder, "decode", limited)


def test_the_plan_that_memory_forced_is_kept(run_dir, prepared, tmp_path, monkeypatch, capfd):
    whole = RunDir(shutil.copytree(prepared, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        scarce(patch, 2)
        perform("baseline", whole)
    record = stages(whole, "baseline")
    assert (record["batch_size"], record["times_out_of_memory"], record["rows"]) == (1, 1, ROWS)
    with monkeypatch.context() as patch:
        scarce(patch, 2)
        Calls(patch, *DECODED, at=4)
        with pytest.raises(Interrupted):
            perform("baseline", run_dir)
    assert "out of memory with 3 questions at once; continuing with 1" in capfd.readouterr().err
    # With all the memory there is, it still takes the batches that it had come to.
    batches = Calls(monkeypatch, *DECODED)
    perform("baseline", run_dir)
    assert batches.count == ROWS - 2
    assert artefacts(run_dir) == artefacts(whole)
    assert stages(run_dir, "baseline") == record


def test_a_plan_of_passes_that_memory_forced_is_kept(run_dir, uninterrupted, monkeypatch):
    def fits(function, limit):
        return lambda model, rows: function(model, rows) if len(rows) <= limit else None

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "sums_if_they_fit", fits(scoring.sums_if_they_fit, 1))
        Calls(patch, *DECODED, at=1)
        with pytest.raises(Interrupted):
            perform("baseline", run_dir)
    perform("baseline", run_dir)
    assert stages(run_dir, "baseline")["times_out_of_memory"] >= 1
    ours, theirs = (run.read_predictions("baseline") for run in (run_dir, uninterrupted))
    assert [row.reference_nll for row in ours] == pytest.approx([row.reference_nll for row in theirs], rel=1e-6)
    assert [replace(row, reference_nll=0) for row in ours] == [replace(row, reference_nll=0) for row in theirs]
