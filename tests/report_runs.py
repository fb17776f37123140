"""A compared run, made in a moment: nothing is trained, and the answers are whatever the test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medtune.config.recipes import load_recipe
from medtune.evaluation.comparison import common_metrics, compare_measured, compare_strata
from medtune.evaluation.control_answers import DESCRIPTIONS
from medtune.evaluation.measurement import answer_lengths, measure_rows, reference_lengths, score_rows
from medtune.evaluation.result_files import write_comparison, write_system
from medtune.evaluation.significance import Subsamples
from medtune.model.adapters import adapter_fingerprint
from medtune.model.merging.record import MergeRecord
from medtune.records import Comparison, Control, ControlName, Prediction, QAPair, Split
from medtune.run_dir.directory import RunDir
from medtune.storage.writing import replacing_folder

QTYPES = ("symptoms", "treatment", "causes")
METRICS = ("bleu", "rouge1", "rougeL", "exact_match", "perplexity")
CAP = 24
SETTINGS = ("evaluation.controls=[random_answer]", f"generation.max_new_tokens={CAP}")
_WORDS = (
    "a", "cough", "that", "lasts", "may", "be", "a", "sign", "of", "asthma", "and", "rest", "with", "water", "helps",
    "most", "people",
)  # fmt: skip


def words(start: int, n: int) -> str:
    """`n` words of a text, from one of its places on."""
    return " ".join(_WORDS[(start + place) % len(_WORDS)] for place in range(n))


def make_predictions(n: int, *, tuned: bool, text: Callable[[int], str] | None = None) -> list[Prediction]:
    """Answers to `n` questions; those of the tuned model are nearer to the references, and one of them is cut."""
    rows = []
    for number in range(n):
        answer = words(number, 8) if tuned else words(number + 5, CAP)
        capped = not tuned or number == 1
        rows.append(
            Prediction(
                id=f"row-{number}",
                question=f"What is matter {number} ?",
                reference=words(number, 10),
                prediction=answer if text is None else text(number),
                new_tokens=CAP if capped else 9,
                finish_reason="length" if capped else "stop",
                reference_nll=12.0 if tuned else 20.0 + number % 3,
                reference_tokens=11 + 2 * (number % 9),
                group=f"topic-{number // 2}",
                qtype=QTYPES[number % len(QTYPES)],
            )
        )
    return rows


def compared_run(path: Path, n: int = 12, *, settings: Sequence[str] = (), **changes: Any) -> RunDir:
    """A run whose comparison is complete; `changes` are fields of every prediction, of both models."""
    run = RunDir.create(path, load_recipe("demo", [*SETTINGS, *settings]), resume=False)
    predictions = {
        name: [replace(row, **changes) for row in make_predictions(n, tuned=name == "tuned")]
        for name in ("baseline", "tuned")
    }
    run.update_provenance(
        versions={"python": "3.11.7", "torch": "2.11.0"},
        hardware={
            "platform": "Linux",
            "cpu_count": 4,
            "memory_bytes": 8 << 30,
            "gpus": [{"name": "Tesla T4", "memory_bytes": 15 << 30, "compute_capability": "7.5"}],
        },
        commit="0123abcd",
        model={"base": "medtune:demo", "revision": None},
        data={"source": "medtune:demo", "revision": None, "fingerprint": "f" * 64},
    )
    pairs = tuple(QAPair(row.id, row.qtype, row.question, row.reference) for row in predictions["baseline"])
    run.write_split(Split((), (), pairs))
    run.write_json(run.audit_file, audit(n))
    run.complete("data", {"seconds": 1.5, "peak_rss_bytes": 1 << 29, "peak_gpu_bytes": None})
    groups = [row.group for row in predictions["baseline"]]
    resamples = Subsamples.draw(groups, splits=200, seed=0)
    measured = {name: measure_rows(rows, METRICS, encoder=None, caps="") for name, rows in predictions.items()}
    control: ControlName = "random_answer"
    others = [replace(row, prediction=words(3, 9), reference_nll=None) for row in predictions["baseline"]]
    measured[control] = measure_rows(others, METRICS[:-1], encoder=None, caps="")
    scores = {name: score_rows(rows, resamples) for name, rows in measured.items()}
    _train(run)
    for name in ("baseline", "tuned"):
        write_system(run, name, predictions[name], measured[name], scores[name])  # type: ignore[arg-type]
        cost = {"seconds": 60.0, "peak_rss_bytes": 1 << 30, "peak_gpu_bytes": 3 << 30}
        run.complete(name, {**cost, "choices": {"dtype": {"value": "float16", "reason": "compute capability 7.5"}}})  # type: ignore[arg-type]
    write_system(run, control, others, measured[control], scores[control])
    run.complete("controls", {"seconds": 2.0, "peak_rss_bytes": 1 << 30, "peak_gpu_bytes": 2 << 30})
    places = {("question type", kind): [i for i in range(n) if i % 3 == at] for at, kind in enumerate(QTYPES)}
    baseline, tuned = measured["baseline"], measured["tuned"]
    against = compare_measured(
        measured[control], common_metrics(tuned, scores[control]), resamples, names=(control, "tuned")
    )
    comparison = Comparison(
        rows=tuple(compare_measured(baseline, tuned, resamples)),
        scores={"baseline": scores["baseline"], "tuned": scores["tuned"]},
        lengths={"baseline": answer_lengths(predictions["baseline"]), "tuned": answer_lengths(predictions["tuned"])},
        references=reference_lengths(predictions["baseline"], CAP),
        controls=(Control(control, DESCRIPTIONS[control], scores[control], tuple(against)),),
        strata=tuple(compare_strata(places, groups, baseline, tuned, splits=200, seed=0)),
    )
    write_comparison(run, comparison, "# Comparison\n")
    run.complete("compare", {"seconds": 0.5, "peak_rss_bytes": 1 << 30, "peak_gpu_bytes": 0})
    return run


def write_merge(run: RunDir) -> None:
    """The record of a merge of the run's adapter that was not measured."""
    record = MergeRecord(
        destination="merged",
        base="medtune:demo",
        revision=None,
        adapter=adapter_fingerprint(run.adapter_dir),
        dtype="bfloat16",
        shards=2,
        bytes=3_000_000_000,
        changed_tensors=14,
        seconds=1.0,
        peak_rss_bytes=1 << 30,
        not_measured="memory ran out",
    )
    run.write_json(run.merge_file, asdict(record))


