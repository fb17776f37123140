"""Storage formats: each knows its size, its settings and its layers, and the configuration names them all."""

from typing import get_args

import bitsandbytes as bnb
import pytest
import torch
from torch import nn

from medtune.config.schema import ModelSection
from medtune.errors import ModelError
from medtune.model.base_weights import BaseWeights
from medtune.model.quantization import (
    FORMATS,
    NF4,
    PLAIN,
    check_quantization,
    dequantized_bytes,
    format_of,
    is_packed,
    loading_options,
    packed_layers,
    stored_quantization,
)

INPUTS, OUTPUTS = 512, 256


def quantized(nested=True):
    layer = bnb.nn.Linear4bit(INPUTS, OUTPUTS, bias=False, compress_statistics=nested, quant_type="nf4")
    return layer.to("cpu").requires_grad_(False)


def folder(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    return tmp_path


def test_every_format_of_the_configuration_is_known_by_its_name():
    assert set(FORMATS) == set(get_args(ModelSection.model_fields["quantization"].annotation))
    assert all(FORMATS[name].name == name for name in FORMATS)
    assert len({found.label for found in FORMATS.values()}) == len(FORMATS)


def test_nf4_takes_the_bytes_that_bitsandbytes_does():
    layer = quantized()
    state = layer.weight.quant_state
    taken = layer.weight.numel() + state.absmax.numel() + 4 * state.state2.absmax.numel()
    dense = torch.empty(OUTPUTS, INPUTS, device="meta")
    assert FORMATS["nf4"].bytes_of(dense) == taken
    assert FORMATS["none"].bytes_of(dense) == 4 * OUTPUTS * INPUTS
    assert NF4.bytes_per_weight < NF4.bytes_read < 1.1 * NF4.bytes_per_weight


def test_dequantising_reads_packed_weights_and_writes_dense_ones():
    assert FORMATS["nf4"].unpacking_bytes(2) == pytest.approx(2.53)
    assert FORMATS["none"].unpacking_bytes(2) == 0


@pytest.mark.parametrize("nested", [True, False])
def test_layers_tell_their_format(nested):
    layers = nn.ModuleList([quantized(nested), nn.Linear(INPUTS, OUTPUTS), nn.SiLU()])
    assert [format_of(layer).name for layer in layers] == ["nf4", "none", "none"]
    assert [is_packed(layer) for layer in layers] == [True, False, False]
    assert packed_layers(layers) == [layers[0]]
    assert dequantized_bytes(layers, torch.float16) == 2 * INPUTS * OUTPUTS
    for layer in layers[:2]:
        assert format_of(layer).dense(layer).shape == (OUTPUTS, INPUTS)


def test_settings_are_those_of_the_configuration_that_loads_it():
    config = FORMATS["nf4"].loading_config("float16")
    assert config.load_in_4bit
    assert config.bnb_4bit_use_double_quant
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.float16)
    assert PLAIN.loading_config("float16") is None


def test_weights_that_are_stored_packed_are_loaded_as_they_are(tmp_path):
    section = ModelSection(base="x/y")
    assert set(loading_options(folder(tmp_path, "{}"), section, "float32")) == {"quantization_config"}
    stored = '{"quantization_config": {"load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}}'
    assert loading_options(folder(tmp_path, stored), section, "float32") == {}
    assert stored_quantization(tmp_path) == {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ('{"load_in_4bit": true, "bnb_4bit_quant_type": "fp4"}', "nf4"),
        ('{"load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}', "none"),
        ('{"quant_method": "gptq", "bits": 4}', "nf4"),
        ('{"quant_method": "awq"}', "none"),
        ('{"quant_method": "fp8", "fmt": "e4m3"}', "nf4"),
        ('{"quant_method": "compressed-tensors", "format": "float-quantized"}', "nf4"),
        ('{"quant_method": "bitsandbytes", "load_in_8bit": true}', "nf4"),
        ("{}", "nf4"),
    ],
)
def test_weights_in_another_format_are_refused(tmp_path, stored, wanted):
    path = folder(tmp_path, f'{{"quantization_config": {stored}}}')
    with pytest.raises(
        ModelError, match=r"^x/y: its weights are stored as [a-z0-9-]+( \((8 bit|FP4|NF4)\))?, .*give the 16-bit model$"
    ):
        check_quantization(path, ModelSection(base="x/y", quantization=wanted))


def test_a_configuration_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json cannot be used"):
        stored_quantization(folder(tmp_path, '{"quantization_config": 4}'))


def test_a_format_is_looked_up_once_not_in_every_pass(monkeypatch):
    weights = BaseWeights([quantized(), quantized()])
    monkeypatch.setattr(NF4, "holds", None)
    assert weights.matrix(torch.float32).shape == (2 * OUTPUTS, INPUTS)


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        (
            '{"quant_method": "awq", "bits": 4}', "nf4",
            "x/y: its weights are stored as awq, whose layers medtune cannot dequantise for a backward pass: it trains "
            "on NF4 and on 16-bit weights; give the 16-bit model",
        ),
        (
            '{"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}', "none",
            "x/y: its weights are stored as bitsandbytes (NF4), which model.quantization: none cannot use; give "
            "--set model.quantization=nf4, or give the 16-bit model",
        ),
    ],
)  # fmt: skip
def test_why_stored_weights_are_refused(tmp_path, stored, wanted, expected):
    path = folder(tmp_path, f'{{"quantization_config": {stored}}}')
    with pytest.raises(ModelError) as error:
        check_quantization(path, ModelSection(base="x/y", quantization=wanted))
    assert str(error.value) == expected
