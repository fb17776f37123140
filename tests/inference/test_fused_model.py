"""A model prepared for answers: dequantised where memory allows, and the same numbers either way."""

import pytest
import torch

from medtune.config.schema import ModelSection
from medtune.errors import ModelError
from medtune.inference import fused_model
from medtune.inference.fused_model import DEQUANTIZED_SHARE, prepare_inference
from medtune.model.loading import ModelFiles, load_base_model
from medtune.model.quantization import dequantized_bytes
from medtune.runtime.hardware import Choice


def load(tiny, quantization="nf4"):
    section = ModelSection(base=str(tiny.path), quantization=quantization)
    return load_base_model(ModelFiles(tiny.path, None), section, device="cpu", dtype="float32")


def test_weights_that_are_not_packed_stay_as_they_are(tiny):
    choice = prepare_inference(load(tiny, "none"), "float32")
    assert choice == Choice("as they are", "no weight is packed")


def test_packed_weights_are_dequantised_where_they_take_a_part_of_the_memory(tiny, monkeypatch):
    ids = torch.arange(10, 40)[None]
    model = load(tiny)
    expected = model(input_ids=ids).logits
    enough = round(dequantized_bytes(model, torch.float32) / DEQUANTIZED_SHARE) + 1
    for free, value in ((enough, "dequantized"), (enough - 3, "nf4")):
        monkeypatch.setattr(fused_model, "free_bytes", lambda device, free=free: free)
        model = load(tiny)
        assert prepare_inference(model, "float32").value == value
        torch.testing.assert_close(model(input_ids=ids).logits, expected)


def test_a_choice_that_is_kept_has_to_fit(tiny, monkeypatch):
    monkeypatch.setattr(fused_model, "free_bytes", lambda device: 0)
    assert prepare_inference(load(tiny), "float32", Choice("nf4", "kept")).value == "nf4"
    with pytest.raises(ModelError, match=r"do not fit in 0\.0 GiB.*or delete partial\.jsonl"):
        prepare_inference(load(tiny), "float32", Choice("dequantized", "kept"))
