"""Weights that are stored packed: loaded, dequantised or refused."""

import json

import pytest

from medtune.config.schema import ModelSection
from medtune.errors import ModelError
from medtune.model import quantization
from medtune.model.stored_weights import check_quantization, loading_options, stored_quantization


def folder(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    return tmp_path


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


def test_what_compressed_tensors_packed_comes_dequantised(tmp_path, monkeypatch):
    quantised = '{"quant_method": "compressed-tensors", "format": "float-quantized"}'
    stored = f'{{"model_type": "llama", "quantization_config": {quantised}}}'
    path, section = folder(tmp_path, stored), ModelSection(base="x/y", quantization="none")
    (config,) = loading_options(path, section, "bfloat16").values()
    assert config.quantization_config == {**json.loads(quantised), "dequantize": True}
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as error:
        loading_options(path, section, "bfloat16")
    assert str(error.value) == (
        "x/y: its weights are stored as compressed-tensors, whose package is not installed; "
        'pip install "medtune[export]"'
    )


def test_a_configuration_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json cannot be used"):
        stored_quantization(folder(tmp_path, '{"quantization_config": 4}'))


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
