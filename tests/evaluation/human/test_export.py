from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from pathlib import Path

import pytest

from medtune.errors import DataError, RunDirError
from medtune.evaluation.human.export import export_sheet
from medtune.evaluation.human.results import read_key
from medtune.records import Turn
from medtune.run_dir.directory import RunDir
from older_runs import forget_checksums


def rows_of(sheet: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(sheet.read_text(encoding="utf-8-sig"), newline="")))


def number_of(question: str) -> int:
    return int(question.split()[3])


def test_the_key_opens_the_sheet(make_run) -> None:
    run = make_run(20)
    export = export_sheet(run, 12)
    assert export.sheet.parent == run.human_dir == run.path / "human"
    assert {path.name for path in run.human_dir.iterdir()} == {"sheet.csv", "rate.html", "key.json"}
    key = read_key(export.key)
    rows = rows_of(export.sheet)
    before, after = run.read_predictions("baseline"), run.read_predictions("tuned")
    assert [row["item"] for row in rows] == [str(i) for i in range(1, 13)] == list(key.items)
    assert {row["sheet"] for row in rows} == {key.sheet}
    for row in rows:
        number = number_of(row["question"])
        entry = key.items[row["item"]]
        assert (entry.row, entry.group) == (f"MQ-{number:04}", f"topic-{number}")
        assert entry.qtype == before[number].qtype
        assert row[f"answer_{entry.tuned}"] == after[number].prediction
        assert {row["answer_a"], row["answer_b"]} == {after[number].prediction, before[number].prediction}
    assert sorted(Counter(entry.qtype for entry in key.items.values()).values()) == [3, 3, 3, 3]
    assert (export.items, export.identical) == (12, 0)


def test_a_conversation_is_shown_whole(make_run) -> None:
    said = (Turn("system", "Be brief."), Turn("user", "I have gout."), Turn("assistant", "Where does it hurt?"))
    shown = {row["question"] for row in rows_of(export_sheet(make_run(4, turns={2: said}), 4).sheet)}
    assert shown == {
        "What is matter 0 ?",
        "What is matter 1 ?",
        "System: Be brief.\n\nUser: I have gout.\n\nAssistant: Where does it hurt?\n\nUser: What is matter 2 ?",
        "What is matter 3 ?",
    }


def test_sheet_and_page_hold_nothing_of_the_key(make_run) -> None:
    """Row ids, groups, the models' names and files, and the seed: raters get none of them."""
    run = make_run(40, name="a-run-of-llama", group=lambda i: f"topic-{i}-of-forty")
    export = export_sheet(run, 40, seed=987654)
    key = read_key(export.key)
    base = run.config.model.base
    secrets = {"tuned", "baseline", "adapter", "llama", "lora", "medtune", "987654", base.lower()}
    secrets |= {entry.row.lower() for entry in key.items.values()} | {entry.group for entry in key.items.values()}
    secrets |= set(key.predictions_sha256.values())
    assert len(secrets) > 80
    for path in (export.sheet, export.page):
        text = path.read_text(encoding="utf-8").lower()
        assert key.sheet in text
        assert [secret for secret in secrets if secret in text] == []
    assert all(entry.row.lower() in export.key.read_text().lower() for entry in key.items.values())


def test_the_key_names_the_answers_it_is_for(make_run) -> None:
    run = make_run()
    key = read_key(export_sheet(run, 5).key)
    for model in ("baseline", "tuned"):
        digest = hashlib.sha256(run.predictions_file(model).read_bytes()).hexdigest()
        assert key.predictions_sha256[model] == digest


def test_a_seed_chooses_the_rows_and_nothing_else(make_run, tmp_path: Path) -> None:
    run = make_run(40)
    keys = [read_key(export_sheet(run, 10, seed, tmp_path / name).key)
            for seed, name in [(None, "run's"), (run.config.seed, "same"), (5, "other")]]  # fmt: skip
    chosen = [{entry.row for entry in key.items.values()} for key in keys]
    assert chosen[0] == chosen[1] != chosen[2]
    assert [key.seed for key in keys] == [run.config.seed, run.config.seed, 5]
    assert keys[0].sheet != keys[1].sheet
    assert [entry.row for entry in keys[0].items.values()] != [entry.row for entry in keys[1].items.values()]


def test_one_row_a_group(make_run) -> None:
    run = make_run(40, group=lambda i: f"topic-{i // 4}")
    key = read_key(export_sheet(run, 10).key)
    assert len({entry.group for entry in key.items.values()}) == 10


def test_identical_answers_stay_and_are_counted(make_run) -> None:
    run = make_run(10, baseline=lambda i: "The same." if i < 4 else f"Not {i}.", tuned=lambda i: "The same.\n")
    export = export_sheet(run, 10)
    assert (export.items, export.identical) == (10, 4)


def test_an_export_is_never_written_over(make_run, tmp_path: Path) -> None:
    run = make_run()
    before = {path: path.read_bytes() for path in export_sheet(run, 5).sheet.parent.iterdir()}
    with pytest.raises(RunDirError, match=r"/run/human: not empty, .* name another folder with --out, such as --out "):
        export_sheet(run, 5)
    assert {path: path.read_bytes() for path in run.human_dir.iterdir()} == before
    assert export_sheet(run, 5, out=tmp_path / "second" / "sheet").sheet.is_file()


def test_an_out_that_is_a_file(make_run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match=r"/file: is a file, not a folder; name another with --out$"):
        export_sheet(make_run(), 5, out=tmp_path / "file")


def test_an_out_below_a_file(make_run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match=r"/file/below: cannot be written \(Not a directory\); name another folder"):
        export_sheet(make_run(), 5, out=tmp_path / "file" / "below")


@pytest.mark.parametrize("n", [0, 21])
def test_n_that_does_not_fit_writes_nothing(make_run, n: int) -> None:
    run = make_run(20)
    with pytest.raises(DataError, match=f"--n {n}: this run has 20 test rows to rate"):
        export_sheet(run, n)
    assert not run.human_dir.exists()


@pytest.mark.parametrize("model", ["baseline", "tuned"])
def test_a_run_that_is_not_evaluated_twice(make_run, model: str) -> None:
    run = make_run()
    run.scores_file(model).unlink()
    with pytest.raises(
        RunDirError, match=f"the {model} stage is not complete; run `medtune evaluate .* --model {model}`"
    ):
        export_sheet(run, 5)


def test_models_that_answered_other_rows(make_run) -> None:
    run = make_run()
    run.write_predictions("tuned", run.read_predictions("tuned")[::-1])
    forget_checksums(run)
    with pytest.raises(DataError, match="evaluate both on the same rows"):
        export_sheet(RunDir(run.path), 5)
