"""Every benchmark answers --help, and what needs no GPU runs on a tiny model and prints JSON lines alone."""

import io
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import demo_cpu
import generation
import large_data
import medquad_rows
import medtune_runs
import reporting
import shape_8b
import shape_70b
import step_clock
from forked import fork
from medtune.config.recipes import load_recipe
from medtune.data.prompts import PromptRenderer
from medtune.data.training_rows import encode_for_training
from medtune.pipeline.run import perform, start_run
from medtune.records import IGNORED, QAPair
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import STAGE_NAMES
from medtune.training.batching import StepSampler
from tiny_model import write_rows

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = {"reporting", "medtune_runs", "step_clock", "row_balance", "serve_clients"}
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if path.stem not in MODULES)
SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 512,
}  # fmt: skip


def run(script, *arguments):
    """The measurements that a script printed; nothing else may be on its standard output."""
    done = fork(BENCHMARKS / script, *arguments).finish()
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def run_here(script, *arguments):
    """The same in this process, with the commands of medtune that the script starts forked."""

    def start(line, env, **options):
        done = fork(*line[1:], environment=env).finish()
        sys.stderr.write(done.stderr[-3000:])
        return done

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medtune_runs.subprocess, "run", start)
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        for name in ("stdout", "__stdout__"):  # a measurement goes to the second, whatever the first is
            patch.setattr(sys, name, printed)
        import_module(Path(script).stem).main()
    return [json.loads(line) for line in printed.getvalue().splitlines()]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", 60)


@pytest.fixture(scope="module")
def prepared(tiny, table, tmp_path_factory):
    """A run directory whose data stage is done."""
    folder = tmp_path_factory.mktemp("prepared")
    values = {
        "model": {"base": str(tiny.path)},
        "data": {"source": str(table), "split": medquad_rows.SPLIT},
        "evaluation": {"metrics": ["perplexity"], "controls": []},
    }
    recipe = medtune_runs.write_recipe(folder, values)
    run_dir = start_run(load_recipe(str(recipe), ["training.max_length=256"]), folder / "run", resume=False)
    perform("data", run_dir)
    return run_dir.path


@pytest.fixture(scope="module")
def rows_file(tiny, prepared, tmp_path_factory):
    path = tmp_path_factory.mktemp("encoded") / "rows.jsonl"
    medquad_rows.write_rows(path, medquad_rows.encode(prepared, tiny.path, max_length=256))
    return path


def test_every_script_has_a_line_in_the_readme():
    text = (BENCHMARKS / "README.md").read_text()
    assert SCRIPTS
    for script in SCRIPTS:
        assert f"`{script}`" in text


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script):
    command = [sys.executable, str(BENCHMARKS / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"{script} " in done.stdout


def test_options_keep_the_types_of_their_defaults():
    defaults = {"steps": 10, "liger": False, "cap": 0.0, "arm": "x"}
    assert reporting.parse_options(["steps=3", "liger=1", "cap=14.56"], defaults) == {
        "steps": 3, "liger": True, "cap": 14.56, "arm": "x",
    }  # fmt: skip
    for wrong in ("step=3", "steps"):
        with pytest.raises(SystemExit, match="not a key=value of steps, liger, cap, arm"):
            reporting.parse_options([wrong], defaults)


def test_speed_is_tokens_over_time_without_the_warm_up(tmp_path):
    """Sum, then divide: a mean of the steps' rates would be another number."""
    history = [
        {"step": 1, "loss": 3.0, "tokens": 100, "tokens_per_second": 1.0},
        {"step": 2, "loss": 2.5, "tokens": 200, "tokens_per_second": 1.0},
        {"step": 3, "loss": 2.4, "tokens": 300, "tokens_per_second": 1.0},
        {"step": 4, "loss": 2.3, "tokens": 700, "tokens_per_second": 400.0},
        {"step": 4, "validation_loss": 2.2},
        {"step": 5, "loss": 2.0, "tokens": 1000, "tokens_per_second": 100.0},
    ]
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in history))
    assert medtune_runs.training_figures(tmp_path) == {
        "tok_s": 175, "ms_per_step": 2000, "tokens_per_step": 350, "steps": 5, "slowest_tok_s": 100,
        "fastest_tok_s": 400, "first_loss": 3.0, "last_loss": 2.0,
    }  # fmt: skip


