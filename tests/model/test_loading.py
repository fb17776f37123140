"""Loading: real NF4 with double quantisation, k-bit preparation, and refusals."""

import json
import shutil

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from medtune.config.schema import ModelSection
from medtune.config.training import LoraSection
from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from medtune.inference.scoring import answer_losses
from medtune.model.adapters import attach_new_adapter
from medtune.model.answer_loss import add_answer_loss
from medtune.model.loading import (
    DEMO_MODEL,
    ModelFiles,
    base_identity,
    load_base_model,
    model_without_weights,
    prepare_for_training,
    resolve_base,
)
from medtune.records import QAPair


def load(folder, **section):
    files = resolve_base(str(folder))
    return load_base_model(files, ModelSection(base=str(folder), **section), device="cpu", dtype="float32")


def test_nf4_with_double_quantisation(tiny):
    model = load(tiny.path)
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 2 * 7
    for layer in layers:
        assert layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.quant_state.nested
        assert layer.compute_dtype == torch.float32
    assert not isinstance(model.lm_head, Linear4bit)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_plain_weights(tiny):
    model = load(tiny.path, quantization="none")
    assert not any(isinstance(module, Linear4bit) for module in model.modules())


def test_a_stored_nf4_model_loads_as_it_is(tiny, tmp_path):
    load(tiny.path).save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    again = load(tmp_path)
    ids = torch.tensor([[0, 7, 8, 9]])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, load(tiny.path)(ids).logits)
    with pytest.raises(ModelError, match="give the 16-bit model"):
        load(tmp_path, quantization="none")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lean_preparation_gives_peft_preparations_loss(tiny, dtype):
    files = resolve_base(str(tiny.path))
    row = PromptRenderer(tiny.tokenizer).encode_pairs(
        [QAPair("1", "q", "What causes gout ?", "Uric acid in a joint.")]
    )[0]
    losses = {}
    for kind in ("lean", "peft"):
        model = load_base_model(files, ModelSection(base=str(tiny.path)), device="cpu", dtype=dtype)
        prepared = prepare_for_training(model, kind)
        norm = prepared.model.norm.weight.dtype
        assert norm == (torch.float32 if kind == "peft" or dtype == "float32" else torch.bfloat16)
        prepared = attach_new_adapter(prepared, LoraSection(), seed=0)
        add_answer_loss(prepared.get_base_model())
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            (loss,) = answer_losses(prepared, [row], tokens_per_batch=512)
        losses[kind] = loss.nll / loss.tokens
    assert losses["lean"] == pytest.approx(losses["peft"], rel=1e-5 if dtype == "float32" else 2e-2)


def test_lean_preparation_lifts_nothing(tiny):
    """PEFT's preparation lifts embeddings and head to float32: 2.1 GB more on LLaMA-3-8B."""
    files, section = resolve_base(str(tiny.path)), ModelSection(base=str(tiny.path))
    assert section.kbit_preparation == "lean"
    kept, lifted = (
        prepare_for_training(load_base_model(files, section, device="cpu", dtype="bfloat16"), kind)
        for kind in (section.kbit_preparation, "peft")
    )
    for name in ("model.embed_tokens", "lm_head", "model.norm"):
        assert kept.get_submodule(name).weight.dtype == torch.bfloat16
        assert lifted.get_submodule(name).weight.dtype == torch.float32
    ends = sum(kept.get_submodule(name).weight.numel() for name in ("model.embed_tokens", "lm_head"))
    assert lifted.get_memory_footprint() - kept.get_memory_footprint() >= 2 * ends


def test_a_forward_pass_in_eval_mode_changes_neither_weights_nor_gradients(tiny, facts):
    """On CPUs with AVX512-BF16 bitsandbytes would pack the weights for a kernel that has no backward pass."""
    facts.cpu(avx512=True)
    model = load(tiny.path)
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    ids = torch.tensor([tiny.tokenizer("What causes gout ?").input_ids])

    def gradient():
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        model.train()
        model(inputs_embeds=embedded, use_cache=False).logits.square().mean().backward()
        return embedded.grad

    before, weights = gradient(), [layer.weight.data.clone() for layer in layers]
    model.eval()
    with torch.no_grad():
        model(ids)
    assert all(torch.equal(layer.weight.data, old) for layer, old in zip(layers, weights, strict=True))
    assert torch.equal(gradient(), before)


def test_refusals(tiny, tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        resolve_base(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"without config\.json"):
        resolve_base(str(tmp_path))
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny.path, pickled)
    for weights in pickled.glob("*.safetensors"):
        weights.rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="never loaded"):
        resolve_base(str(pickled))
    torn = tmp_path / "torn"
    shutil.copytree(tiny.path, torn)
    weights = next(torn.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(torn)
    strange = tmp_path / "strange"
    shutil.copytree(tiny.path, strange)
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps({**config, "model_type": "no-such-architecture"}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(strange)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer_config.json", "chat_template.jinja", "README.md"])
def test_a_folder_whose_files_changed_is_another_base(tiny, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(tiny.path, folder)
    for other in ("README.md", "tokenizer.model"):  # nobody reads that where there is a tokenizer.json
        (folder / other).write_text("A model.")
    before = base_identity("m", resolve_base(str(folder)))
    assert base_identity("m", resolve_base(str(tiny.path))) == before
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert (base_identity("m", resolve_base(str(folder))) == before) == (name == "README.md")


def test_the_hub_and_the_demo_name_their_models(tmp_path):
    folder = tmp_path / "model"
    assert base_identity("o/m", ModelFiles(folder, "abc")) == "o/m at abc"
    assert base_identity(DEMO_MODEL, ModelFiles(folder, None)) == DEMO_MODEL


def test_a_model_larger_than_the_gpu_is_refused_with_what_to_do(tiny, monkeypatch):
    from transformers import AutoModelForCausalLM

    def run_out(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", run_out)
    with pytest.raises(ModelError, match="is larger than the memory of the GPU; start it on several GPUs with "):
        load(tiny.path)


def test_a_model_of_text_and_images_is_refused_for_what_it_is(tmp_path):
    """Gemma 3 from 4B on: its layers for images have projections of the same names."""
    from transformers import Gemma3Config

    Gemma3Config().save_pretrained(tmp_path)
    expected = r"^base: a model of text and more \(gemma3\), and adapters would go .*; give a model of text alone"
    with pytest.raises(ModelError, match=expected):
        model_without_weights(tmp_path, "bfloat16", "base")
