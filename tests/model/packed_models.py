"""Tiny models with adapters, and one training step of them: on a pack, or row by row as transformers and PEFT do it."""

from __future__ import annotations

import copy
import types

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config

from medtune.config.training import LoraSection
from medtune.model.adapters import attach_new_adapter
from medtune.model.attention import NAME, register_packed_attention

LENGTHS = [7, 1, 12, 5]
SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": None,
    "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "llama": LlamaConfig(**SMALL),
    "llama, biases everywhere": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    # Shorter than the longest rows.
    "mistral, sliding window": MistralConfig(**SMALL, sliding_window=4),
    # Only the layers from the second on.
    "qwen 2, biases and a sliding window": Qwen2Config(
        **SMALL, use_sliding_window=True, sliding_window=3, max_window_layers=1
    ),
}


def base_model(config):
    """A random model whose norms and biases are not the ones and zeros they begin as."""
    register_packed_attention()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation=NAME)
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.data += torch.randn_like(parameter) * 0.3
    return model.requires_grad_(False).eval()


def adapt(model, *, rank=8, dtype=torch.float32, **lora):
    """`model` with adapters whose B are not zero, which would hide half of the mathematics."""
    model = attach_new_adapter(model, LoraSection(rank=rank, **{"alpha": 12, **lora}), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model.to(dtype).train()


def adapted(family="llama", **options):
    return adapt(base_model(FAMILIES[family]), **options)


def lift_norms(model):
    """Have transformers' norms compute in the dtype of their inputs: theirs are float32 within float64 models."""

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = types.MethodType(forward, module)
    return model


def some_rows(lengths=LENGTHS, vocabulary=64):
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(2, vocabulary, (length,), generator=generator).tolist() for length in lengths]


def pack(rows, device="cpu"):
    """Rows as one padding-free batch, and the labels of all tokens but the first of each row."""
    lengths = [len(row) for row in rows]
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    labels = torch.tensor([token if place else -100 for row in rows for place, token in enumerate(row)])
    batch = {
        "input_ids": torch.tensor([[token for row in rows for token in row]]),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
    }
    batch = {name: value.to(device) for name, value in batch.items()}
    return batch | {"max_length_q": max(lengths), "max_length_k": max(lengths)}, labels.to(device)


def packed_loss(model, rows, **options):
    batch, labels = pack(rows, model.device)
    logits = model(**{**batch, **options}, use_cache=False).logits[0]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return cross_entropy(logits[:-1], labels[1:], ignore_index=-100)


def separate_loss(model, rows):
    """The same mean over the labels of all rows, each row a call of its own."""
    losses = []
    for row in rows:
        ids = torch.tensor([row], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        losses.append(cross_entropy(logits[:-1], ids[0, 1:], reduction="sum"))
    return torch.stack(losses).sum() / sum(len(row) - 1 for row in rows)


def gradients_of(model, loss):
    """The loss as a number, and the gradient of every adapter matrix."""
    model.zero_grad()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return loss.item(), gradients


def error(gradients, expected):
    """Relative error of the whole gradient."""
    assert gradients.keys() == expected.keys()
    apart = sum((gradients[name].double() - expected[name].double()).square().sum() for name in expected)
    return float((apart / sum(value.double().square().sum() for value in expected.values())).sqrt())


def with_targets(batch):
    """A pack with `labels`, (1, tokens), as `add_answer_loss` takes it."""
    shifted = batch["labels"][0, 1:]
    positions = (shifted != -100).nonzero().squeeze(1)
    rest = {name: value for name, value in batch.items() if name != "labels"}
    return {**rest, "answer_positions": positions, "answer_labels": shifted[positions]}