def test_rows_are_medtunes_own_in_its_order(tiny, table, prepared, rows_file):
    rows = medquad_rows.read_rows(rows_file)
    assert medquad_rows.encode(table, tiny.path, max_length=256) == rows
    run_dir = RunDir.open(prepared)
    renderer = PromptRenderer(tiny.tokenizer, run_dir.config.data.system_prompt)
    encoded = encode_for_training(renderer, run_dir.read_split("train"), max_length=256, overlong="cut").rows
    steps = StepSampler(len(encoded), 4, 3, seed=0)
    expected = [encoded[index] for step in steps for index in step]
    assert rows[:12] == [{"input_ids": row.input_ids, "labels": row.labels} for row in expected]
    assert len(rows) == len(encoded)
    for row in rows:
        answer = [label for label in row["labels"] if label != IGNORED]
        assert answer == row["input_ids"][-len(answer) :]
        assert 1 < len(answer) < len(row["labels"])
    assert medquad_rows.read_rows(rows_file, 5) == rows[:5]
    with pytest.raises(SystemExit, match=f"{len(rows)} rows, and 1000 are needed"):
        medquad_rows.read_rows(rows_file, 1000)


def test_two_epochs_are_in_medtunes_order_too(tiny):
    renderer = PromptRenderer(tiny.tokenizer)
    pairs = [QAPair(str(i), "causes", f"What is {i} ?", f"Nobody knows {i}.") for i in range(8)]
    encoded = encode_for_training(renderer, pairs, max_length=64, overlong="cut").rows
    expected = [encoded[index].input_ids for step in StepSampler(8, 4, 3, seed=5) for index in step]
    assert [row["input_ids"] for row in medquad_rows.in_training_order(encoded, 5, count=12)] == expected


def test_joined_rows_fill_the_length(tiny, table, tmp_path):
    out = tmp_path / "long.csv"
    count = medquad_rows.write_joined(table, tiny.path, out, 300)
    rows = medquad_rows.encode(out, tiny.path, max_length=300)
    assert count - 3 <= len(rows) < count  # the others are validation and test
    # A row is cut behind a sentence: nearly full.
    assert all(260 < len(row["input_ids"]) <= 300 for row in rows)
    assert medquad_rows.write_joined(table, tiny.path, out, 300, limit=2) == 2


def test_labels_are_told_from_prompts():
    rows = [{"input_ids": [1] * 10, "labels": [IGNORED] * 4 + [1] * 6}]
    assert step_clock.labels_seen([(10, 6)], rows).startswith("answers only: 60.0%")
    assert step_clock.labels_seen([(10, 10)], rows).startswith("NOT the rows' labels")


def test_longer_positions_leave_the_model_alone(tiny, tmp_path):
    before = (tiny.path / "config.json").read_text()
    longer = shape_8b.with_positions(tiny.path, 2048, tmp_path / "longer")
    assert json.loads((longer / "config.json").read_text())["max_position_embeddings"] == 2048
    assert (tiny.path / "config.json").read_text() == before
    assert {file.name for file in longer.iterdir()} == {file.name for file in tiny.path.iterdir()}


def test_summary_gives_the_medians_ratios():
    rates = {
        "trl": [10, 30, 20],
        "trl_same_process": [40, 40, 40],
        "medtune": [80, 60, 70],
        "medtune_nf4": [35, 35, 35],
    }
    figures = demo_cpu.summary(rates)
    assert figures["medtune_over_trl"] == 3.5
    assert figures["medtune_over_trl_same_process"] == 1.75
    assert figures["due_to_dequantising_once"] == 2.0


