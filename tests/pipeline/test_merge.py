"""`medtune merge` from a run: the folder, what it is loaded by, its record, and what is refused or kept."""

from __future__ import annotations

import errno
import json
import re
import shutil
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import command_runner
from medtune.__main__ import main
from medtune.config.recipes import load_recipe
from medtune.config.training import LoraSection
from medtune.errors import ModelError
from medtune.inference import merge_measurement
from medtune.model.adapters import adapter_fingerprint, attach_new_adapter
from medtune.model.loading import base_identity, resolve_base
from medtune.model.merging import updates, weights
from medtune.model.merging.folder import existing_merge, read_record, record_of, require_whole, write_companions
from medtune.model.merging.record import Divergence, MergeRecord
from medtune.pipeline import merge as merging
from medtune.pipeline import run as pipeline
from medtune.pipeline.merge import merge_stage
from medtune.pipeline.run import perform
from medtune.publishing.merge_record import merge_sentences, read_merge
from medtune.run_dir.directory import RunDir
from medtune.run_dir.lock import release_locks
from medtune.runtime import interruption
from medtune.storage.reading import describe_file
from medtune.storage.writing import MARK_NAME, mark_as_own
from tiny_model import write_rows


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    """A run with data and an adapter, as training would have left them; the base ships a licence."""
    folder = tmp_path_factory.mktemp("trained")
    base = shutil.copytree(tiny.path, folder / "tiny-base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"_name_or_path": "/home/somebody/tiny"}))
    for name in ("LICENSE", "USE_POLICY.md", "modeling.py", "README.md"):
        (base / name).write_text(f"the base's {name}")
    values = {
        "model": {"base": str(base), "dtype": "float32"},
        "data": {"source": str(write_rows(folder / "rows.csv", 40)), "split": {"test": 0.2, "validation": 0.1}},
        "training": {"max_length": 256},
        "generation": {"max_new_tokens": 10},
        "evaluation": {"metrics": ["perplexity"], "controls": []},
    }
    (folder / "recipe.yaml").write_text(json.dumps(values))
    run_dir = pipeline.start_run(load_recipe(str(folder / "recipe.yaml"), []), folder / "run", resume=False)
    perform("data", run_dir)
    model = attach_new_adapter(tiny.load(), LoraSection(rank=4), seed=0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.05)
    model.save_pretrained(run_dir.adapter_dir)
    tiny.tokenizer.save_pretrained(run_dir.adapter_dir)
    run_dir.complete("train", {})
    release_locks()
    return run_dir.path


@pytest.fixture(scope="module")
def merged(trained, tmp_path_factory) -> tuple[RunDir, Path]:
    """The run after `medtune merge`, and the folder."""
    folder = tmp_path_factory.mktemp("merged")
    run_dir, to = RunDir(shutil.copytree(trained, folder / "run")), folder / "new" / "tuned-model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "excepthook", sys.excepthook)  # typer puts its own there
        patch.setattr(sys, "argv", ["medtune", "merge", str(run_dir.path), "--to", str(to), "--dtype", "float32"])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code in (0, None)
    return run_dir, to


@pytest.fixture
def run_dir(trained, tmp_path) -> RunDir:
    return RunDir(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def medtune(monkeypatch, capsys):
    return command_runner(monkeypatch, capsys)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_plain_transformers_loads_and_answers_as_base_and_adapter(merged):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run_dir, to = merged
    tokenizer = AutoTokenizer.from_pretrained(to)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "What causes gout ?"}], tokenize=False)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    base = shutil.copytree(run_dir.adapter_dir, to.parent / "adapter")
    config = json.loads((base / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = run_dir.config.model.base
    (base / "adapter_config.json").write_text(json.dumps(config))
    models = AutoModelForCausalLM.from_pretrained(to), AutoPeftModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        found, expected = (model(input_ids=ids).logits for model in models)
    assert models[0].dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-4)
    assert models[0].generation_config.eos_token_id == 5
    assert tokenizer.pad_token == "<|finetune_right_pad_id|>"


def test_the_folder_holds_what_goes_with_weights_and_no_code(merged):
    _, to = merged
    assert files(to) == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "LICENSE", "USE_POLICY.md", "merge.json",
    }  # fmt: skip
    assert files(to.parent) - {"adapter"} == {to.name}
    assert "somebody" not in (to / "config.json").read_text()


