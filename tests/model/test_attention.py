"""Packed rows attend to themselves alone, as each would by itself."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig

from medtune.model import attention
from medtune.model.attention import NAME, RowBounds, attend_rows, packed_attention, register_packed_attention

LENGTHS = [7, 1, 12, 5]


def reference(q, k, v, *, window=None, softcap=None):
    """One row, in float64, by the definition."""
    groups = q.shape[1] // k.shape[1]
    q, k, v = q.double(), k.double().repeat_interleave(groups, 1), v.double().repeat_interleave(groups, 1)
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    distance = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])[None]
    allowed = (distance >= 0) & (distance < (window or 10**9))
    return (scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"softcap": 2.0}, {"window": 4, "softcap": 2.0}])
def test_equals_each_row_by_itself(options):
    torch.manual_seed(0)
    total = sum(LENGTHS)
    q, k, v = (torch.randn(1, heads, total, 8) for heads in (4, 2, 2))
    bounds = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
    keywords = {"sliding_window": options.get("window"), "softcap": options.get("softcap")}
    out, _ = packed_attention(torch.nn.Module(), q, k, v, None, cu_seq_lens_q=bounds, max_length_q=12, **keywords)
    expected = [
        reference(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], **options)
        for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
    torch.testing.assert_close(out.double(), torch.cat(expected, 1), atol=1e-5, rtol=1e-5)


SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "mistral, sliding window": MistralConfig(**SMALL, sliding_window=4),
    "gemma 2, softcap and window": Gemma2Config(**SMALL, sliding_window=4, query_pre_attn_scalar=8),
}


def model_of(config, implementation):
    """With a configuration of its own: models that share one all take the attention of the last."""
    return AutoModelForCausalLM.from_config(deepcopy(config), attn_implementation=implementation).eval()


def packed_batch(rows):
    lengths = [len(row) for row in rows]
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    return {
        "input_ids": torch.tensor([[token for row in rows for token in row]]),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_whole_models_keep_rows_apart(config):
    torch.manual_seed(0)
    register_packed_attention()
    packed = model_of(config, NAME)
    plain = model_of(config, "eager")
    plain.load_state_dict(packed.state_dict())
    rows = [torch.randint(0, 64, (length,)).tolist() for length in LENGTHS]
    with torch.no_grad():
        logits = packed(**packed_batch(rows), use_cache=False).logits[0]
        alone = torch.cat([plain(torch.tensor([row]), use_cache=False).logits[0] for row in rows])
    torch.testing.assert_close(logits, alone, atol=2e-5, rtol=1e-4)


def test_a_planted_leak_is_seen():
    """Without the rows' bounds attention crosses them, and the comparison above would fail."""
    torch.manual_seed(0)
    register_packed_attention()
    model = model_of(CONFIGS["llama"], NAME)
    rows = [torch.randint(0, 64, (length,)).tolist() for length in LENGTHS]
    batch = packed_batch(rows)
    del batch["cu_seq_lens_q"], batch["cu_seq_lens_k"]
    with torch.no_grad():
        leaking = model(**batch, use_cache=False).logits[0]
        alone = torch.cat([model(torch.tensor([row]), use_cache=False).logits[0] for row in rows])
    assert (leaking - alone).abs().max() > 0.01


def test_left_padding_and_cache_go_the_usual_way():
    torch.manual_seed(0)
    register_packed_attention()
    model = model_of(CONFIGS["mistral, sliding window"], NAME)
    plain = model_of(CONFIGS["mistral, sliding window"], "eager")
    plain.load_state_dict(model.state_dict())
    ids = torch.randint(1, 64, (2, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    ours = model.generate(ids, attention_mask=mask, **options)
    assert torch.equal(ours, plain.generate(ids, attention_mask=mask, **options))


@pytest.mark.gpu
def test_row_wise_attention_needs_no_more_than_the_memory_efficient_kernel(monkeypatch):
    """What a T4 runs: float16, shared key heads, 8,192 tokens, no flash kernel, no length x length scores."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(8192, heads, 128, dtype=torch.float16, device="cuda") for heads in (32, 8, 8))
    rows = RowBounds(torch.tensor([0, 8192], dtype=torch.int32, device="cuda"), 8192, (0, 8192))
    varlen = attend_rows(q, k, v, replace(rows, edges=None))
    monkeypatch.setattr(attention, "_has_varlen", lambda *args: False)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        row_wise = attend_rows(q, k, v, rows)
    # Keys and values spread to all heads, and the output twice: 64 MiB each. One matrix of scores would be 4 GiB.
    assert torch.cuda.max_memory_allocated() - before < 512 * 2**20
    torch.testing.assert_close(row_wise, varlen, atol=2e-3, rtol=2e-2)


@pytest.mark.gpu
def test_one_long_row_has_a_kernel_of_its_own():
    """The same numbers and gradients, and no keys and values for every query head."""
    torch.manual_seed(0)
    qkv = [torch.randn(4096, h, 128, dtype=torch.bfloat16, device="cuda", requires_grad=True) for h in (32, 8, 8)]
    rows = RowBounds(torch.tensor([0, 4096], dtype=torch.int32, device="cuda"), 4096, (0, 4096))
    expected = attend_rows(*qkv, replace(rows, edges=None))
    upstream = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, qkv, upstream)
    before = torch.cuda.memory_allocated()
    output = attend_rows(*qkv, rows)
    assert torch.cuda.memory_allocated() - before < 48 * 2**20  # 32 MiB of output
    torch.testing.assert_close(output, expected, atol=1e-2, rtol=2e-2)
    for gradient, wanted in zip(torch.autograd.grad(output, qkv, upstream), expected_gradients, strict=True):
        assert (gradient - wanted).norm() < 0.01 * wanted.norm()
