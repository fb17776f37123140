"""What fused models are asked for besides gradients of packs: scores, answers, the base alone."""

import pytest
import torch
from packed_models import FAMILIES, adapted, base_model, error, gradients_of, pack, some_rows

from medtune.model.fused import layers as fused_layers
from medtune.model.fused.layers import fuse_layers

ROWS = some_rows()


def test_without_gradients_the_logits_are_the_same():
    model = adapted()
    fuse_layers(model)
    batch, _ = pack(ROWS)
    logits = model(**batch, use_cache=False).logits
    with torch.no_grad():
        assert torch.equal(model(**batch, use_cache=False).logits, logits)
    bare, plain = base_model(FAMILIES["llama"]), base_model(FAMILIES["llama"])
    assert len(fuse_layers(bare)) == 3
    torch.testing.assert_close(bare(**batch, use_cache=False).logits, plain(**batch, use_cache=False).logits)


def test_disabled_adapters_leave_the_base(monkeypatch):
    plain, model = base_model(FAMILIES["llama"]), adapted()
    fuse_layers(model)
    batch, _ = pack(ROWS)
    own = model(**batch, use_cache=False).logits
    monkeypatch.setattr(fused_layers.FusedLayer, "compute", None)
    with torch.no_grad(), model.disable_adapter():
        logits = model(**batch, use_cache=False).logits
        torch.testing.assert_close(logits, plain(**batch, use_cache=False).logits, atol=1e-5, rtol=1e-5)
    assert (own - logits).abs().max() > 0.1


def test_merged_adapters_count_once():
    model = adapted().eval()
    fuse_layers(model)
    batch, _ = pack(ROWS)
    with torch.no_grad():
        logits = model(**batch, use_cache=False).logits
        model.merge_adapter()
        torch.testing.assert_close(model(**batch, use_cache=False).logits, logits, atol=1e-4, rtol=1e-4)
        model.unmerge_adapter()
        torch.testing.assert_close(model(**batch, use_cache=False).logits, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_with_a_cache_are_pefts(family):
    plain, model = adapted(family).eval(), adapted(family).eval()
    fuse_layers(model)
    ids = torch.tensor([[0, 0, 0, 5, 9, 11], some_rows([6])[0]])
    options = {"attention_mask": (ids != 0).long(), "max_new_tokens": 8, "do_sample": False}
    answers = model.generate(input_ids=ids, **options)
    assert answers.shape == (2, 14)
    assert torch.equal(answers, plain.generate(input_ids=ids, **options))


def test_packs_with_a_cache_fill_it():
    plain, model = adapted().eval(), adapted().eval()
    fuse_layers(model)
    batch, _ = pack(ROWS)
    with torch.no_grad():
        outputs = [each(**batch, use_cache=True) for each in (plain, model)]
    torch.testing.assert_close(outputs[1].logits, outputs[0].logits, atol=1e-5, rtol=1e-5)
    assert [output.past_key_values.get_seq_length() for output in outputs] == [25, 25]


def test_padded_batches_without_packing_are_pefts():
    plain, model = adapted(), adapted()
    fuse_layers(model)
    ids = torch.tensor([[0, 0, 0, 5, 9, 11], some_rows([6])[0]])
    losses = [
        gradients_of(each, each(input_ids=ids, attention_mask=(ids != 0).long(), labels=ids, use_cache=False).loss)
        for each in (model, plain)
    ]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)
    assert error(losses[0][1], losses[1][1]) < 1e-5
