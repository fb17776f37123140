"""What a recipe needs of the machine, and `medtune doctor` from its command line; offline, with files on this disk."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import pytest

from command_line import Medtune, command_runner, lines_on
from hardware_facts import T4
from large_rows import varied_rows, write_jsonl
from medtune.config.recipes import load_recipe
from medtune.pipeline import plan as planning
from medtune.pipeline.doctor import recipe as examination
from medtune.pipeline.doctor.findings import Finding
from medtune.pipeline.doctor.recipe import CPU_ROOM, RecipeExamination, cpu_memory
from medtune.runtime import gpus
from medtune.runtime.gpus import GPUS, DescribedGpu

GIB = 2**30
LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14_336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Medtune:
    monkeypatch.chdir(tmp_path)
    return command_runner(monkeypatch, capsys)


@pytest.fixture
def llama(tmp_path: Path) -> RecipeExamination:
    """LLaMA-3-8B's shape with the recipe for a T4, and its model found."""
    folder = tmp_path / "llama-3-8b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_3_8B), encoding="utf-8")
    looked_at = RecipeExamination(load_recipe("llama3-8b-t4", [f"model.base={folder}"]), tmp_path / "runs" / "x")
    looked_at.model_folder = folder
    return looked_at


def only(found) -> Finding:
    (finding,) = found
    return finding


@pytest.mark.parametrize(
    ("needed", "parameters", "free", "state"),
    [
        (GIB, 10**8, CPU_ROOM + 2 * GIB, "ok"),
        (GIB, 10**8, CPU_ROOM + GIB // 2, "failure"),
        (6 * GIB, 8 * 10**9, CPU_ROOM + 7 * GIB, "warning"),
        (6 * GIB, 8 * 10**9, CPU_ROOM, "failure"),
    ],
)
def test_memory_of_a_cpu(needed, parameters, free, state):
    found = cpu_memory(needed, parameters, free)
    assert found.state == state
    assert (found.fix == "") is (state == "ok")


def test_a_large_model_on_a_cpu_is_measured_in_its_form(llama, facts, native_dtype):
    """NF4 and an adapter of 160 MiB with gradient and optimiser, in float32 where no bfloat16 is native."""
    model = llama.config.model.model_copy(update={"dtype": "auto"})  # the recipe's float16 is for GPUs alone
    llama.config = llama.config.model_copy(update={"model": model})
    facts.no_gpu()
    facts.memory(free=20 * GIB)
    found = only(llama._memory())
    assert found.state == "warning"
    # 3.3 GiB of layers in NF4, 3.9 of embeddings and head in float32, half of that in bfloat16, and 0.6 for the
    # adapter's training.
    needed = {"float32": "7.9 GiB", "bfloat16": "5.9 GiB"}[native_dtype]
    assert f"{needed} for the model" in found.reason
    assert "8.0 billion parameters take a CPU days" in found.reason
    facts.memory(free=6 * GIB)
    assert only(llama._memory()).state == "failure"


def test_memory_of_a_gpu_is_the_plans(llama, facts, monkeypatch):
    facts.gpus(T4)
    monkeypatch.setattr(gpus, "this_gpu", lambda: GPUS["t4"])
    found = only(llama._memory())
    assert found.state == "ok"
    plan = planning.forecast(
        llama.config, llama.model_folder, GPUS["t4"], planning.assumed_sizes(llama.config)
    ).step.plan
    assert f"training takes {plan.peak_bytes / GIB:.1f} of {plan.limit_bytes / GIB:.1f} GiB" in found.reason
    assert llama.described.shape.adapter_parameters == 41_943_040


def test_a_model_that_is_shared_out_is_for_all_gpus_together(llama, facts, monkeypatch):
    facts.gpus(T4, T4)
    small = DescribedGpu("half a T4", 6.0, (7, 5))
    monkeypatch.setattr(gpus, "this_gpu", lambda: small)
    training = llama.config.training.model_copy(update={"weights": "sharded"})
    llama.config = llama.config.model_copy(update={"training": training})
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    found = only(llama._memory())
    plan = planning.forecast(llama.config, llama.model_folder, small, planning.assumed_sizes(llama.config, 2)).step.plan
    assert f"training takes {plan.peak_bytes / GIB:.1f} of {plan.limit_bytes / GIB:.1f} GiB" in found.reason
    assert plan.peak_bytes < 6.0 * GIB


def test_a_gpu_that_others_use_is_too_small(medtune, tiny, own, monkeypatch):
    monkeypatch.setattr(gpus, "this_gpu", lambda: DescribedGpu("T4", 0.002, (7, 5)))
    result = medtune("doctor", "demo", *own)
    assert result.status == 2
    (line,) = lines_on(result.out, "memory")
    assert line.startswith("failure: memory: training does not fit: the smallest plan takes")
    assert "lower training.max_length" in line
    assert lines_on(result.out, "disk")[0].startswith("ok"), "the adapter's size is known all the same"


def test_answers_may_take_more_than_training(llama, monkeypatch):
    monkeypatch.setattr(gpus, "this_gpu", lambda: GPUS["t4"])
    found = planning.forecast(llama.config, llama.model_folder, GPUS["t4"], planning.assumed_sizes(llama.config))
    monkeypatch.setattr("medtune.pipeline.plan_tables.answer_parts", lambda found: {"all": 15 * GIB})
    finding = only(examination.gpu_memory(found))
    assert finding.state == "warning"
    assert "answers 15.0 GiB" in finding.reason


def test_the_demo_needs_nothing(medtune, tmp_path):
    result = medtune("doctor", "demo")
    assert result.status == 0, result.out
    assert lines_on(result.out, "data") == [
        "ok: data: medtune:demo: 466 rows with an answer; columns Question and Answer"
    ]
    assert "built on the spot" in lines_on(result.out, "model")[0]
    assert list(tmp_path.iterdir()) == [], "the doctor makes no files"


def test_a_model_and_rows_of_ones_own(medtune, own, tmp_path):
    result = medtune("doctor", "demo", *own, "--run-dir", tmp_path / "out")
    assert result.status == 0, result.out
    assert "a folder with " in lines_on(result.out, "model")[0]
    assert "rows.csv: 40 rows with an answer" in lines_on(result.out, "data")[0]
    assert "3 checkpoints" in lines_on(result.out, "disk")[0]
    assert f"{tmp_path / 'out'} can be written" in lines_on(result.out, "output")[0]


def test_a_folder_without_weights_is_no_model(medtune, own, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}", encoding="utf-8")
    result = medtune("doctor", "demo", *own, "--set", f"model.base={tmp_path / 'empty'}")
    assert result.status == 2
    assert "no .safetensors weights" in lines_on(result.out, "model")[0]
    assert lines_on(result.out, "memory")[0].startswith("warning: memory: neither memory nor disk")


def test_a_stream_of_rows_is_counted_and_not_read(medtune, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", varied_rows(100))
    result = medtune("doctor", "demo", "--set", f"data.source={path}", "--set", "data.stream=true")
    assert result.status == 0, result.out
    assert lines_on(result.out, "data") == [f"ok: data: {path}: 183 rows, read as a stream"]
