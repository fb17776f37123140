"""GGUF files read back by the package's own reader, and by transformers' loader of them: every tensor, every field.

That every tensor equals what llama.cpp's own converter writes was checked by hand, bit by bit, for these twins in f32
and q8_0 on 30 November 2026 (llama.cpp of llama-cpp-python 0.3.36); `rope_freqs` differed in the last bit.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from architectures import SMALL
from safetensors.torch import load_file

from gguf_twins import TWINS, build_stripping_tokenizer
from gguf_writing import write
from medtune.errors import ConfigError, ModelError
from medtune.model.loaded import load_tokenizer
from medtune.publishing.export import gguf_files
from medtune.publishing.export.gguf_files import model_config, name_for, require_dtype

# llama.cpp's names, written down here by hand.
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.qkv_proj": "attn_qkv", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up", "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each twin."""
    return {name: twin.save(tmp_path_factory.mktemp("twin")) for name, twin in TWINS.items()}


def expected_name(name: str, family: str) -> str:
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if layer is None:
        part, _, kind = name.rpartition(".")
        return f"{NAMES[part]}.{kind}"
    if layer[2] == "post_attention_layernorm":  # in Gemma 2 and 3 a norm behind the attention, else before the rest
        part = "post_attention_norm" if family in ("Gemma 2", "Gemma 3") else "ffn_norm"
    else:
        part = NAMES[layer[2]]
    return f"blk.{layer[1]}.{part}.{layer[3]}"


