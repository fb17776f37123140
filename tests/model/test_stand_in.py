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

ROWS = 8


@pytest.fixture(scope="module")
def folder(shared_data):
    path = shared_data.parent / "models" / "standin-16m"
    if not path.is_dir():
        pytest.skip("needs the stand-in model beside the data")
    return path


@pytest.fixture(scope="module")
def rows(folder, shared_data):
    from medtune.model.loaded import load_tokenizer

    table = pd.read_parquet(shared_data / "medquad.parquet").query("not seen_by_standin")
    chosen = table.sample(ROWS, random_state=0)
    pairs = [QAPair(str(i), "q", row.question, row.answer) for i, row in enumerate(chosen.itertuples())]
    renderer = PromptRenderer(load_tokenizer(folder), "Answer clearly.")
    return encode_for_training(renderer, pairs, max_length=384, overlong="cut").rows


def load(folder, dtype, quantization="nf4"):
    section = ModelSection(base=str(folder), quantization=quantization)
    base = load_base_model(ModelFiles(folder, None), section, device="cpu", dtype=dtype)
    model = attach_new_adapter(base, LoraSection(), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.01
    return model.train()


def plain_step(folder, dtype, rows):
    """Row by row, by PEFT's forward passes and whole logits."""
    model = load(folder, dtype)
    tokens = sum(label != -100 for row in rows for label in row.labels)
    total, gradients = 0.0, None
    for row in rows:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = model(torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1]
        loss = cross_entropy(logits.float(), torch.tensor(row.labels[1:]), reduction="sum") / tokens
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
def test_loss_and_gradient_are_those_of_the_plain_path(folder, rows, dtype, tolerance, recompute):
    expected_loss, expected = plain_step(folder, "float32", rows)
    loss, gradients = fused_step(folder, dtype, rows, recompute=recompute)
    print(dtype, recompute, "loss", abs(loss / expected_loss - 1), "gradient", error(gradients, expected))
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    assert error(gradients, expected) < tolerance


def test_a_planted_leak_fails(folder, rows, monkeypatch):
    def leaking(query, key, value, rows, **options):
        whole = RowBounds(torch.tensor([0, len(query)]), len(query), (0, len(query)))
        return attend_rows(query, key, value, whole, **options)

    expected_loss, expected = plain_step(folder, "float32", rows)
    monkeypatch.setattr(fused_layers, "attend_rows", leaking)
    loss, gradients = fused_step(folder, "float32", rows, recompute=True)
    assert loss != pytest.approx(expected_loss, rel=1e-4)
    assert error(gradients, expected) > 0.02
