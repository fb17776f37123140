"""The fused norm: transformers' numbers and gradients, and gradients that stay whole."""

import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from medtune.model.fused.norm import fuse_norm


def norm():
    module = LlamaRMSNorm(16, eps=1e-5).requires_grad_(False)
    module.weight += torch.linspace(-0.5, 0.5, 16)
    return module


def test_outputs_and_gradients_are_those_of_transformers():
    plain, fused = norm(), norm()
    fuse_norm(fused)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    wanted = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    found = []
    for module in (plain, fused):
        own = x.clone().requires_grad_()
        output = module(own)
        output.backward(wanted)
        found.append((output.detach(), own.grad))
    torch.testing.assert_close(found[1], found[0])


def test_a_gradient_that_somebody_else_has_too_is_not_written_over():
    module = norm()
    fuse_norm(module)
    x = torch.randn(3, 16, requires_grad=True)
    gradient = torch.ones(3, 16)
    module(x).backward(gradient)
    assert torch.equal(gradient, torch.ones(3, 16))
