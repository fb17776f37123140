"""Parts of a training step, each by itself, beside what others compute it with; a JSON line each. Needs a GPU.

    step_parts.py [tokens=8192] [repeats=20]

The shapes are LLaMA-3-8B's, in bfloat16: dequantisation of a layer's NF4 weights (bitsandbytes), RMSNorm, SwiGLU,
rotary embedding and cross-entropy forwards and backwards (transformers, Liger where it is installed), the product that
is not computed again, and two layers' forward and backward passes launched by the host and from a CUDA graph.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reporting import parse_options, print_measurement
from shape_8b import FIXED, SHAPE

DEFAULTS: dict[str, Any] = {"tokens": 8192, "repeats": 20}
HIDDEN, WIDE, VOCABULARY = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["vocab_size"]
HEADS, KEY_HEADS = SHAPE["num_attention_heads"], SHAPE["num_key_value_heads"]
HEAD_DIM = HIDDEN // HEADS
# The head's rows of one piece of the loss.
ANSWERS = 512
GRAPH_TOKENS = (1178, 4096, 8192)
GRAPH_LAYERS = 2

Part = tuple[str, str, Callable[[], Any]]


def main() -> None:
    """Every part, every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", metavar="key=value")
    options = parse_options(parser.parse_args().options, DEFAULTS)
    tokens, repeats = options["tokens"], options["repeats"]
    with redirect_stdout(sys.stderr):
        for parts in (dequantization, norms, activations, rotations, losses, last_product):
            measure(parts(tokens), tokens, repeats)
        model = nf4_layers("cuda")
        for tokens in GRAPH_TOKENS:
            measure(graphed_layers(model, tokens), tokens, repeats)


def measure(parts: Iterable[Part], tokens: int, repeats: int) -> None:
    """A line for each way."""
    for part, way, run in parts:
        us = round(microseconds(run, repeats), 1)
        print_measurement(benchmark="step_parts", part=part, way=way, tokens=tokens, us=us)


def microseconds(run: Callable[[], Any], repeats: int) -> float:
    """Between the first launch and the last result, for one of `repeats` runs."""
    import torch

    for _ in range(5):
        run()
    torch.cuda.synchronize()
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(repeats):
        run()
    ended.record()
    torch.cuda.synchronize()
    return 1000 * began.elapsed_time(ended) / repeats


def dequantization(_: int) -> Iterator[Part]:
    """All seven projections of a layer, 218 million weights; a copy moves as many bytes as they take in 16 bit."""
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    from medtune.model.base_weights import BaseWeights

    key = KEY_HEADS * HEAD_DIM
    groups = (
        [(HIDDEN, HIDDEN), (HIDDEN, key), (HIDDEN, key)], [(HIDDEN, HIDDEN)], [(HIDDEN, WIDE)] * 2, [(WIDE, HIDDEN)],
    )  # fmt: skip
    options: dict[str, Any] = {"bias": False, "quant_type": "nf4", "compute_dtype": torch.bfloat16}
    layers = [
        [Linear4bit(*shape, **options).to(torch.bfloat16).to("cuda").requires_grad_(False) for shape in group]
        for group in groups
    ]
    ours = [BaseWeights(group) for group in layers]
    weights = [layer.weight for group in layers for layer in group]
    yield "dequantisation", "bitsandbytes", lambda: [dequantize_4bit(w.data, w.quant_state) for w in weights]
    yield "dequantisation", "medtune", lambda: [base.matrix(torch.bfloat16) for base in ours]
    source = torch.empty(sum(layer.in_features * layer.out_features for group in layers for layer in group) // 2,
                         dtype=torch.bfloat16, device="cuda")  # fmt: skip
    # Reads as much as it writes, so that half of the weights move as many bytes as writing all of them.
    yield "dequantisation", "copy", source.clone


def norms(tokens: int) -> Iterator[Part]:
    """RMSNorm of the residual stream, forwards and backwards."""
    import torch
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    from medtune.model.kernels import gpu

    x, gradient = random(tokens, HIDDEN), random(tokens, HIDDEN)
    norm = LlamaRMSNorm(HIDDEN).to("cuda", torch.bfloat16).requires_grad_(False)
    yield "norm", "transformers", through(norm, gradient, x)
    if find_spec("liger_kernel"):
        from liger_kernel.ops.rms_norm import LigerRMSNormFunction

        def liger(x: Any) -> Any:
            return LigerRMSNormFunction.apply(x, norm.weight, 1e-5, 0.0, "llama", False)

        yield "norm", "Liger", through(liger, gradient, x)

    def ours() -> None:
        _, rstd = gpu.rms_norm(x, norm.weight, 1e-5)
        gpu.rms_norm_backward(gradient, x, norm.weight, rstd)

    yield "norm", "medtune", ours


def activations(tokens: int) -> Iterator[Part]:
    """SwiGLU, forwards and backwards."""
    import torch

    from medtune.model.kernels import gpu

    gate_up, gradient = random(tokens, 2 * WIDE), random(tokens, WIDE)
    gate, up = (part.contiguous() for part in gate_up.chunk(2, dim=1))
    yield "activation", "transformers", through(lambda a, b: torch.nn.functional.silu(a) * b, gradient, gate, up)
    if find_spec("liger_kernel"):
        from liger_kernel.ops.swiglu import LigerSiLUMulFunction

        yield "activation", "Liger", through(LigerSiLUMulFunction.apply, gradient, gate, up)

    def ours() -> None:
        gpu.swiglu(gate_up)
        gpu.swiglu_backward(gate_up, gradient)

    yield "activation", "medtune", ours


