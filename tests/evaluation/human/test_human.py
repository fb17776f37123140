from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from medtune.evaluation.human.results import read_key
from medtune.evaluation.human.rubric import CRITERIA, SIDES, rating_column


def fill_in(sheet: Path, key: Path, name: str, *, better: int = 5, worse: int = 2, every: int = 1) -> Path:
    """Fills in a sheet as a rater would who always finds the tuned model's answers better."""
    entries = read_key(key).items
    reader = csv.reader(io.StringIO(sheet.read_text(encoding="utf-8-sig"), newline=""))
    header, *rows = list(reader)
    columns = [cell.split(" (")[0] for cell in header]
    for row in rows[::every]:
        tuned = entries[row[columns.index("item")]].tuned
        for criterion in CRITERIA:
            for side in SIDES:
                row[columns.index(rating_column(criterion.name, side))] = str(better if side == tuned else worse)
        row[columns.index("preference")] = tuned.upper()
    path = sheet.with_name(name)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows([header, *rows])
    return path


def test_from_a_run_to_a_verdict(medtune, make_run) -> None:
    run = make_run(24)
    exported = medtune("human", "export", "run", "--n", 12)
    assert exported.status == 0
    assert exported.out.splitlines() == ["run/human/rate.html", "run/human/sheet.csv"]
    assert "12 items to rate" in exported.err
    assert "run/human/key.json opens the ratings: keep it, and the run, from the raters" in exported.err

    sheet, key = run.human_dir / "sheet.csv", run.human_dir / "key.json"
    files = [fill_in(sheet, key, "anna.csv"), fill_in(sheet, key, "ben.csv", every=2)]
    scored = medtune("human", "score", *files)
    assert (scored.status, scored.err) == (0, "")
    assert scored.out.splitlines()[-1] == f"{run.human_dir}/scores.json"
    assert "Raters prefer the tuned model's answers (win rate 1.00" in scored.out.replace("\n", " ")

    scores = json.loads((run.human_dir / "scores.json").read_text())
    assert scores["sheet"] == read_key(key).sheet
    assert {name: count["items"] for name, count in scores["raters"].items()} == {"anna": 12, "ben": 6}
    assert (scores["win_rate"]["wins"], scores["win_rate"]["losses"], scores["win_rate"]["ties"]) == (18, 0, 0)
    assert scores["win_rate"]["verdict"] == "better"
    assert scores["criteria"]["freedom_from_harm"] == {
        "baseline": 2.0, "tuned": 5.0, "difference": 3.0, "low": 3.0, "high": 3.0, "n": 18,
    }  # fmt: skip
    assert scores["agreement"]["preference"]["alpha"] == 1.0
    assert scores["agreement"]["accuracy"] == {"alpha": 1.0, "units": 12, "level": "ordinal", "reason": ""}
    assert scores["reading"][0].startswith("Raters prefer the tuned model's answers")


def test_raters_come_in_one_by_one(medtune, make_run) -> None:
    run = make_run(24)
    medtune("human", "export", "run", "--n", 12)
    sheet, key = run.human_dir / "sheet.csv", run.human_dir / "key.json"
    first = fill_in(sheet, key, "anna.csv")
    medtune("human", "score", first)
    second = fill_in(sheet, key, "ben.csv", worse=3)
    assert medtune("human", "score", first, second).status == 0
    assert len(json.loads((run.human_dir / "scores.json").read_text())["raters"]) == 2
    found = medtune("human", "score", first)
    assert "replaced, without the ratings of ben; give all files" in " ".join(found.err.split())


def test_a_copy_of_a_file_is_no_second_rater(medtune, make_run) -> None:
    run = make_run(24)
    medtune("human", "export", "run", "--n", 12)
    sheet, key = run.human_dir / "sheet.csv", run.human_dir / "key.json"
    files = [fill_in(sheet, key, name) for name in ("anna.csv", "anna copy.csv")]
    found = medtune("human", "score", *files)
    assert found.status == 2
    assert "anna and anna copy: gave the same ratings to all 12 items" in " ".join(found.err.split())


def test_an_empty_sheet_of_another_run_is_told(medtune, make_run) -> None:
    run, other = make_run(24), make_run(24, name="other")
    medtune("human", "export", "run", "--n", 6)
    medtune("human", "export", "other", "--n", 6)
    filled = fill_in(run.human_dir / "sheet.csv", run.human_dir / "key.json", "anna.csv")
    found = medtune("human", "score", filled, other.human_dir / "sheet.csv", "--key", "run")
    assert found.status == 2
    assert "belongs to sheet" in found.err


def test_the_key_can_be_named_in_three_ways(medtune, make_run, tmp_path: Path) -> None:
    run = make_run()
    medtune("human", "export", "run", "--n", 6)
    filled = fill_in(run.human_dir / "sheet.csv", run.human_dir / "key.json", "anna.csv")
    away = filled.rename(tmp_path / "anna.csv")
    for number, key in enumerate(["run", "run/human", "run/human/key.json"]):
        assert medtune("human", "score", away, "--key", key, "--out", f"scores-{number}.json").status == 0
    written = [(tmp_path / f"scores-{number}.json").read_text() for number in range(3)]
    assert written[0] == written[1] == written[2]
    assert not (run.human_dir / "scores.json").exists()


def test_bad_input_is_one_line_and_writes_nothing(medtune, make_run, tmp_path: Path) -> None:
    make_run()
    make_run(name="other")
    medtune("human", "export", "run", "--n", 6)
    medtune("human", "export", "other", "--n", 6)
    filled = fill_in(tmp_path / "run/human/sheet.csv", tmp_path / "run/human/key.json", "anna.csv")
    (tmp_path / "loose.csv").write_text("sheet,item,preference\nx,1,A\n")
    (tmp_path / "bad.json").write_text("{}")
    cases = {
        ("export", "absent"): "absent: not a medtune run (no config.yaml)",
        ("export", "run", "--out", "fresh", "--n", "99"): "--n 99: this run has 20 test rows to rate",
        ("export", "run"): "run/human: not empty, and a new key would make its sheet and ratings worthless",
        ("score", "loose.csv"): "no key.json beside loose.csv; name it, or the run, with --key",
        ("score", "loose.csv", "--key", "absent"): "absent: holds no key.json of `medtune human export`",
        ("score", "loose.csv", "--key", "bad.json"): "bad.json: not a key of `medtune human export`",
        ("score", str(filled), "--key", "other"): f"{filled}: belongs to sheet ",
        ("score", "run/human/sheet.csv"): "run/human/sheet.csv: nothing is rated",
        ("score", "absent.csv", "--key", "run"): "absent.csv: cannot be read (No such file or directory)",
        ("score", str(filled), "--out", "run/human/key.json"): "run/human/key.json: is the key; name another file",
        ("score", str(filled), "--out", "run"): "run: cannot be written (Is a directory)",
    }
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments, message in cases.items():
        result = medtune("human", *arguments)
        assert (result.status, result.out) == (2, ""), arguments
        assert result.err.count("\n") == 1, result.err
        assert result.err.startswith(f"medtune: {message}"), result.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
