"""Which tensors a merged model has and in which files; bases that are not merged into."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from merge_checks import assert_same, by_peft, edited, load, merge, refused, save_adapter
from safetensors.torch import load_file, save_file

from medtune.model.merging import planning
from medtune.model.tensor_files import StoredTensor


def test_shards_are_small_and_indexed(tiny, adapter, tmp_path):
    limit = 100_000
    merged = merge(tiny.path, adapter, tmp_path / "merged", shard_bytes=limit)
    files = sorted(merged.glob("*.safetensors"))
    assert [file.name for file in files] == [f"model-{n:05}-of-{len(files):05}.safetensors" for n in
                                             range(1, len(files) + 1)]  # fmt: skip
    largest = max(tensor.nbytes for file in files for tensor in load_file(file).values())
    assert largest > limit, "the tiny model has an embedding above the limit, which has a file of its own"
    assert all(sum(t.nbytes for t in load_file(file).values()) <= limit or len(load_file(file)) == 1 for file in files)
    index = json.loads((merged / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for file in files for t in load_file(file).values())
    assert_same(load(merged).state_dict(), by_peft(tiny.path, adapter).state_dict())


def test_two_gigabytes_with_the_header():
    assert planning.SHARD_BYTES + 2**20 <= 2 * 10**9


def test_a_base_in_several_files(tiny, adapter, tmp_path):
    load(tiny.path).save_pretrained(tmp_path / "base", max_shard_size=60_000)
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 2
    merged = merge(tmp_path / "base", adapter, tmp_path / "merged")
    assert_same(load(merged).state_dict(), by_peft(tiny.path, adapter).state_dict())


def test_names_without_the_decoders_prefix(tiny, adapter, tmp_path):
    base = shutil.copytree(tiny.path, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    renamed = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    save_file(renamed, base / "model.safetensors", metadata={"format": "pt"})
    merged = merge(base, adapter, tmp_path / "merged")
    assert load_file(merged / "model.safetensors").keys() == renamed.keys()
    assert_same(load(merged).state_dict(), by_peft(tiny.path, adapter).state_dict())


def test_a_decoder_that_stands_elsewhere_is_found_by_layer_and_shape(tmp_path):
    """As in files of models that also see; what is not the only candidate is not taken."""
    tail = "layers.0.self_attn.q_proj.weight"
    names = {f"language_model.model.{tail}": (8, 4), f"vision.encoder.{tail}": (6, 6), "language_model.other": (8, 4)}
    tensors = {
        name: planning.MergedTensor(StoredTensor(tmp_path, name, torch.float32, shape), torch.float32)
        for name, shape in names.items()
    }
    find = planning._stored_name
    assert find(f"model.language_model.{tail}", (8, 4), tensors, "model") == f"language_model.model.{tail}"
    assert find(f"model.vision.encoder.{tail}", (6, 6), tensors, "model") == f"vision.encoder.{tail}"
    assert find(f"model.language_model.{tail}", (4, 8), tensors, "model") is None
    tensors[f"second.{tail}"] = tensors[f"language_model.model.{tail}"]
    assert find(f"model.language_model.{tail}", (8, 4), tensors, "model") is None


def test_tied_embeddings_stay_tied(tied, tmp_path):
    adapter = save_adapter(tied, tmp_path / "adapter")
    merged = merge(tied, adapter, tmp_path / "merged")
    assert "lm_head.weight" not in load_file(merged / "model.safetensors")
    assert_same(load(merged).state_dict(), by_peft(tied, adapter).state_dict())


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("changed", ["lm_head", "embed_tokens"])
def test_an_adapter_on_one_of_two_tied_embeddings_leaves_the_other(tied, tmp_path, changed):
    from peft import PeftModel

    adapter = save_adapter(tied, tmp_path / "adapter", target_modules=["q_proj", changed])
    merged = load(merge(tied, adapter, tmp_path / "merged"))
    before = load(tied).state_dict()
    is_same = {name: torch.equal(merged.state_dict()[f"{name}.weight"], before[f"{name}.weight"])
               for name in ("lm_head", "model.embed_tokens")}  # fmt: skip
    assert is_same == {name: not name.endswith(changed) for name in is_same}
    ids = torch.randint(10, 300, (1, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = PeftModel.from_pretrained(load(tied), adapter).eval()(input_ids=ids).logits
        assert torch.allclose(merged(input_ids=ids).logits, expected, atol=1e-4)


def test_packed_weights_are_never_merged_into(tiny, adapter, tmp_path):
    base = shutil.copytree(tiny.path, tmp_path / "base")
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    config = json.loads((base / "config.json").read_text()) | {"quantization_config": quantization}
    (base / "config.json").write_text(json.dumps(config))
    refused(base, adapter, "the base: its weights are stored as bitsandbytes, .* 16-bit original", tmp_path)


def test_packed_weights_whose_configuration_hides_it(tiny, adapter, tmp_path):
    name = "model.layers.0.self_attn.q_proj.weight"
    packed = torch.zeros(64, 64, dtype=torch.uint8)
    base = edited(tmp_path / "base", tiny.path, lambda weights: weights.update({name: packed}))
    refused(base, adapter, f"{name} is stored as uint8, packed", tmp_path)


def test_a_base_without_the_layer(tiny, adapter, tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    base = edited(tmp_path / "base", tiny.path, lambda weights: weights.pop(name))
    refused(base, adapter, f"the base: holds no {name}", tmp_path)