def rotations(tokens: int) -> Iterator[Part]:
    """Rotary embedding of query and key, forwards and backwards."""
    import torch
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    from medtune.model.kernels import gpu

    both = random(tokens, HEADS + KEY_HEADS, HEAD_DIM)
    query, key = (x.transpose(0, 1)[None] for x in both.split([HEADS, KEY_HEADS], dim=1))
    angles = torch.rand(tokens, HEAD_DIM // 2, device="cuda").repeat(1, 2)
    cos, sin = angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)

    def pytorch(q: Any, k: Any) -> Any:
        return apply_rotary_pos_emb(q, k, cos[None], sin[None])

    gradients = (torch.randn_like(query), torch.randn_like(key))
    yield "rotary", "transformers", through(pytorch, gradients, query, key)
    if find_spec("liger_kernel"):
        from liger_kernel.ops.rope import LigerRopeFunction

        def liger(q: Any, k: Any) -> Any:
            return LigerRopeFunction.apply(q, k, cos[None], sin[None])

        yield "rotary", "Liger", through(liger, gradients, query, key)

    def ours() -> None:
        gpu.rotate(both, both, cos, sin)
        gpu.rotate(both, both, cos, sin, backward=True)

    yield "rotary", "medtune", ours


def losses(_: int) -> Iterator[Part]:
    """Cross-entropy of one piece of the loss, and the gradient of its scores."""
    import torch

    from medtune.model.kernels import gpu

    scores = random(ANSWERS, VOCABULARY)
    labels = torch.randint(VOCABULARY, (ANSWERS,), device="cuda")

    def pytorch(scores: Any) -> Any:
        return torch.nn.functional.cross_entropy(scores.float(), labels)

    yield "cross-entropy", "transformers", through(pytorch, torch.ones((), device="cuda"), scores)
    if find_spec("liger_kernel"):
        from liger_kernel.ops.cross_entropy import cross_entropy_forward

        yield (
            "cross-entropy",
            "Liger",
            lambda: cross_entropy_forward(scores, labels, None, -100, 0.0, 0.0, "mean", None, False),
        )
    yield "cross-entropy", "medtune", lambda: gpu.cross_entropy(scores, labels, with_gradient=True)


def last_product(tokens: int) -> Iterator[Part]:
    """What a layer that computes again would spend on the product that no gradient needs."""
    import torch

    x, weight = random(tokens, WIDE), random(HIDDEN, WIDE)
    yield "down", "not computed again", lambda: torch.nn.functional.linear(x, weight)


def nf4_layers(device: str) -> Any:
    """A model of few layers in NF4 with an adapter, its layers fused and computing again."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from medtune.config.schema import ModelSection
    from medtune.config.training import LoraSection
    from medtune.model.adapters import attach_new_adapter
    from medtune.model.fused.layers import fuse_layers
    from medtune.model.loading import ModelFiles, load_base_model

    sizes = {**SHAPE, "num_hidden_layers": GRAPH_LAYERS, "vocab_size": 1024}
    with tempfile.TemporaryDirectory() as folder:
        with torch.device(device):
            LlamaForCausalLM(LlamaConfig(**sizes, **FIXED)).to(torch.bfloat16).save_pretrained(folder)
        section = ModelSection(base=folder)
        base = load_base_model(ModelFiles(Path(folder), None), section, device=device, dtype="bfloat16")
    model = attach_new_adapter(base, LoraSection(), seed=0).train()
    for layer in fuse_layers(model):
        layer.recompute = True
    return model


def graphed_layers(model: Any, tokens: int) -> Iterator[Part]:
    """Forward and backward pass of `nf4_layers`: launched by the host, and replayed."""
    import torch

    from medtune.model.packing import pack_rows
    from medtune.records import EncodedRow

    lengths = [min(256, tokens - start) for start in range(0, tokens, 256)]
    rows = [EncodedRow("", [2] * length, [2] * length) for length in lengths]
    pack = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in pack_rows(rows).items()}
    names = ("position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "row_edges")
    inputs = random(1, pack["input_ids"].shape[1], HIDDEN).requires_grad_()
    parameters = [inputs, *(p for p in model.parameters() if p.requires_grad)]

    def launched() -> None:
        hidden = model.get_base_model().model(inputs_embeds=inputs, use_cache=False, **{n: pack[n] for n in names})[0]
        torch.autograd.grad(hidden, parameters, torch.ones_like(hidden))

    yield f"{GRAPH_LAYERS} layers", "launched by the host", launched
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            launched()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launched()
    yield f"{GRAPH_LAYERS} layers", "CUDA graph", graph.replay


def random(*shape: int) -> Any:
    """Small numbers on the GPU."""
    import torch

    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * 0.02


def through(function: Callable[..., Any], gradient: Any, *inputs: Any) -> Callable[[], Any]:
    """Forwards through `function`, and backwards with `gradient`, or one for each of several outputs."""
    import torch

    leaves = [x.detach().requires_grad_() for x in inputs]

    def run() -> None:
        torch.autograd.grad(function(*leaves), leaves, gradient)

    return run


if __name__ == "__main__":
    main()