def test_the_record_says_what_was_merged_and_what_it_changed(merged):
    run_dir, to = merged
    record = read_merge(run_dir)
    assert record == MergeRecord(**{**asdict(record), "measured": record.measured, "files": record.files})
    assert {name: asdict(file) for name, file in record.files.items()} == {
        name: describe_file(to / name) for name in files(to) - {"merge.json"}
    }
    assert json.loads(run_dir.merge_file.read_text()) == json.loads((to / "merge.json").read_text())
    assert (record.destination, record.base, record.revision) == ("tuned-model", "tiny-base", None)
    assert str(to.parent) not in run_dir.merge_file.read_text()
    assert record.adapter == adapter_fingerprint(run_dir.adapter_dir)
    assert (record.dtype, record.shards, record.changed_tensors) == ("float32", 1, 14)
    assert record.bytes == sum(tensor.nbytes for tensor in load_file(to / "model.safetensors").values())
    assert record.peak_rss_bytes > 0
    found = record.measured
    assert found.prompts == len(run_dir.read_split("test")) == 8
    assert found.rounding.mean < 1e-6 < found.kl.mean <= found.kl.p95 <= found.kl.max
    assert found.tuning.mean > found.kl.mean
    assert 0 < found.agreement <= 1
    assert (found.new_tokens, found.quantization, found.compute_dtype) == (10, "nf4", "float32")
    assert 0 <= found.same_answers <= found.prompts
    assert found.within_bound == (found.kl.mean <= merge_measurement.BOUND)


def test_a_merge_that_is_there_is_only_measured(run_dir, tmp_path, medtune, monkeypatch):
    to = tmp_path / "merged"
    first = medtune("merge", run_dir.path, "--to", to, "--no-measure")
    assert first.status == 0
    assert "was not measured: `medtune merge` with the same RUN and --to" in " ".join(first.out.split())
    assert first.out.splitlines()[-1] == str(to)
    # Before a comparison there is nothing to publish it with.
    assert first.err.splitlines()[-1] == f'next: medtune ask {to} "What causes gout ?"'
    assert read_merge(run_dir).measured is None
    weights = to / "model.safetensors"
    before = (weights.stat().st_ino, weights.stat().st_mtime_ns)
    monkeypatch.setattr(merging, "write_merge", None)
    again = medtune("merge", run_dir.path, "--to", to)
    assert again.status == 0, again.err
    assert "holds this merge already" in again.err
    assert read_merge(run_dir).measured is not None
    assert (weights.stat().st_ino, weights.stat().st_mtime_ns) == before
    # A third time there is nothing left to do.
    monkeypatch.setattr(merge_measurement, "measure_merge", None)
    assert medtune("merge", run_dir.path, "--to", to).status == 0
    other = medtune("merge", run_dir.path, "--to", to, "--dtype", "float16")
    assert (other.status, other.err) == (2, f"medtune: {to}: holds a merge of another dtype; delete it, or give "
                                            "another --to\n")  # fmt: skip


@pytest.mark.parametrize("content", ["a folder with files", "a file", "a torn merge"])
def test_a_folder_that_is_something_else_is_left_alone(run_dir, tmp_path, medtune, content):
    to = tmp_path / "merged"
    if content == "a file":
        to.write_text("mine")
    elif content == "a folder with files":
        to.mkdir()
        (to / "mine.txt").write_text("mine")
    else:
        assert medtune("merge", run_dir.path, "--to", to, "--no-measure").status == 0
        file = to / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    before = {path: path.read_bytes() for path in (to.iterdir() if to.is_dir() else [to])}
    result = medtune("merge", run_dir.path, "--to", to)
    assert result.status == 2
    assert result.err.count("\n") <= 2
    assert "merged" in result.err
    assert {path: path.read_bytes() for path in (to.iterdir() if to.is_dir() else [to])} == before


