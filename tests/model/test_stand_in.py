"""The same mathematics at size: a real small LLaMA on real text, against transformers' and PEFT's own in float32."""

import pandas as pd
import pytest
import torch
from packed_models import error, gradients_of
from torch.nn.functional import cross_entropy

from medtune.config.schema import ModelSection
from medtune.config.training import LoraSection
from medtune.data.prompts import PromptRenderer
from medtune.data.training_rows import encode_for_training
from medtune.model.adapters import attach_new_adapter
from medtune.model.answer_loss import add_answer_loss
from medtune.model.attention import RowBounds, attend_rows
from medtune.model.fused import layers as fused_layers
from medtune.model.fused.layers import fuse_layers
from medtune.model.loading import ModelFiles, load_base_model
from medtune.model.packing import pack_rows
from medtune.records import QAPair

pytestmark = pytest.mark.slow

# Rows and their longest length for each dtype: a CPU without matrix instructions for bfloat16 takes ten times as long.
SIZES = {"float32": (8, 384), "bfloat16": (6, 96)}


@pytest.fixture(scope="module")
def folder(shared_data):
    path = shared_data.parent / "models" / "standin-16m"
    if not path.is_dir():
        pytest.skip("needs the stand-in model beside the data")
    return path


@pytest.fixture(scope="module")
def rows(folder, shared_data):
    """For each dtype."""
    from medtune.model.loaded import load_tokenizer

    table = pd.read_parquet(shared_data / "medquad.parquet").query("not seen_by_standin")
    renderer = PromptRenderer(load_tokenizer(folder), "Answer clearly.")
    encoded = {}
    for dtype, (count, length) in SIZES.items():
        chosen = table.sample(count, random_state=0)
        pairs = [QAPair(str(i), "q", row.question, row.answer) for i, row in enumerate(chosen.itertuples())]
        encoded[dtype] = encode_for_training(renderer, pairs, max_length=length, overlong="cut").rows
    return encoded


@pytest.fixture(scope="module")
def plain(folder, rows):
    """Loss and gradients of the plain path in float32, for the rows of each dtype."""
    return {dtype: plain_step(folder, of_dtype) for dtype, of_dtype in rows.items()}


def load(folder, dtype, quantization="nf4"):
    section = ModelSection(base=str(folder), quantization=quantization)
    base = load_base_model(ModelFiles(folder, None), section, device="cpu", dtype=dtype)
    model = attach_new_adapter(base, LoraSection(), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.01
    return model.train()


def plain_step(folder, rows):
    """Row by row, by PEFT's forward passes and whole logits."""
    model = load(folder, "float32")
    tokens = sum(label != -100 for row in rows for label in row.labels)
    total, gradients = 0.0, None
    for row in rows:
        logits = model(torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1]
        loss = cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum") / tokens
        total += loss.item()
        loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return total, gradients


def fused_step(folder, dtype, rows, *, recompute):
    model = load(folder, dtype)
    add_answer_loss(model.get_base_model())
    for layer in fuse_layers(model):
        layer.recompute = recompute
    pack = pack_rows(rows)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        loss = model(**pack).mean()
    return gradients_of(model, loss)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.02)])
def test_loss_and_gradient_are_those_of_the_plain_path(folder, rows, plain, dtype, tolerance, recompute):
    expected_loss, expected = plain[dtype]
    loss, gradients = fused_step(folder, dtype, rows[dtype], recompute=recompute)
    print(dtype, recompute, "loss", abs(loss / expected_loss - 1), "gradient", error(gradients, expected))
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    assert error(gradients, expected) < tolerance


def test_a_planted_leak_fails(folder, rows, plain, monkeypatch):
    def leaking(query, key, value, rows, **options):
        whole = RowBounds(torch.tensor([0, len(query)]), len(query), (0, len(query)))
        return attend_rows(query, key, value, whole, **options)

    expected_loss, expected = plain["float32"]
    monkeypatch.setattr(fused_layers, "attend_rows", leaking)
    loss, gradients = fused_step(folder, "float32", rows["float32"], recompute=True)
    assert loss != pytest.approx(expected_loss, rel=1e-4)
    assert error(gradients, expected) > 0.02