def test_random_rows_hold_the_tokens():
    rows = generation.random_rows(5000, 400, 512)
    answers = [sum(label != IGNORED for label in row.labels) for row in rows]
    assert sum(answers[:-1]) < 5000 <= sum(answers)
    assert max(len(row.input_ids) for row in rows) <= 512
    assert generation.random_prompts(3, 400) == generation.random_prompts(3, 400)


@pytest.mark.slow
def test_train_medtune_from_prepared_rows(tiny, prepared, tmp_path):
    settings = ["training.max_steps=5", "training.effective_batch_rows=4", "training.max_length=256"]
    [figures] = run("train_medtune.py", tiny.path, prepared, "--keep", tmp_path / "run", *settings)
    assert figures["steps"] == 5
    assert figures["tok_s"] > 0
    assert figures["training_rows"]["train"] == len(RunDir.open(prepared).read_split("train"))
    assert figures["chosen"]["device"] == "cpu"
    assert figures["host_peak_gib"] > 0
    assert figures["versions"]["torch"]
    # Its tokens are those of the rows that the other trainers get.
    history = RunDir.open(tmp_path / "run").read_history()
    rows = medquad_rows.encode(prepared, tiny.path, max_length=256)
    assert history[0]["tokens"] == sum(len(row["input_ids"]) for row in rows[:4])


def test_prepared_rows_cannot_be_asked_to_differ(tiny, prepared, tmp_path):
    recipe = medtune_runs.write_recipe(tmp_path, {"model": {"base": str(tiny.path)}, "data": {"source": "prepared"}})
    with pytest.raises(SystemExit, match=r"data.train_limit=3: the rows are those of"):
        medtune_runs.start_from_prepared(prepared, tmp_path / "run", recipe, ["data.train_limit=3"])


def test_generation_and_losses(tiny):
    options = generation.DEFAULTS | {"n": 5, "new": 4, "losses": True, "tokens": 500}
    figures = generation.medtune_arm(str(tiny.path), options)
    assert figures["ms_per_question"] > 0
    assert figures["batch"] == 5
    assert figures["losses_answer_tokens"] >= 500


@pytest.mark.parametrize(("arm", "batch"), [("one_by_one", 1), ("batch32", 32)])
def test_generation_by_transformers(tiny, arm, batch):
    options = generation.DEFAULTS | {"arm": arm, "n": 3, "new": 4, "dtype": "float32"}
    figures = generation.plain_arm(str(tiny.path), options)
    assert figures["batch"] == batch
    assert figures["tok_s"] > 0


def test_the_shape_is_written_as_transformers_writes_it(tiny, tmp_path, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM

    from medtune.model.quantization import FORMATS

    monkeypatch.setattr(shape_8b, "SHARD_BYTES", 20_000)
    shape_8b.write_model(tmp_path, tiny.path, shape_8b.SHAPE | SIZES)
    assert len(list((tmp_path / "nf4").glob("*.safetensors"))) > 2
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "nf4", dtype=torch.bfloat16)
    quantized = AutoModelForCausalLM.from_pretrained(
        tmp_path / "bf16", dtype=torch.bfloat16, quantization_config=FORMATS["nf4"].loading_config("bfloat16")
    )
    stored, expected = loaded.state_dict(), quantized.state_dict()
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], expected[name]) for name in expected)
    assert loaded.config.eos_token_id == tiny.tokenizer.eos_token_id
    assert loaded.config.pad_token_id == tiny.tokenizer.pad_token_id
    head = loaded.lm_head.weight.float()
    assert head[len(tiny.tokenizer) :].std() < head[: len(tiny.tokenizer)].std() / 5


