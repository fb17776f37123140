"""A run as an object: what it reads, what it says is missing, and the model that it holds."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

import medtune


def models_in_memory() -> int:
    from transformers import LlamaForCausalLM

    gc.collect()
    return sum(issubclass(type(thing), LlamaForCausalLM) for thing in gc.get_objects())


def test_a_run_keeps_its_model_between_questions_and_frees_it(finished: medtune.Run):
    before, pieces = models_in_memory(), []
    with medtune.load_run(finished.path) as run:
        tuned = run.ask("What causes gout ?", on_text=pieces.append)
        held = models_in_memory()
        assert held > before
        assert run.ask("What causes gout ?") == tuned == "".join(pieces).strip()
        assert run.ask("What causes gout ?", base=True) != tuned
        assert models_in_memory() == held
        with pytest.raises(medtune.MedtuneError, match="empty"):
            run.ask("  ")
    assert models_in_memory() == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: run.scores("few-shot"), "'few-shot': must be one of baseline, tuned, few_shot"),
        (lambda run: run.predictions("few-shot"), "must be one of baseline"),
        (lambda run: run.merge("merged", dtype="fp16"), "fp16: must be one of bfloat16"),
        (lambda run: run.publish("me/x", dry_run=True, options=["private"]), "private: must be of without-evaluation"),
        (lambda run: run.publish("me/x", dry_run=True, options="overwrite"), r"such as \['overwrite'\]"),
        (lambda run: medtune.run("demo", run.path), "add resume=True to continue that run, or choose another run_dir"),
        (lambda run: medtune.run("demo", run.path, overrides={"seed": 5}, resume=True), "choose another run_dir$"),
    ],
)
def test_mistakes_in_a_run_are_told(finished: medtune.Run, call, words: str):
    with pytest.raises(medtune.MedtuneError, match=words):
        call(finished)


def test_a_report_that_is_there_is_not_spoken_of(finished: medtune.Run, capsys):
    assert finished.report.is_file()
    capsys.readouterr()
    assert finished.report.is_file()
    assert capsys.readouterr().err == ""


def test_merging_and_publishing_tell_their_progress(finished: medtune.Run, tmp_path: Path):
    events: list[medtune.Progress] = []
    finished.merge(tmp_path / "merged", measure=False, progress=events.append)
    assert any(event.work and event.unit == "MB" and event.done == event.total for event in events)
    events.clear()
    finished.publish("someone/tiny", dry_run=True, base_model="someone/base", progress=events.append)
    assert [event.work for event in events if event.done == event.total] == ["Checking weights"]


def test_an_unfinished_run_says_what_is_missing(workplace: Path):
    run = medtune.prepare("demo", "runs/unfinished & <more>")
    html = run._repr_html_()
    assert "unfinished &amp; &lt;more&gt;" in html
    assert "not complete yet: baseline, controls, train, tuned, compare" in html
    assert run.history() == []
    for read in (lambda: run.comparison, run.scores, run.predictions, lambda: run.ask("What is gout ?")):
        with pytest.raises(medtune.MedtuneError, match="not complete"):
            read()
