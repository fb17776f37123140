"""`medtune export`: a finished run of the tiny model, written for each program, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from compressed_models import Scheme, write_compressed
from go_templates import render_like_ollama
from medtune.config.recipes import load_recipe
from medtune.errors import ConfigError, ModelError
from medtune.model.adapters import adapter_fingerprint
from medtune.pipeline import run as pipeline
from medtune.pipeline.export import ExportRequest, export_stage
from medtune.pipeline.merge import measure_folder, merge_stage
from medtune.publishing.export.page import read_record
from medtune.run_dir.directory import RunDir
from medtune.run_dir.lock import release_locks
from stopping import write_recipe
from tiny_model import Tiny

gguf = pytest.importorskip("gguf", reason='needs pip install "medtune[export]"')


@pytest.fixture(scope="module")
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose adapter is trained, and its merge beside it. No test changes it."""
    folder = tmp_path_factory.mktemp("exports")
    config = load_recipe(str(write_recipe(tiny, folder, steps=3)), ["data.system_prompt=Answer kindly."])
    run = pipeline.start_run(config, folder / "My Run", resume=False)
    for stage in ("data", "train"):
        pipeline.perform(stage, run)
    merge_stage(run, folder / "merged", dtype="float32", measure=False)
    release_locks()
    return RunDir(run.path)


@pytest.fixture(autouse=True)
def unlocked():
    yield
    release_locks()


def merged_of(run: RunDir) -> Path:
    return run.path.parent / "merged"