def _overwrite(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-100:-96] = b"\0\0\0\0"  # which no sample of a large file need hit
    file.write_bytes(content)


def _forget_checksums(folder: Path) -> None:
    record = json.loads((folder / "merge.json").read_text())
    (folder / "merge.json").write_text(json.dumps({**record, "files": {}, "identity": None}))


def _name_another_file(folder: Path) -> None:
    record = json.loads((folder / "merge.json").read_text())
    (folder / "merge.json").write_text(json.dumps({**record, "files": {"../config.json": {"bytes": 1, "sha256": "0"}}}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_overwrite, "its model.safetensors is not as it was written"),
        (lambda folder: (folder / "model.safetensors").unlink(), "its model.safetensors is missing"),
        (lambda folder: (folder / "config.json").unlink(), "its config.json is missing"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "its tokenizer.json has 2 of "),
        (_forget_checksums, "merged before checksums were kept"),
        (_name_another_file, "its ../config.json is not in it"),
    ],
)
def test_a_merge_that_is_not_as_it_was_written_is_none(merged, tmp_path, medtune, spoil, said):
    to = shutil.copytree(merged[1], tmp_path / "merged")
    spoil(to)
    command = ("merge", merged[0].path, "--to", to, "--dtype", "float32", "--no-measure")
    result = medtune(*command)
    release_locks()
    assert result.status == 2
    assert f"medtune: {to}: {said}" in result.err
    assert result.err.endswith("; delete it, and merge again\n")
    with pytest.raises(ModelError, match="delete it, and merge again"):
        require_whole(to, read_record(to / "merge.json"))


def test_a_merge_into_weights_that_were_changed_in_place_is_another(merged, tmp_path):
    wanted = read_merge(merged[0])
    assert existing_merge(merged[1], wanted) == wanted
    assert wanted.identity.startswith("tiny-base with files ")
    with pytest.raises(ModelError, match="merged into tiny-base before its files changed; delete it, and merge again"):
        existing_merge(merged[1], replace(wanted, identity="tiny-base with files 0123456789abcdef"))


def test_a_base_that_changed_since_the_training_is_not_merged_into(run_dir, tmp_path, medtune):
    base = run_dir.config.model.base
    run_dir.complete("train", {"base_identity": f"{base} with files 0123456789abcdef"})
    command = ("merge", run_dir.path, "--to", tmp_path / "merged", "--no-measure")
    for refused in (medtune(*command), medtune("ask", run_dir.path, "What causes gout ?")):
        assert refused.status == 2
        assert f"{base} has changed since the train stage; put the model that was there back, or start a" in refused.err
    run_dir.complete("train", {"base_identity": base_identity(base, resolve_base(base))})
    release_locks()
    assert medtune(*command).status == 0


def test_a_merged_model_is_asked_without_its_run(merged, medtune):
    _, to = merged
    result = medtune("ask", to, "What causes gout ?")
    assert result.status == 0, result.err
    assert result.out.strip()
    refused = medtune("ask", to, "What causes gout ?", "--base")
    assert (refused.status, refused.err) == (
        2, f"medtune: --base: {to} is a merged model, with no adapter to leave out; ask the run it is from\n"
    )  # fmt: skip


def test_the_way_to_evaluate_a_merge_by_itself_works(merged, tmp_path, medtune):
    found = read_merge(merged[0])
    beyond = replace(found.measured, kl=Divergence(0.3, 1, 2), within_bound=False)
    sentence = merge_sentences(replace(found, measured=beyond))[-1]
    commands = re.findall("`medtune (.*?)`", sentence)
    assert len(commands) == 2
    places = {
        "RUN/config.yaml": merged[0].config_file,
        "NEW": tmp_path / "new",
        "model.base=DIR": f"model.base={merged[1]}",
    }
    for command in commands:
        result = medtune(*(places.get(word, word) for word in command.split()))
        assert result.status == 0, result.err
    assert RunDir(tmp_path / "new").read_scores("baseline")["perplexity"].value > 1


