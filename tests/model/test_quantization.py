"""Storage formats: each knows its size, its settings and its layers, and the configuration names them all."""

from typing import get_args

import bitsandbytes as bnb
import pytest
import torch
from torch import nn

from medtune.config.schema import ModelSection
from medtune.model.base_weights import BaseWeights
from medtune.model.quantization import (
    FORMATS,
    NF4,
    PLAIN,
    dequantized_bytes,
    format_of,
    is_packed,
    packed_layers,
)

INPUTS, OUTPUTS = 512, 256


def quantized(nested=True):
    layer = bnb.nn.Linear4bit(INPUTS, OUTPUTS, bias=False, compress_statistics=nested, quant_type="nf4")
    return layer.to("cpu").requires_grad_(False)


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


def test_a_format_is_looked_up_once_not_in_every_pass(monkeypatch):
    weights = BaseWeights([quantized(), quantized()])
    monkeypatch.setattr(NF4, "holds", None)
    assert weights.matrix(torch.float32).shape == (2 * OUTPUTS, INPUTS)