def _train(run: RunDir) -> None:
    with replacing_folder(run.adapter_dir) as folder:
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            (folder / name).write_text("{}", encoding="utf-8")
    for step in range(1, 21):
        line = {"step": step, "loss": 4.0 / step, "learning_rate": 0.001 * (20 - step), "tokens": 100 * step}
        run.append_history({**line, "epoch": step / 10, "grad_norm": 1.0, "tokens_per_second": 90.0 + step})
        if step % 10 == 0:
            run.append_history({"step": step, "epoch": step / 10, "validation_loss": 5.0 / step})
    plan = {"peak_bytes": 4 << 30, "limit_bytes": 15 << 30, "weights": "nf4"}
    cost = {"seconds": 30.0, "peak_rss_bytes": 1 << 30, "peak_gpu_bytes": 5 << 30}
    run.complete("train", {**cost, "plan": plan, "training": {"steps": 20, "tokens": 2000}})


def audit(n: int) -> dict[str, Any]:
    """The parts of an audit that a report shows, and one that it does not."""
    spread = {"mean": 11.5, "median": 11, "p90": 14, "max": 30, "over": {}}
    leak = {"in_train": {"rows": 0, "share": 0.0}, "in_train_or_validation": {"rows": 0, "share": 0.0}}
    random = {"in_train": {"rows": 3, "share": 0.25}, "in_train_or_validation": {"rows": 4, "share": 0.33}}
    return {
        "version": 1,
        "cleaning": {"source": {"rows_read": n + 9, "rows_kept": n + 8, "focus": "given"}},
        "split": {"method": "grouped", "rows": {"train": 6, "validation": 2, "test": n}, "types": {}},
        "counts": {
            "rows": n + 8, "questions": n + 8, "answers": n + 7, "documents": 0, "focuses": 9, "groups": 9,
            "largest_group": 3, "types": {},
        },
        "duplicates": {
            "rows_with_near_duplicate_answer": 2, "share_with_near_duplicate_answer": 0.1, "template_rows": 1,
        },
        "lengths": {"tokenizer": "x", "row_is": "x", "question": spread, "answer": spread, "row": spread},
        "truncation": {
            "max_length": 512, "policy": "cut", "rows": 6, "cut": 1, "dropped": 0, "no_room": 0, "tokens": 600,
            "tokens_lost": 6,
        },
        "leakage": {"question_exact": {"split": leak, "random": random}, "document": None},
        "leaking_test_rows": {},
    }  # fmt: skip