def test_gguf_with_a_modelfile_and_a_page(finished: RunDir, tmp_path: Path) -> None:
    to = tmp_path / "out"
    record = export_stage(finished, ExportRequest(to, "gguf", "q8_0", merged=merged_of(finished)))
    assert record.files == ("my-run-q8_0.gguf", "Modelfile")
    assert record.commands == ("llama-server -m my-run-q8_0.gguf --jinja", "ollama create my-run -f Modelfile")
    assert {file.name for file in to.iterdir()} == {*record.files, "README.md", "export.json", "medtune.json"}
    assert read_record(to) == record
    assert record.adapter == adapter_fingerprint(finished.adapter_dir)
    fields = gguf.GGUFReader(to / "my-run-q8_0.gguf").fields
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True
    assert "Not medical advice" in fields["general.description"].contents()
    modelfile = (to / "Modelfile").read_text()
    assert "FROM ./my-run-q8_0.gguf\n" in modelfile
    assert 'SYSTEM """Answer kindly."""\n' in modelfile
    assert 'PARAMETER stop "<|eot_id|>"\nPARAMETER temperature 0\nPARAMETER repeat_penalty 1\n' in modelfile
    template = modelfile.split('TEMPLATE """')[1].split('"""')[0]
    written = render_like_ollama(template, [{"role": "user", "content": "Why ?"}])
    assert written == (  # without BOS, which the file has its reader add
        "<|start_header_id|>user<|end_header_id|>\n\nWhy ?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    page = (to / "README.md").read_text()
    assert "Not medical advice" in page
    assert f"SHA-256 {record.adapter}" in page
    assert str(finished.path) not in page
    assert str(tmp_path) not in page


def test_without_a_merge_one_is_made_in_the_folder_and_kept(finished: RunDir, tmp_path: Path) -> None:
    run = RunDir(Path(shutil.copytree(finished.path, tmp_path / "run")))
    record = export_stage(run, ExportRequest(tmp_path / "out", "vllm"))
    assert json.loads((tmp_path / "out" / "merged" / "merge.json").read_text())["measured"] is not None
    (command,) = record.commands
    assert command.startswith("vllm serve ./merged --served-model-name run --chat-template chat_template.jinja ")
    release_locks()
    export_stage(RunDir(run.path), ExportRequest(tmp_path / "out", "gguf"))  # into the same folder, of the same merge
    assert "diverge from those of the adapter" in (tmp_path / "out" / "README.md").read_text()


def test_vllm_gets_template_end_tokens_and_cap(finished: RunDir, tmp_path: Path) -> None:
    to = tmp_path / "out"
    record = export_stage(finished, ExportRequest(to, "vllm", merged=merged_of(finished)))
    settings = json.loads((to / "generation_config.json").read_text())
    cap = finished.config.generation.max_new_tokens
    assert settings == {"eos_token_id": [5], "max_new_tokens": cap, "temperature": 0.0}
    assert "start_header_id" in (to / "chat_template.jinja").read_text()
    assert "vllm serve ../" in record.commands[0]


def test_an_adapter_for_vllm_is_served_beside_its_base(finished: RunDir, tmp_path: Path) -> None:
    to = tmp_path / "out"
    record = export_stage(finished, ExportRequest(to, "vllm", adapter_only=True))
    assert {file.name for file in (to / "adapter").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert adapter_fingerprint(to / "adapter") == record.adapter
    assert "--enable-lora --lora-modules my-run=adapter --max-lora-rank 16" in record.commands[0]


def test_ollama_gets_a_gguf_file_where_it_would_read_the_folder_otherwise(
    finished: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = export_stage(finished, ExportRequest(tmp_path / "out", "ollama", merged=merged_of(finished)))
    assert record.files == ("my-run-f16.gguf", "Modelfile")
    assert record.commands == ("ollama create my-run -f Modelfile", "ollama run my-run")
    note = "The Modelfile is over a GGUF file, not the merged folder: Ollama would split texts into other tokens"
    assert note in capsys.readouterr().err
    assert note in (tmp_path / "out" / "README.md").read_text()


def test_settings_of_the_template_and_all_end_tokens_go_along(finished: RunDir, tmp_path: Path) -> None:
    merged = Path(shutil.copytree(merged_of(finished), tmp_path / "merged"))
    from medtune.data.prompts import PromptRenderer
    from medtune.model.loaded import load_tokenizer
    from medtune.publishing.export.subject import Subject

    (merged / "generation_config.json").write_text('{"eos_token_id": [5, 1]}')
    tokenizer = load_tokenizer(merged)
    tokenizer.chat_template += "{% if thinks and depth %}{% endif %}"
    renderer = PromptRenderer(tokenizer, settings={"thinks": False, "depth": None})
    subject = Subject.of(finished, merged, renderer)
    assert subject.template.startswith("{%- set thinks = false %}{%- set depth = none %}{{ bos_token }}")
    assert subject.generation.end_tokens == ("<|end_of_text|>", "<|eot_id|>")
    assert subject.adds_bos


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"format": "onnx"}, ConfigError, r"--format onnx: must be one of ollama, gguf, vllm"),
        ({"dtype": "q4_0"}, ConfigError, r"--dtype q4_0: must be one of f16, bf16, q8_0, f32"),
        ({"format": "ollama", "adapter_only": True}, ConfigError, "Ollama gets the model in one piece"),
        ({"merged": Path("nowhere")}, ModelError, r"--merged nowhere: no merged model; make one with `medtune merge"),
        ({"adapter_only": True, "merged": Path("x")}, ConfigError, "--adapter-only: needs no --merged"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    finished: RunDir, tmp_path: Path, changes: dict, error: type, problem: str
) -> None:
    with pytest.raises(error, match=problem):
        export_stage(finished, replace(ExportRequest(tmp_path / "out", "gguf"), **changes))


def test_a_folder_of_someone_else_s_is_not_written_to(finished: RunDir, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="not empty, and no export; give another --to"):
        export_stage(finished, ExportRequest(tmp_path, "gguf", merged=merged_of(finished)))
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_full_disk_is_seen_before_anything_is_written(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("medtune.storage.writing.shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(Exception, match=r"are to be written and 0\.0 GB are free"):
        export_stage(finished, ExportRequest(tmp_path / "out", "gguf", merged=merged_of(finished)))
    assert not list((tmp_path / "out").iterdir())


def test_a_quantised_merge_is_measured_once_it_is_dequantised(finished: RunDir, tmp_path: Path) -> None:
    """Through an 8-bit GGUF file, as transformers dequantises it."""
    import torch
    from safetensors.torch import save_model
    from transformers import AutoModelForCausalLM

    export_stage(finished, ExportRequest(tmp_path / "out", "gguf", "q8_0", merged=merged_of(finished)))
    folder = Path(shutil.copytree(merged_of(finished), tmp_path / "plain"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file="my-run-q8_0.gguf", dtype=torch.float32)
    save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})
    release_locks()
    found = measure_folder(finished, folder)
    plain = measure_folder(finished, merged_of(finished))
    assert 0 < abs(found.kl.mean - plain.kl.mean) < 0.002
    assert (found.bound, found.within_bound, found.rounding) == (0.1, True, None)


@pytest.mark.parametrize("scheme", ["FP8", "W4A16"])
def test_what_llm_compressor_writes_is_measured_as_it_is(
    finished: RunDir, tmp_path: Path, scheme: Scheme, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_compressed(merged_of(finished), tmp_path / "packed", scheme)
    found = measure_folder(finished, folder)
    plain = measure_folder(finished, merged_of(finished))
    assert 1e-6 < abs(found.kl.mean - plain.kl.mean) < 0.05
    assert (found.bound, found.within_bound, found.rounding) == (0.1, True, None)


def test_packed_weights_are_not_measured(finished: RunDir, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "awq"}}')
    with pytest.raises(ModelError, match=r"its weights are packed.*dequantise it with the library that wrote it"):
        measure_folder(finished, tmp_path)
