"""`medtune score` and `medtune compare FILE FILE`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import Medtune, command_runner

SENTENCE = "the heart pumps blood through the lungs and the body of a person at rest"


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Medtune:
    """Runs a command line in a folder of two files of predictions, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, kept in (("before", 2), ("after", 4)):
        rows = [
            {
                "id": number,
                "reference": f"{SENTENCE} {number}.",
                "prediction": f"{SENTENCE[: 10 * kept + 5 * (number % 5)]} and {number}.",
                "group": number // 2,
                "new_tokens": 20,
                "finish_reason": "stop",
            }
            for number in range(80)
        ]
        write(tmp_path / f"{name}.jsonl", *rows)
        write(tmp_path / f"{name}-bare.jsonl", *({key: row[key] for key in ("id", "prediction")} for row in rows))
    write(tmp_path / "other.jsonl", {"id": 0, "reference": "Gout.", "prediction": "Flu."})
    (tmp_path / "folder").mkdir()

    return command_runner(monkeypatch, capsys)


def write(path: Path, *rows: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_score(medtune: Medtune, tmp_path: Path) -> None:
    result = medtune("score", "--predictions", "before.jsonl", "--resamples", "500", "--out", "scores.json")
    assert (result.status, result.err) == (0, "")
    assert "80 rows in 40 groups" in result.out
    table = {line.split()[0]: line for line in result.out.splitlines() if line.strip()}
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    for metric, score in scores.items():
        assert f"{score['value']:.{2 if metric == 'bleu' else 4}f}" in table[metric]
        assert f"{metric}: {score['signature']}" in result.out.splitlines()  # whole, however long
        assert (score["n"], score["groups"]) == (80, 40)
        assert score["ci95"][0] <= score["value"] <= score["ci95"][1]
    assert {"bleu", "compat_bleu", "rougeLsum", "compat_rougeLsum", "exact_match"} <= set(scores)


def test_score_takes_the_file_by_itself(medtune: Medtune) -> None:
    by_option = medtune("score", "--predictions", "after.jsonl", "--metric", "bleu")
    assert medtune("score", "after.jsonl", "--metric", "bleu") == by_option


def test_score_tells_what_its_texts_are(medtune: Medtune, tmp_path: Path) -> None:
    row = {"id": 1, "references": ["\u75db\u98ce", "\u75db"], "prediction": "<think></think>\u75db"}
    write(tmp_path / "zh.jsonl", row)
    result = medtune("score", "zh.jsonl", "--metric", "bleu")
    assert (result.status, result.err) == (0, "")
    assert "bleu: nrefs:2|case:mixed|eff:no|tok:zh|" in result.out
    assert "Warning: do not go by compat_bleu: 100% of the letters" in result.out
    assert "Warning: text that is not the answer was left out before scoring: reasoning in 1 answer." in result.out


def test_score_with_references_of_their_own(medtune: Medtune) -> None:
    whole = medtune("score", "--predictions", "after.jsonl", "--metric", "bleu")
    joined = medtune("score", "--predictions", "after-bare.jsonl", "--references", "before.jsonl", "--metric", "bleu")
    assert joined.status == whole.status == 0
    values = [[line.split()[1] for line in run.out.splitlines() if line.startswith("bleu ")] for run in (whole, joined)]
    assert values[0] == values[1]
    assert "80 rows in 80 groups" in joined.out  # the bare file has no groups


def test_compare(medtune: Medtune, tmp_path: Path) -> None:
    result = medtune("compare", "before.jsonl", "after.jsonl", "--resamples", "500", "--out", "comparison.json")
    assert (result.status, result.err) == (0, "")
    assert "before and after on the same 80 rows" in result.out
    assert "better" in result.out
    assert "On 80 questions in 40 groups after, against before, is better by" in " ".join(result.out.split())
    assert max(map(len, result.out.splitlines())) <= 80
    rows = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    bleu = next(row for row in rows if row["metric"] == "bleu")
    assert bleu["verdict"] == "descriptive"
    assert next(row for row in rows if row["metric"] == "rougeL")["verdict"] == "better"
    assert bleu["baseline"] < bleu["tuned"]
    assert bleu["ci95"][0] < bleu["difference"] < bleu["ci95"][1]


def test_files_without_groups_are_told_once_that_rows_count_as_independent(medtune: Medtune, tmp_path: Path) -> None:
    for name in ("before", "after"):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        write(tmp_path / f"{name}-alone.jsonl", *({**row, "group": None} for row in rows))
    texts = [
        " ".join(medtune("compare", *files).out.split())
        for files in (("before.jsonl", "after.jsonl"), ("before-alone.jsonl", "after-alone.jsonl"))
    ]
    assert [text.count("all rows count as independent of each other") for text in texts] == [0, 1]
    assert "in a field or column `group` of either file" in texts[1]


def test_so_is_who_scores_a_file_without_groups(medtune: Medtune) -> None:
    texts = [
        " ".join(medtune("score", *files, "--metric", "exact_match").out.split())
        for files in (["before.jsonl"], ["before-bare.jsonl", "--references", "before.jsonl"])
    ]
    assert [text.count("all rows count as independent of each other") for text in texts] == [0, 1]
    assert "say which in a field or column `group`; intervals are too narrow without it." in texts[1]


def test_texts_and_primary_metrics_have_options(medtune: Medtune, tmp_path: Path) -> None:
    options = ["--bleu-tokenizer", "char", "--rouge-tokenizer", "unicode-words", "--answers", "raw"]
    result = medtune("score", "before.jsonl", *options, "--metric", "bleu", "--metric", "rougeL")
    assert (result.status, result.err) == (0, "")
    lines = [line for line in result.out.splitlines() if line.startswith(("bleu: ", "rougeL: "))]
    assert [("tok:char" in line, "tok:unicode-words" in line) for line in lines] == [(True, False), (False, True)]
    assert all(line.endswith("|answers:raw") for line in lines)
    result = medtune(
        "compare",
        "before.jsonl",
        "after.jsonl",
        *options,
        "--primary",
        "bleu",
        "--primary",
        "rouge1",
        "--out",
        "x.json",
    )
    assert (result.status, result.err) == (0, "")
    rows = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert [row["metric"] for row in rows if row["verdict"] != "descriptive"] == ["bleu", "rouge1"]


BARE = (
    "before-bare.jsonl: row 1: no reference; it has id, prediction; name the columns id, reference, prediction and, "
    "where rows share a topic, group"
)
BAD_INPUT = [
    (["score", "--predictions", "absent.jsonl"], "absent.jsonl: no such file"),
    (["score", "--predictions", "x" * 300], "no such file"),
    (["score", "--predictions", "folder"], "folder: no such file"),
    (["score", "--predictions", "before-bare.jsonl"], BARE),
    (
        ["score", "--predictions", "before-bare.jsonl", "--references", "other.jsonl"],
        "before-bare.jsonl: row 2: id 1 is not in other.jsonl",
    ),
    (["score", "--predictions", "before.jsonl", "--metric", "rouge"], "--metric rouge: unknown"),
    (
        ["score", "--predictions", "before.jsonl", "--metric", "bertscore"],
        "--metric bertscore: unknown; did you mean bertscore_f1? known are bleu, ",
    ),
    (["score", "--predictions", "before.jsonl", "--metric", "bertscore_f1"], "needs an encoder"),
    (["score", "--predictions", "other.jsonl", "--out", "other.jsonl/x.json"], "other.jsonl/x.json: cannot be written"),
    (["score", "--predictions", "before.jsonl", "--resamples", "0"], "--resamples 0: must be a whole number from 200"),
    (["score", "before.jsonl", "--answers", "all"], "--answers 'all': must be 'separated' or 'raw'"),
    (["compare", "before.jsonl", "after.jsonl", "--primary", "rouge"], "--primary rouge: unknown"),
    (
        ["compare", "folder", "--primary", "bleu"],
        "medtune: --primary, --bleu-tokenizer, --rouge-tokenizer, --answers, ",
    ),
    (["compare", "folder", "--resamples", "1000"], "--resamples and --out go with two files"),
    (["compare", "before.jsonl", "other.jsonl"], "before and other answer different rows: 79 ids in one of them alone"),
    (["compare", "before.jsonl", "absent.jsonl"], "absent.jsonl: no such file"),
    (["compare", "before.jsonl"], "before.jsonl: one file of predictions has nothing to be compared with"),
    (["compare", "folder", "--metric", "bleu"], "--metric, --bertscore-model, --resamples and --out go with two files"),
    (["compare", "folder", "before.jsonl"], "folder and before.jsonl: a run and a file of predictions do not compare"),
    (["compare", "folder", "folder"], "folder: not a medtune run (no config.yaml)"),
    (["compare", "folder"], "folder: not a medtune run (no config.yaml)"),
    (["score"], "medtune score: a file of predictions is missing; give one: medtune score FILE"),
    (["score", "before.jsonl", "--predictions", "after.jsonl"], "two files of predictions are given; give one"),
    (["compare", "x" * 300], "not a medtune run"),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD_INPUT, ids=[" ".join(a)[:50] for a, _ in BAD_INPUT])
def test_bad_input_ends_in_one_line_and_status_2(medtune: Medtune, arguments: list[str], expected: str) -> None:
    result = medtune(*arguments)
    assert result.status == 2
    assert expected in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert "Traceback" not in result.err
    assert result.out == ""


def test_too_few_resamples_for_any_verdict(medtune: Medtune) -> None:
    """With a hundred, no p over three primary metrics would be steady in its second digit."""
    result = medtune("compare", "before.jsonl", "after.jsonl", "--resamples", "100")
    assert result.status == 2
    assert "--resamples 100: must be a whole number from 200 to 100,000" in result.err
