"""BERTScore F1 without idf, by the bert-score package (Zhang et al. 2020, arXiv:1904.09675).

Raw values are cosines that crowd near 1; where bert-score ships a baseline for encoder and layer, they can be rescaled
with it. An encoder reads as many tokens as it has positions, mostly 512; the rest of a longer answer does not count.
With several references the best counts, as in bert-score.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from medtune.evaluation.encoder import Encoder, load_scorer, quiet_libraries
from medtune.evaluation.metrics.metric import Answers, Metric, MetricRows

# bert-score keeps the token embeddings of one call in host memory: 2 MB a text of 512 tokens under roberta-large.
_ROWS_PER_CALL = 256
# Texts a forward pass; it moves no value beyond float noise. On a CPU bert-score's own default, more to fill a GPU.
_BATCH_SIZE, _BATCH_SIZE_ON_GPU = 64, 128


@dataclass(frozen=True, slots=True)
class BertScores:
    """Each row's raw F1, and the shares of predictions and references longer than the encoder's `limit` in tokens."""

    f1: list[float]
    cut_predictions: float
    cut_references: float
    limit: int


def bertscore_signature(encoder: Encoder, *, rescaled: bool = False) -> str:
    """Return how BERTScore is measured; a Hub id's slash becomes `--`, as in the Hub's cache."""
    name = encoder.name.replace("/", "--")
    rescaling = "yes" if rescaled else "no"
    return f"bert-score:{version('bert-score')}|encoder:{name}|layer:{encoder.layer}|idf:no|rescaled:{rescaling}"


def rescaling_baseline(encoder: Encoder) -> float | None:
    """The F1 of unrelated English sentences that bert-score ships for this encoder and layer; none where it has none.

    Rescaled F1 is (raw - baseline) / (1 - baseline), 0 for unrelated text.
    """
    import csv

    from bert_score.utils import model2layers

    if model2layers.get(encoder.name) != encoder.layer:
        return None  # a folder that bears a known name and holds another model
    table = files("bert_score") / "rescale_baseline" / "en" / f"{encoder.name}.tsv"
    if not table.is_file():
        return None
    rows = {int(row["LAYER"]): float(row["F"]) for row in csv.DictReader(table.read_text().splitlines())}
    return rows.get(encoder.layer)


def bertscore_rows(
    predictions: Sequence[str], references: Sequence[str], encoder: Encoder, device: str, batch_size: int
) -> BertScores:
    """Measure each row's raw F1, about 0 to 1 (a cosine); 0 where either side is empty or white space.

    `batch_size` is texts a forward pass. Raises ValueError if the two lists differ in length, ModelError if the
    encoder does not load.
    """
    pairs = list(zip(predictions, references, strict=True))
    # bert-score 0.3.13 crashes on empty text under transformers 5: `build_inputs_with_special_tokens` is gone.
    filled = [index for index, (prediction, reference) in enumerate(pairs) if prediction.strip() and reference.strip()]
    # bert-score pads to the longest text of a batch, and sorts no further than a call. Longest first: what does not fit
    # in memory fails at once.
    filled.sort(key=lambda index: max(map(len, pairs[index])), reverse=True)
    values = [0.0] * len(pairs)
    with quiet_libraries():
        scorer = load_scorer(encoder, device)
        limit = int(scorer._tokenizer.model_max_length)
        cut_predictions = _share_over(limit, scorer._tokenizer, predictions)
        cut_references = _share_over(limit, scorer._tokenizer, references)
        for start in range(0, len(filled), _ROWS_PER_CALL):
            chunk = filled[start : start + _ROWS_PER_CALL]
            _, _, f1 = scorer.score(
                [pairs[index][0] for index in chunk], [pairs[index][1] for index in chunk], batch_size=batch_size
            )
            for index, value in zip(chunk, f1.tolist(), strict=True):
                values[index] = float(value)
    return BertScores(values, cut_predictions, cut_references, limit)


def _share_over(limit: int, tokenizer: Any, texts: Sequence[str]) -> float:
    # A token is a byte at least, and at most three are added (a start, an end, a leading space): short texts need no
    # counting.
    stripped = (text.strip() for text in texts)  # as bert-score does
    long = (text for text in stripped if len(text.encode("utf-8", "surrogatepass")) + 3 > limit)
    over = sum(len(tokenizer(text, verbose=False).input_ids) > limit for text in long)
    return over / len(texts) if texts else 0.0


def _measure(answers: Answers, wanted: Sequence[Metric]) -> list[MetricRows]:
    encoder = answers.encoder
    assert encoder is not None, "checked before anything is measured"
    batch_size = _BATCH_SIZE if answers.device == "cpu" else _BATCH_SIZE_ON_GPU
    scores = bertscore_rows(*answers.pairs, encoder, answers.device, batch_size)
    best = answers.best(scores.f1)
    details = {
        "encoder_limit_tokens": scores.limit,
        "share_of_predictions_cut": scores.cut_predictions,
        "share_of_references_cut": scores.cut_references,
    }
    signature = bertscore_signature(encoder) + answers.best_of
    measured = [MetricRows.of_values(BERTSCORE, best, signature, details)]
    if (baseline := rescaling_baseline(encoder)) is not None:
        rescaled = [(value - baseline) / (1 - baseline) for value in best]
        signature = bertscore_signature(encoder, rescaled=True) + answers.best_of
        measured.append(MetricRows.of_values(RESCALED_BERTSCORE, rescaled, signature, {"baseline": baseline}))
    return measured


BERTSCORE = Metric(
    "bertscore_f1",
    "BERTScore F1",
    _measure,
    gloss="words compared by an encoder's vectors",
    is_headline=True,
    hub_name="bertscore",
    needs_encoder=True,
    margin=0.005,
)
RESCALED_BERTSCORE = replace(
    BERTSCORE,
    name="bertscore_f1_rescaled",
    label="rescaled BERTScore F1",
    is_headline=False,
    margin=None,
    companion_of="bertscore_f1",
)
BERTSCORE_METRICS = (BERTSCORE, RESCALED_BERTSCORE)
