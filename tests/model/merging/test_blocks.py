"""Merging: PEFT's own numbers, rounded once, in files that plain transformers loads; and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medtune.errors import ModelError
from medtune.model.merging import blocks as merging
from medtune.model.merging.blocks import plan_merge, write_merge
from medtune.model.tensor_files import StoredTensor, TensorFileWriter

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(folder: Path, **options):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=options.pop("dtype", torch.float32), **options).eval()


def save_adapter(base: Path, folder: Path, *, scale: float = 0.1, **settings) -> Path:
    """A stored adapter whose weights are all random; the base's copy of trained layers is changed too."""
    from peft import LoraConfig, get_peft_model

    options = {"r": 4, "lora_alpha": 10, "target_modules": SEVEN, "task_type": "CAUSAL_LM", **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = get_peft_model(load(base), LoraConfig(**options))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=scale)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def merge(base: Path, adapter: Path, folder: Path, dtype: str = "float32", **options) -> Path:
    plan = plan_merge(base, adapter, name="the base", dtype=dtype, **options)
    folder.mkdir(parents=True)
    write_merge(plan, folder)
    config = json.loads((base / "config.json").read_text()) | {"dtype": dtype}
    if plan.untied:
        config["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def by_peft(base: Path, adapter: Path):
    from peft import PeftModel

    return PeftModel.from_pretrained(load(base), adapter).merge_and_unload()


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
    return save_adapter(tiny.path, tmp_path_factory.mktemp("merged") / "adapter")


@pytest.fixture
def tied(tiny, tmp_path):
    """The tiny model with one tensor for both embeddings."""
    folder = shutil.copytree(tiny.path, tmp_path / "tied")
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"target_modules": ["q_proj", "down_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=["seven projections", "rank-stabilised", "patterns", "embeddings", "modules to save"],
)
def test_a_float32_merge_is_pefts_bit_for_bit(tiny, tmp_path, settings):
    adapter = save_adapter(tiny.path, tmp_path / "adapter", **settings)
    merged = load(merge(tiny.path, adapter, tmp_path / "merged")).state_dict()
    assert_same(merged, by_peft(tiny.path, adapter).state_dict())
    assert any(not torch.equal(merged[name], value) for name, value in load(tiny.path).state_dict().items())


def small_model(kind: str, folder: Path) -> Path:
    """A random model of two layers of another structure."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300, "pad_token_id": 0}
    if kind != "gpt2":
        sizes |= {"intermediate_size": 96, "num_key_value_heads": 2, "tie_word_embeddings": False}
    config = AutoConfig.for_model(kind, **sizes, bos_token_id=1, eos_token_id=2)
    with torch.random.fork_rng(devices=[]):
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("qwen2", {"target_modules": ["q_proj", "up_proj"], "bias": "all"}),
        ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"]}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    ],
    ids=["trained biases", "joined projections", "weights the other way round"],
)
def test_other_structures(tmp_path, kind, settings):
    base = small_model(kind, tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter", **settings)
    merged = load(merge(base, adapter, tmp_path / "merged")).state_dict()
    assert_same(merged, by_peft(base, adapter).state_dict())


def test_the_merged_model_answers_as_base_and_adapter(tiny, adapter, tmp_path):
    from peft import PeftModel

    ids = torch.randint(10, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    merged = load(merge(tiny.path, adapter, tmp_path / "merged"))
    worn = PeftModel.from_pretrained(load(tiny.path), adapter).eval()
    with torch.no_grad():
        found, expected, before = (model(input_ids=ids).logits for model in (merged, worn, load(tiny.path)))
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(before, expected, atol=0.1)


def test_sixteen_bit_weights_are_rounded_once(tiny, adapter, tmp_path):
    base = shutil.copytree(tiny.path, tmp_path / "base")
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    merged = load_file(merge(base, adapter, tmp_path / "merged", "bfloat16") / "model.safetensors")
    exact = by_peft(base, adapter).state_dict()  # in float32
    assert_same(merged, {name: exact[name].to(torch.bfloat16) for name in merged})


def test_blocks_of_any_size_give_the_same(tiny, adapter, tmp_path):
    plan = plan_merge(tiny.path, adapter, name="the base", dtype="bfloat16")
    folders = [tmp_path / "whole", tmp_path / "blocks"]
    seen = []
    for folder, size in zip(folders, (merging.BLOCK_BYTES, 5000), strict=True):
        folder.mkdir()
        counts = []
        write_merge(plan, folder, on_bytes=counts.append, block_bytes=size)
        assert sum(counts) == plan.bytes
        seen.append(len(counts))
    assert seen[0] < seen[1]
    whole, parts = (load_file(folder / "model.safetensors") for folder in folders)
    # A matrix product of fewer rows may take another kernel.
    assert all(torch.allclose(whole[name].float(), parts[name].float(), rtol=1e-2, atol=1e-5) for name in whole)
    assert whole.keys() == parts.keys()


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
    assert merging.SHARD_BYTES + 2**20 <= 2 * 10**9


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
        name: merging.MergedTensor(StoredTensor(tmp_path, torch.float32, shape, 0), torch.float32)
        for name, shape in names.items()
    }
    find = merging._stored_name
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


# What is refused ------------------------------------------------------------------------------------------------------


def refused(base, adapter, match, tmp_path, dtype="bfloat16"):
    with pytest.raises(ModelError, match=match) as caught:
        merge(base, adapter, tmp_path / "merged", dtype)
    assert "\n" not in str(caught.value)


def edited(folder: Path, source: Path, change) -> Path:
    """A copy of a stored adapter or model with other weights."""
    copy = shutil.copytree(source, folder)
    file = next(copy.glob("*.safetensors"))
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})
    return copy


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


def test_an_adapter_of_another_model(tiny, adapter, tmp_path):
    other = shutil.copytree(tiny.path, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"num_hidden_layers": 1}
    (other / "config.json").write_text(json.dumps(config))
    refused(other, adapter, "no place in the model, such as", tmp_path)
    config |= {"num_hidden_layers": 2, "intermediate_size": 96}
    (other / "config.json").write_text(json.dumps(config))
    refused(other, adapter, "has shape", tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_adapter(tiny, adapter, tmp_path, value):
    def spoil(weights):
        next(iter(weights.values()))[0, 0] = value

    refused(tiny.path, edited(tmp_path / "adapter", adapter, spoil), "holds NaN, infinite", tmp_path)


def test_numbers_beyond_float16_are_named(tiny, adapter, tmp_path):
    def grow(weights):
        for name, weight in weights.items():
            if "layers.1.mlp.down_proj" in name:
                weight *= 10_000

    large = edited(tmp_path / "adapter", adapter, grow)
    refused(tiny.path, large, r"model\.layers\.1\.mlp\.down_proj\.weight: .*beyond float16", tmp_path, "float16")
    merge(tiny.path, large, tmp_path / "bfloat16", "bfloat16")


def test_dora_is_refused(tiny, tmp_path):
    adapter = save_adapter(tiny.path, tmp_path / "adapter", use_dora=True)
    refused(tiny.path, adapter, "use_dora is not merged here", tmp_path)


# Memory ---------------------------------------------------------------------------------------------------------------

CHILD = """
import json, sys
from pathlib import Path
from medtune.runtime.hardware import PeakMemory
from medtune.model.merging.blocks import plan_merge, write_merge
base, adapter, folder = map(Path, sys.argv[1:])
plan_merge(base, adapter, name="x", dtype="bfloat16")  # what Python and its libraries take
memory = PeakMemory()
memory.start()
before = memory.rss_bytes()
plan = plan_merge(base, adapter, name="x", dtype="bfloat16")
write_merge(plan, folder)
print(json.dumps({"bytes": plan.bytes, "grown": memory.rss_bytes() - before, "peak": memory.rss_bytes()}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset through /proc")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """One matrix alone is far larger than what merging takes."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    base = tmp_path / "base"
    sizes = {"hidden_size": 512, "intermediate_size": 4096, "num_attention_heads": 8, "num_key_value_heads": 8}
    config = LlamaConfig(**sizes, num_hidden_layers=2, vocab_size=160_000, dtype=torch.bfloat16)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    config.save_pretrained(base)
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in model.state_dict().items()}
    with TensorFileWriter(base / "model.safetensors", shapes) as writer:
        for dtype, shape in shapes.values():
            writer.write(torch.full(shape, 0.01, dtype=dtype))
    with torch.device("meta"):
        wrapped = get_peft_model(model, LoraConfig(r=8, target_modules=[*SEVEN, "lm_head"], task_type="CAUSAL_LM"))
    weights = {
        name.replace(".default", ""): torch.full(parameter.shape, 0.01)
        for name, parameter in wrapped.named_parameters()
        if parameter.requires_grad
    }
    (tmp_path / "merged").mkdir()
    wrapped.peft_config["default"].save_pretrained(tmp_path)
    save_file(weights, tmp_path / "adapter_model.safetensors")
    command = [sys.executable, "-c", CHILD, base, tmp_path, tmp_path / "merged"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["bytes"] > 350e6
    assert found["grown"] < 200e6, found
