"""What becomes of each tensor, block by block."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gguf_twins import TWINS
from gguf_writing import gguf, write
from medtune.errors import ModelError
from medtune.model.tensor_files import stored_tensors
from medtune.publishing.export.gguf_architectures import Architecture, architecture_of
from medtune.publishing.export.gguf_files import model_config
from medtune.publishing.export.gguf_tensors import GgufTensor, heads_of, interleaved, plan_tensors, require_whole_heads


def test_no_block_grows_with_its_tensor(tmp_path: Path) -> None:
    save_file({"model.embed_tokens.weight": torch.ones(20_000, 64)}, tmp_path / "model.safetensors")
    config = TWINS["LLaMA 3"]
    config.save(tmp_path / "shape")
    shape = model_config(tmp_path / "shape")
    (tensor,) = plan_tensors(stored_tensors(tmp_path), shape, architecture_of(shape), "F16")
    sizes = [len(block) for block in tensor.encoded(block_bytes=2**16)]
    assert sum(sizes) == tensor.bytes == 20_000 * 64 * 2
    assert max(sizes) <= 2**15


def test_a_number_beyond_float16_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    folder = TWINS["LLaMA 3"].save(tmp_path / "model")
    values = load_file(folder / "model.safetensors")
    values["model.layers.1.mlp.up_proj.weight"][3, 4] = 1e6
    save_file(values, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight: holds numbers .* give a wider --dtype bf16"):
        write(folder, tmp_path / "a.gguf", "f16")
    assert not list(tmp_path.glob("*gguf*"))
    write(folder, tmp_path / "a.gguf", "bf16")


def test_halves_of_each_head_are_interleaved_in_a_matrix_and_in_a_bias() -> None:
    rows = torch.arange(8.0)
    wanted = [0, 2, 1, 3, 4, 6, 5, 7]
    assert interleaved(rows, heads=2).tolist() == wanted
    assert interleaved(rows[:, None] * torch.tensor([1.0, 10.0]), heads=2)[:, 1].tolist() == [
        10 * row for row in wanted
    ]
    assert interleaved(rows, heads=1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


HEADS = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, head_dim=16)


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("model.layers.0.self_attn.q_proj.weight", 4),
        ("model.layers.0.self_attn.q_proj.bias", 4),
        ("model.layers.0.self_attn.k_proj.weight", 2),
        ("model.layers.0.self_attn.v_proj.weight", 0),
        ("model.layers.0.self_attn.q_norm.weight", 0),
    ],
)
def test_queries_and_keys_alone_are_reordered_and_only_where_llama_cpp_rotates_neighbours(
    name: str, heads: int
) -> None:
    assert heads_of(name, HEADS, Architecture("llama", permutes=True)) == heads
    assert heads_of(name, HEADS, Architecture("qwen2")) == 0


def test_keys_have_the_queries_heads_where_they_have_none_of_their_own() -> None:
    config = SimpleNamespace(num_attention_heads=4, num_key_value_heads=None)
    assert heads_of("k_proj.weight", config, Architecture("llama", permutes=True)) == 4


def test_rows_that_are_no_whole_heads_are_refused() -> None:
    kind = gguf.GGMLQuantizationType.F32
    require_whole_heads([GgufTensor("blk.0.attn_q.weight", kind, (64, 8), heads=4)], HEADS)
    with pytest.raises(ModelError, match=r"blk.0.attn_q.weight: has 60 rows for 4 heads; merge again"):
        require_whole_heads([GgufTensor("blk.0.attn_q.weight", kind, (60, 8), heads=4)], HEADS)


@pytest.mark.parametrize(
    ("shape", "wanted", "kind"),
    [((64,), "Q8_0", "F32"), ((3, 64), "Q8_0", "Q8_0"), ((3, 40), "Q8_0", "F16"), ((3, 40), "BF16", "BF16")],
)
def test_rows_that_blocks_do_not_divide_stay_in_16_bits(
    tmp_path: Path, shape: tuple[int, ...], wanted: str, kind: str
) -> None:
    save_file({"model.embed_tokens.weight": torch.ones(shape)}, tmp_path / "model.safetensors")
    config = model_config(TWINS["LLaMA 3"].save(tmp_path / "shape"))
    (tensor,) = plan_tensors(stored_tensors(tmp_path), config, architecture_of(config), wanted)
    assert tensor.kind.name == kind
    assert sum(len(block) for block in tensor.encoded()) == tensor.bytes


def test_a_tensor_that_llama_cpp_has_no_name_for_is_named(tmp_path: Path) -> None:
    save_file({"model.layers.0.mlp.extra.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    config = model_config(TWINS["LLaMA 3"].save(tmp_path / "shape"))
    with pytest.raises(ModelError, match=r"model.layers.0.mlp.extra.weight: llama.cpp's llama has no such tensor"):
        plan_tensors(stored_tensors(tmp_path), config, architecture_of(config), "F16")
