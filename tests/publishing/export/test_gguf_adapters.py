"""Adapters as GGUF LoRA: A and B as the package's own reader reads them, and the scale that llama.cpp will compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architectures import ARCHITECTURES
from merge_checks import save_adapter
from safetensors.torch import load_file

from medtune.errors import ModelError
from medtune.publishing.export.gguf_adapters import write_adapter
from medtune.publishing.export.gguf_files import Label

gguf = pytest.importorskip("gguf", reason='needs pip install "medtune[export]"')

LABEL = Label("tiny", "owner/base", "apache-2.0", "Not medical advice.")


def exported(tmp_path: Path, family: str = "LLaMA 3", **settings: Any) -> tuple[dict[str, Any], Any, Path]:
    """Tensors by name, the reader, and the stored adapter."""
    base = ARCHITECTURES[family].save(tmp_path / "base")
    targets = {"target_modules": list(ARCHITECTURES[family].targets)}
    adapter = save_adapter(base, tmp_path / "adapter", **targets | settings)
    write_adapter(base, adapter, tmp_path / "a.gguf", LABEL)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    return {tensor.name: tensor.data for tensor in reader.tensors}, reader, adapter


def stored(adapter: Path, layer: str, side: str) -> np.ndarray:
    return load_file(adapter / "adapter_model.safetensors")[f"base_model.model.{layer}.lora_{side}.weight"].numpy()


def test_plain_lora_is_written_as_it_is(tmp_path: Path) -> None:
    found, reader, adapter = exported(tmp_path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter"
    assert (fields["adapter.type"], fields["adapter.lora.alpha"]) == ("lora", 10.0)
    assert fields["general.architecture"] == "llama"
    assert len(found) == 3 * 7 * 2
    layer = "model.layers.1.mlp.down_proj"
    assert np.array_equal(found["blk.1.ffn_down.weight.lora_a"], stored(adapter, layer, "A"))
    assert np.array_equal(found["blk.1.ffn_down.weight.lora_b"], stored(adapter, layer, "B"))
    # Its rank is what llama.cpp divides alpha by.
    assert found["blk.1.ffn_down.weight.lora_b"].shape == (64, 4)


def test_rows_of_b_follow_those_of_queries_and_keys(tmp_path: Path) -> None:
    found, _, adapter = exported(tmp_path)
    layer = "model.layers.0.self_attn.k_proj"
    b = stored(adapter, layer, "B")
    assert np.array_equal(found["blk.0.attn_k.weight.lora_a"], stored(adapter, layer, "A"))
    moved = found["blk.0.attn_k.weight.lora_b"]
    for row in range(len(b)):
        head, place = divmod(row, 16)
        half, within = divmod(place, 8)
        assert np.array_equal(moved[head * 16 + 2 * within + half], b[row])


def test_scales_are_those_of_peft(tmp_path: Path) -> None:
    """Rank-stabilised, and one layer of another rank: alpha over rank, times B A, is PEFT's update."""
    pattern = {"rank_pattern": {"o_proj": 8}, "alpha_pattern": {"up_proj": 3}}
    found, reader, adapter = exported(tmp_path, use_rslora=True, **pattern)
    alpha = reader.fields["adapter.lora.alpha"].contents()
    assert alpha == pytest.approx(10 / 4**0.5 * 4)
    for layer, name, scale in (
        ("model.layers.2.mlp.gate_proj", "blk.2.ffn_gate", 10 / 4**0.5),
        ("model.layers.2.self_attn.o_proj", "blk.2.attn_output", 10 / 8**0.5),
        ("model.layers.2.mlp.up_proj", "blk.2.ffn_up", 3 / 4**0.5),
    ):
        a, b = found[f"{name}.weight.lora_a"], found[f"{name}.weight.lora_b"]
        expected = scale * stored(adapter, layer, "B") @ stored(adapter, layer, "A")
        assert np.allclose(alpha / len(a) * (b @ a), expected, rtol=1e-5, atol=1e-6)


def test_fused_layers_keep_their_one_pair(tmp_path: Path) -> None:
    found, _, adapter = exported(tmp_path, "Phi 3")
    layer = "model.layers.0.self_attn.qkv_proj"
    assert np.array_equal(found["blk.0.attn_qkv.weight.lora_b"], stored(adapter, layer, "B"))
    assert found["blk.0.ffn_up.weight.lora_b"].shape == (256, 4)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"use_dora": True}, r"has more than a plain LoRA.*`medtune merge` it, and export that"),
        ({"modules_to_save": ["lm_head"]}, "lm_head.weight was trained whole, which a GGUF adapter cannot hold"),
    ],
)
def test_what_a_gguf_adapter_cannot_hold_is_refused(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        exported(tmp_path, **settings)
    assert not (tmp_path / "a.gguf").exists()
