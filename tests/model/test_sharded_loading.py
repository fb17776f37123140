"""A model loaded layer by layer computes what the one computes that transformers loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medtune.config.schema import ModelSection
from medtune.errors import ModelError
from medtune.model import sharding
from medtune.model.decoder_structure import decoder_layers
from medtune.model.loading import load_base_model, resolve_base
from medtune.model.quantization import packed_layers
from medtune.model.sharded_loading import load_in_shards
from tiny_model import Tiny


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process, which holds every part: a whole layer comes back as it went."""

    class Here:
        def wait(self) -> None:
            pass

    def gather(whole: torch.Tensor, part: torch.Tensor) -> Here:
        whole.copy_(part)
        return Here()

    monkeypatch.setattr(sharding, "gather_parts", gather)


def section(tiny: Tiny, **settings: str) -> ModelSection:
    return ModelSection(base=str(tiny.path), **settings)


@pytest.mark.parametrize("packed", [False, True], ids=["16 bit", "stored packed"])
def test_it_has_the_weights_that_transformers_loads(tiny: Tiny, tmp_path: Path, packed: bool) -> None:
    plain = load_base_model(resolve_base(str(tiny.path)), section(tiny), device="cpu", dtype="float32")
    folder = tiny.path
    if packed:
        plain.save_pretrained(tmp_path)
        folder = tmp_path
    model, shards = load_in_shards(resolve_base(str(folder)), section(tiny), device="cpu", dtype="float32")
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    for number, (own, other) in enumerate(zip(decoder_layers(model), decoder_layers(plain), strict=True)):
        shards.require(number, forward=True)
        for mine, theirs in zip(packed_layers(own), packed_layers(other), strict=True):
            assert torch.equal(mine.weight.data, theirs.weight.data)
            assert torch.equal(mine.weight.quant_state.absmax, theirs.weight.quant_state.absmax)
    outside = {name: tensor for name, tensor in model.state_dict().items() if ".layers." not in name}
    for name, tensor in plain.state_dict().items():
        if name in outside:
            assert torch.equal(outside[name], tensor), name
    ids = torch.arange(12)[None]
    angles = [one.model.rotary_emb(torch.zeros(1), ids) for one in (model, plain)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*angles, strict=True))


def test_dense_weights_are_refused(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match="only packed weights are shared out"):
        load_in_shards(resolve_base(str(tiny.path)), section(tiny, quantization="none"), device="cpu", dtype="float32")


def test_a_file_without_a_weight_is_named(tiny: Tiny, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in tiny.path.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (stored,) = tiny.path.glob("*.safetensors")
    tensors = load_file(stored)
    lost = next(name for name in tensors if name.endswith("layers.1.mlp.up_proj.weight"))
    del tensors[lost]
    save_file(tensors, tmp_path / stored.name)
    with pytest.raises(ModelError, match=f"its weights lack {lost}; give a whole model"):
        load_in_shards(resolve_base(str(tmp_path)), section(tiny), device="cpu", dtype="float32")