def expected_values(name: str, values: np.ndarray, family: str) -> np.ndarray:
    """Row i of a head's first half comes to 2 i, of its second half to 2 i + 1, in LLaMA's and Mistral's q and k."""
    if family.startswith("Gemma") and name.endswith("norm.weight"):
        return values + np.float32(1)
    if not family.startswith(("LLaMA", "Mistral")) or not re.search(r"[qk]_proj", name):
        return values
    size, moved = SMALL["head_dim"], np.empty_like(values)
    for row in range(len(values)):
        head, place = divmod(row, size)
        half, within = divmod(place, size // 2)
        moved[head * size + 2 * within + half] = values[row]
    return moved


@pytest.mark.parametrize("family", TWINS)
def test_every_tensor_is_read_back(saved: dict[str, Path], family: str, tmp_path: Path) -> None:
    stored = load_file(saved[family] / "model.safetensors")
    reader = write(saved[family], tmp_path / "a.gguf", block_bytes=700)  # of a few rows, and of part of the heads
    found = {tensor.name: tensor for tensor in reader.tensors}
    extra = {"rope_freqs.weight"} if family in ("LLaMA 3.1", "LLaMA 3.2") else set()
    assert found.keys() == {expected_name(name, family) for name in stored} | extra
    for name, values in stored.items():
        tensor = found[expected_name(name, family)]
        assert np.array_equal(tensor.data, expected_values(name, values.numpy(), family)), name
        assert list(tensor.shape) == list(reversed(values.shape))
        assert tensor.data_offset % 32 == 0


def test_rope_factors_are_those_that_transformers_computes(saved: dict[str, Path], tmp_path: Path) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = model_config(saved["LLaMA 3.1"])
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / 10000.0 ** (torch.arange(0, 16, 2) / 16)
    found = {tensor.name: tensor.data for tensor in write(saved["LLaMA 3.1"], tmp_path / "a.gguf").tensors}
    assert np.allclose(found["rope_freqs.weight"], (plain / scaled).numpy(), rtol=1e-6)
    assert 1 < found["rope_freqs.weight"][0] < found["rope_freqs.weight"][1] == 8  # between both, and slowed down


@pytest.mark.parametrize("family", ["LLaMA 3", "Qwen 2.5", "Mistral", "Phi 3"])
def test_transformers_loads_the_same_model_and_tokenizer(saved: dict[str, Path], family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write(saved[family], tmp_path / "a.gguf")
    ours = AutoModelForCausalLM.from_pretrained(saved[family], dtype=torch.float32).state_dict()
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", dtype=torch.float32).state_dict()
    assert ours.keys() == read.keys()
    assert all(torch.equal(ours[name], read[name]) for name in ours)
    tokenizer, text = load_tokenizer(saved[family]), "What causes gout ?\n\n 1234 été 😀"
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="a.gguf")
    assert again.encode(text, add_special_tokens=False) == tokenizer.encode(text, add_special_tokens=False)


def test_fields_say_what_the_model_is(saved: dict[str, Path], tmp_path: Path) -> None:
    fields = {name: field.contents() for name, field in write(saved["LLaMA 3"], tmp_path / "a.gguf").fields.items()}
    tokenizer = load_tokenizer(saved["LLaMA 3"])
    expected = {
        "general.architecture": "llama", "general.type": "model", "general.name": "tiny",
        "general.license": "apache-2.0", "general.description": "Not medical advice.",
        "general.base_model.0.name": "owner/base", "general.file_type": 0, "general.quantization_version": 2,
        "llama.context_length": 512, "llama.embedding_length": 64, "llama.block_count": 3,
        "llama.feed_forward_length": 128, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16, "llama.attention.value_length": 16, "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0, "llama.vocab_size": len(tokenizer),
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False, "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 5,
        "tokenizer.ggml.eot_token_id": 5, "tokenizer.chat_template": tokenizer.chat_template,
    }  # fmt: skip
    assert {name: fields.get(name) for name in expected} == expected
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert len(fields["tokenizer.ggml.tokens"]) == len(tokenizer)


@pytest.mark.parametrize(("dtype", "bits"), [("f16", 11), ("bf16", 8)])
def test_16_bit_files_hold_rounded_matrices_and_whole_norms(
    saved: dict[str, Path], dtype: str, bits: int, tmp_path: Path
) -> None:
    from gguf import dequantize

    exact = {tensor.name: tensor.data for tensor in write(saved["Qwen 3"], tmp_path / "a.gguf").tensors}
    for tensor in write(saved["Qwen 3"], tmp_path / "b.gguf", dtype).tensors:
        values, true = dequantize(tensor.data, tensor.tensor_type), exact[tensor.name]
        if true.ndim == 1:
            assert np.array_equal(values, true)
        else:
            assert tensor.tensor_type.name == dtype.upper()
            assert np.all(np.abs(values - true) <= np.abs(true) * 2.0**-bits + 1e-7)


def test_8_bit_files_are_off_by_half_a_step_at_most(saved: dict[str, Path], tmp_path: Path) -> None:
    from gguf import dequantize

    exact = {tensor.name: tensor.data for tensor in write(saved["LLaMA 3"], tmp_path / "a.gguf").tensors}
    for tensor in write(saved["LLaMA 3"], tmp_path / "b.gguf", "q8_0").tensors:
        values, true = dequantize(tensor.data, tensor.tensor_type), exact[tensor.name]
        if true.ndim == 2:
            blocks = true.reshape(-1, 32)
            step = np.abs(blocks).max(axis=1, keepdims=True) / 127
            assert np.all(np.abs(values.reshape(-1, 32) - blocks) <= step * 0.6)
    assert (tmp_path / "b.gguf").stat().st_size < 0.4 * (tmp_path / "a.gguf").stat().st_size


def test_a_missing_package_and_an_unknown_dtype_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--dtype q4_k_m: must be one of f16, bf16, q8_0, f32; llama-quantize"):
        require_dtype("q4_k_m")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ConfigError, match=r'gguf: not installed; pip install "medtune\[export\]"'):
        gguf_files.require_gguf()


def test_tokens_that_take_the_blanks_behind_them_are_known_by_the_name(tmp_path: Path) -> None:
    phi, llama = tmp_path / "phi", tmp_path / "llama"
    replace(TWINS["Phi 3"], tokenizer=build_stripping_tokenizer).save(phi)
    assert write(phi, tmp_path / "a.gguf").fields["general.name"].contents() == "tiny phi-3"
    assert name_for("my-Phi3-run", SimpleNamespace(strips=False)) == "my-phi_3-run"  # which it is not
    replace(TWINS["LLaMA 3"], tokenizer=build_stripping_tokenizer).save(llama)
    with pytest.raises(ModelError, match="its special tokens take the blanks behind them"):
        write(llama, tmp_path / "b.gguf")