def test_a_run_is_no_merged_model(merged, tmp_path, medtune):
    run_dir = RunDir(shutil.copytree(merged[0].path, tmp_path / "run"))
    assert run_dir.merge_file.is_file()
    result = medtune("merge", run_dir.path, "--to", run_dir.path, "--dtype", "float32")
    assert (result.status, result.err) == (
        2, f"medtune: {run_dir.path}: not empty, and no merged model; give another --to\n"
    )  # fmt: skip
    # A published adapter has the record beside it.
    adapter = shutil.copytree(run_dir.adapter_dir, tmp_path / "adapter")
    shutil.copy(run_dir.merge_file, adapter)
    assert record_of(adapter) is None


def test_a_folder_below_a_file(run_dir, tmp_path, medtune):
    (tmp_path / "file").write_text("mine")
    result = medtune("merge", run_dir.path, "--to", tmp_path / "file" / "deep" / "merged")
    assert result.status == 2
    assert result.err.endswith(f"{tmp_path / 'file'} is no directory; give another --to\n")


def test_what_came_into_the_folder_meanwhile_is_kept(run_dir, tmp_path, medtune, monkeypatch):
    to, write_merge = tmp_path / "merged", weights.write_merge

    def with_a_neighbour(*args, **options):
        to.mkdir(exist_ok=True)
        (to / "mine.txt").write_text("mine")
        return write_merge(*args, **options)

    monkeypatch.setattr(merging, "write_merge", with_a_neighbour)
    result = medtune("merge", run_dir.path, "--to", to, "--no-measure")
    assert result.status == 2
    assert "not empty, and no merged model" in result.err
    assert files(tmp_path) == {"run", "merged"}
    assert files(to) == {"mine.txt"}


def test_an_empty_folder_is_taken_and_a_dead_processs_folder_cleared(run_dir, tmp_path, medtune):
    to = tmp_path / "merged"
    to.mkdir()
    dead, mine, dated = (tmp_path / f".merged-{end}" for end in ("k2_x9abc", "mine_abc", "20251103"))
    for folder in (dead, mine, dated):
        folder.mkdir()
        mark_as_own(folder)
    mark = json.loads((dead / MARK_NAME).read_text())
    (dead / MARK_NAME).write_text(json.dumps(mark | {"number": 4194305}))
    (dated / MARK_NAME).unlink()
    assert medtune("merge", run_dir.path, "--to", to, "--no-measure").status == 0
    assert "model.safetensors" in files(to)
    assert files(tmp_path) == {"run", "merged", mine.name, dated.name}


def test_too_little_room_is_said_before_anything_is_written(run_dir, tmp_path, medtune, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    result = medtune("merge", run_dir.path, "--to", tmp_path / "deep" / "merged")
    assert result.status == 2
    assert "GB are to be written and 0.0 GB are free; make room, or give --to on a larger disk" in result.err
    assert not (tmp_path / "deep").exists()


def test_a_disk_that_fills_up_leaves_nothing(run_dir, tmp_path, medtune, monkeypatch):
    def full(self, block):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights.TensorFileWriter, "write", full)
    result = medtune("merge", run_dir.path, "--to", tmp_path / "merged")
    assert result.status == 2
    assert f"{tmp_path / 'merged'}: no space left on the device; make room" in result.err
    assert files(tmp_path) == {"run"}
    assert read_merge(run_dir) is None


def test_an_interruption_leaves_nothing_and_says_how_to_go_on(run_dir, tmp_path, medtune, monkeypatch):
    write = weights.TensorFileWriter.write

    def interrupted(self, block):
        signal.raise_signal(signal.SIGINT)
        return write(self, block)

    monkeypatch.setattr(weights.TensorFileWriter, "write", interrupted)
    result = medtune("merge", run_dir.path, "--to", tmp_path / "merged")
    assert result.status == interruption.INTERRUPTED_STATUS
    assert "go on with `medtune merge" in result.err
    assert files(tmp_path) == {"run"}