def test_the_larger_shape_is_written_layer_by_layer(tiny, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    shape_70b.write_packed_model(tmp_path, tiny.path, shape_70b.SHAPE | SIZES)
    loaded, notes = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, output_loading_info=True)
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]
    ids = torch.tensor([[1, 2, 3]])
    assert torch.isfinite(loaded(ids).logits).all()
    assert loaded.lm_head.weight[len(tiny.tokenizer) :].float().std() < loaded.lm_head.weight[:100].float().std() / 5


@pytest.mark.slow
def test_train_peers(tiny, rows_file):
    settings = ["steps=4", "bs=2", "ga=2", "maxlen=256"]
    [figures] = run("train_peers.py", "trl", tiny.path, rows_file, *settings)
    rows = medquad_rows.read_rows(rows_file, 16)
    assert figures["tokens_per_step"] == sum(len(row["input_ids"]) for row in rows[12:])
    assert figures["labels"].startswith("answers only")
    assert figures["error"] is None


@pytest.mark.slow
def test_sft_trainer_as_it_comes(tiny, rows_file):
    [figures] = run("demo_cpu.py", "--steps", 5, "--trl-child", tiny.path, rows_file)
    rows = medquad_rows.read_rows(rows_file)
    assert figures["tokens_per_step"] == round(sum(len(row["input_ids"]) for row in rows[24:40]) / 2)
    assert figures["dtype"] == "bfloat16"


@pytest.mark.slow
def test_the_headline_on_a_tiny_model(tiny, table):
    settings = ["training.max_steps=5", "training.effective_batch_rows=4", "training.max_length=256"]
    settings += ["generation.max_new_tokens=8", "evaluation.resamples=500"]
    [figures] = run_here(
        "medquad_8b.py", "--model", tiny.path, "--data", table, "--rows", 40, "--questions", 4, *settings
    )
    assert set(figures["stage_seconds"]) == set(STAGE_NAMES)
    assert sum(figures["stage_seconds"].values()) < figures["seconds"]
    assert figures["training_rows"] == 40
    assert figures["questions"] == 4
    assert figures["new_tokens_per_question"]["baseline"] <= 8
    assert {"bleu", "bertscore_f1", "perplexity"} <= set(figures["comparison"])


@pytest.mark.slow
def test_a_merge_of_a_tiny_model(tiny, table):
    [figures] = run_here("merge_8b.py", "--model", tiny.path, "--data", table, "training.max_length=256")
    assert figures["changed_tensors"] == 2 * 7
    assert figures["shards"] == 1
    assert figures["merge_seconds"] > 0
    assert 0 < figures["peak_rss_gib"] < 2
    assert figures["measured"]["prompts"] == 6
    assert figures["measured"]["within_bound"]


@pytest.mark.slow
def test_large_data_is_measured_and_drawn(tmp_path):
    (line,) = run("large_data.py", "sizes=600", f"folder={tmp_path}", "form=jsonl", "workers=2")
    assert (line["rows"], line["workers"], line["streamed"]["near_duplicates_not_searched"]) == (600, 2, 0)
    assert line["anonymous_peak_bytes"] > 0
    assert 0 < line["worker_peak_bytes"] < 2**30
    assert line["text_bytes"] / line["kept"] == pytest.approx(1500, rel=0.2), "MedQuAD's mean length"
    assert not list(tmp_path.iterdir())
    large_data.draw([line, {**line, "rows": 1200}], tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert "<svg" in drawn


@pytest.mark.slow
def test_a_server_under_load_gives_every_client_its_own_answer(tiny):
    options = ["--clients", "2", "8", "--seconds", "4", "--new", "12", "--questions", "9"]
    lines = run("serve_load.py", "--model", tiny.path, *options)
    assert [line["clients"] for line in lines] == [2, 8]
    for line in lines:
        assert line["requests"] > 8
        assert line["errors"] == line["mixed_up"] == line["differing"] == 0
        assert line["tokens_per_second"] > 0
        assert line["p50_seconds"] <= line["p95_seconds"]