def test_memory_that_does_not_suffice_keeps_the_merge(run_dir, tmp_path, medtune, monkeypatch):
    monkeypatch.setattr(merge_measurement, "free_bytes", lambda device: 1000)
    result = medtune("merge", run_dir.path, "--to", tmp_path / "merged")
    assert result.status == 0
    assert "do not fit in" in result.out
    assert "do not fit in" in read_merge(run_dir).not_measured
    monkeypatch.undo()

    def too_large(*arguments, **options):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(merge_measurement, "_evaluated", too_large)
    assert merge_stage(run_dir, tmp_path / "merged").not_measured == "memory ran out"


def test_a_merge_of_an_earlier_adapter_is_not_the_runs(merged, tmp_path):
    run_dir = RunDir(shutil.copytree(merged[0].path, tmp_path / "run"))
    assert read_merge(run_dir) is not None
    file = run_dir.adapter_dir / "adapter_model.safetensors"
    save_file({name: weight * 2 for name, weight in load_file(file).items()}, file)
    assert read_merge(run_dir) is None
    run_dir.merge_file.write_text('{"destination": 3}')
    with pytest.raises(ModelError, match=r"merge\.json: damaged, .*delete it, and merge again"):
        read_merge(run_dir)
    run_dir.merge_file.unlink()
    assert read_merge(run_dir) is None


def test_without_its_test_questions_a_merge_is_not_measured_and_whole(run_dir, tmp_path, medtune):
    run_dir.split_file("test").unlink()
    result = medtune("merge", run_dir.path, "--to", tmp_path / "merged", "--measure")
    assert result.status == 0, result.err
    assert "not measured: the run's test questions are not there (data/test.parquet is missing)\n" in result.err
    assert result.out.splitlines()[-1] == str(tmp_path / "merged")
    assert "test questions are not there" in read_merge(run_dir).not_measured
    shutil.rmtree(run_dir.path / "data")
    record = run_dir.provenance
    run_dir.write_json(run_dir.provenance_file, record | {"stages": {"train": record["stages"]["train"]}})
    again = medtune("merge", run_dir.path, "--to", tmp_path / "merged")
    assert again.status == 0
    found = read_merge(run_dir)
    assert "test questions are not there" in found.not_measured
    assert str(tmp_path) not in found.not_measured


def test_what_an_adapter_on_the_head_tuned_is_measured(run_dir, tmp_path, tiny):
    model = attach_new_adapter(tiny.load(), LoraSection(rank=4, targets=("lm_head",)), seed=0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.5)
    model.save_pretrained(run_dir.adapter_dir, save_embedding_layers=False)
    run_dir.complete("train", {})
    found = merge_stage(run_dir, tmp_path / "merged", dtype="float32").measured
    release_locks()
    assert found.rounding.mean < 1e-6
    assert found.tuning.mean > 0.1


def test_without_training_there_is_nothing_to_merge(run_dir, tmp_path, medtune):
    shutil.rmtree(run_dir.adapter_dir)
    result = medtune("merge", run_dir.path, "--to", tmp_path / "merged")
    assert result.status == 2
    assert "the train stage is not complete; run `medtune train" in result.err
    assert medtune("merge", run_dir.path, "--to", tmp_path / "merged", "--dtype", "int8").err.startswith(
        "medtune: --dtype int8: must be one of bfloat16, float16, float32"
    )


@pytest.fixture
def starting(run_dir, tmp_path) -> RunDir:
    """A run with data whose `model.adapter` is an adapter in a folder; it has trained nothing."""
    adapter = run_dir.adapter_dir.rename(tmp_path / "stored")
    values = run_dir.config.model_dump(mode="json")
    values["model"]["adapter"] = str(adapter)
    run_dir.config_file.write_text(json.dumps(values))
    record = run_dir.provenance
    run_dir.write_json(run_dir.provenance_file, {**record, "stages": {"data": record["stages"]["data"]}})
    return RunDir(run_dir.path)


def test_what_a_training_starts_from_is_not_merged_for_what_it_makes(starting, tmp_path, medtune):
    result = medtune("merge", starting.path, "--to", tmp_path / "merged")
    assert (result.status, result.err) == (
        2,
        f"medtune: {starting.path}: the train stage is not complete; run `medtune train {starting.path}` or, to "
        f"evaluate {tmp_path / 'stored'} as it is, `medtune evaluate {starting.path} --model tuned` first, or all that "
        f"is left with `medtune run {starting.config_file} --run-dir {starting.path} --resume`\n",
    )
    assert not (tmp_path / "merged").exists()


def test_a_stored_adapter_that_was_evaluated_is_merged(starting, tmp_path, medtune):
    for file in (starting.predictions_file, starting.scores_file, starting.row_statistics_file):
        starting.write_text(file("tuned"), "")
    found = adapter_fingerprint(tmp_path / "stored")
    starting.complete("tuned", {"adapter": found})
    release_locks()
    assert medtune("merge", starting.path, "--to", tmp_path / "merged", "--no-measure").status == 0
    assert read_merge(starting).adapter == found
    starting.complete("tuned", {"adapter": "another"})
    result = medtune("merge", starting.path, "--to", tmp_path / "again", "--no-measure")
    assert f"{tmp_path / 'stored'}: not the adapter that was evaluated; put that back" in result.err
    shutil.copytree(tmp_path / "stored", starting.adapter_dir)
    starting.complete("train", {})
    (starting.adapter_dir / "adapter_model.safetensors").unlink()
    result = medtune("merge", starting.path, "--to", tmp_path / "again", "--no-measure")
    assert "the train stage is not complete; run `medtune train" in result.err


def test_the_tokenizer_is_the_adapters_and_no_file_of_the_bases_overrules_it(run_dir, tmp_path):
    from transformers import AutoTokenizer

    base = shutil.copytree(run_dir.config.model.base, tmp_path / "base")
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|eot_id|>"}
    (base / "special_tokens_map.json").write_text(json.dumps(names))
    (base / "chat_template.jinja").write_text("another")
    for name in ("added_tokens.json", "vocab.json", "tokenizer.model"):
        (base / name).write_text("{}")
    (tmp_path / "to").mkdir()
    write_companions(base, run_dir.adapter_dir, tmp_path / "to", dtype="float32", untied=False)
    expected, found = (AutoTokenizer.from_pretrained(folder) for folder in (run_dir.adapter_dir, tmp_path / "to"))
    assert found.pad_token == expected.pad_token == "<|finetune_right_pad_id|>"
    assert found.eos_token == expected.eos_token == "<|eot_id|>"
    assert found.chat_template == expected.chat_template
    assert not {"special_tokens_map.json", "added_tokens.json", "vocab.json"} & files(tmp_path / "to")
    assert "tokenizer.model" in files(tmp_path / "to")  # which other programs read
    (run_dir.adapter_dir / "tokenizer.json").unlink()
    shutil.rmtree(tmp_path / "to")
    (tmp_path / "to").mkdir()
    write_companions(base, run_dir.adapter_dir, tmp_path / "to", dtype="float32", untied=False)
    assert {"tokenizer.json", "special_tokens_map.json"} <= files(tmp_path / "to")


def test_a_wrong_merge_is_marked(run_dir, tmp_path, monkeypatch):
    """The fault planted: every update of twice its size."""
    rows_of = updates.LowRankUpdate.rows_of
    monkeypatch.setattr(updates.LowRankUpdate, "rows_of", lambda self: rows_of(replace(self, scaling=2 * self.scaling)))
    record = merge_stage(run_dir, tmp_path / "merged")
    assert record.measured.rounding.mean > merge_measurement.ROUNDING_BOUND
    assert not record.measured.within_bound
    assert "do not use this merge" in merge_sentences(record)[-1]
    assert (tmp_path / "merged" / "model.safetensors").is_file()
