"""Base weights joined along their outputs: dense ones share their storage, 4-bit ones give bitsandbytes' numbers."""

import weakref

import bitsandbytes as bnb
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from torch import nn

from medtune.model.base_weights import BaseWeights
from medtune.model.quantization import dequantized_bytes, is_packed

SIZES = (24, 8, 8)
INPUTS = 64


def dense(sizes=SIZES, bias=(False, False, False)):
    torch.manual_seed(0)
    pairs = zip(sizes, bias, strict=False)
    return [nn.Linear(INPUTS, size, bias=with_bias).requires_grad_(False) for size, with_bias in pairs]


def packed(sizes=SIZES, bias=(False, False, False), *, kind="nf4", nested=True, dtype=torch.float32):
    layers = []
    for layer in dense(sizes, bias):
        options = {"compute_dtype": dtype, "compress_statistics": nested, "quant_type": kind}
        quantized = bnb.nn.Linear4bit(INPUTS, layer.out_features, layer.bias is not None, **options)
        quantized.load_state_dict(layer.state_dict())
        quantized.weight = bnb.nn.Params4bit(
            layer.weight.data.to(dtype), requires_grad=False, compress_statistics=nested, quant_type=kind
        )
        quantized = quantized.to("cpu")
        quantized.support_avx512bf16_for_cpu = False
        layers.append(quantized.requires_grad_(False).eval())
    return layers


def unpacked(layers):
    return torch.cat([dequantize_4bit(layer.weight.data, layer.weight.quant_state) for layer in layers])


def without_room(matrix, sizes):
    return matrix[: sum(sizes), :INPUTS]


def room_is_empty(matrix, sizes):
    return not matrix[:, INPUTS:].any() and not matrix[sum(sizes) :].any()


@pytest.mark.parametrize(("sizes", "rank"), [(SIZES, 0), (SIZES, 24), ((24,), 8)])
def test_joined_dense_layers_share_one_storage(sizes, rank):
    layers = dense(sizes)
    x = torch.randn(5, INPUTS)
    values, outputs = [layer.weight.clone() for layer in layers], [layer(x) for layer in layers]
    before = [weakref.ref(layer.weight.untyped_storage()) for layer in layers]
    parameters = [layer.weight for layer in layers]
    assert all(reference() is not None for reference in before)
    weights = BaseWeights(layers, rank=rank)
    matrix = weights.matrix(torch.float32)
    room = 64 if rank else 0  # in whole cache lines
    assert matrix.shape == (sum(sizes) + rank, INPUTS + room)
    assert torch.equal(without_room(matrix, sizes), torch.cat(values))
    assert room_is_empty(matrix, sizes)
    # No copy, then or ever: the old storages are gone, and what is asked for is the parameters' own memory.
    storage = matrix.untyped_storage()
    assert storage.nbytes() == (sum(sizes) + rank) * (INPUTS + room) * 4
    assert all(layer.weight.untyped_storage().data_ptr() == storage.data_ptr() for layer in layers)
    assert weights.matrix(torch.float32).data_ptr() == matrix.data_ptr()
    assert [reference() for reference in before] == [None] * len(sizes)
    # The parameters are the same objects, with the same values under the same names.
    for layer, parameter, value, output in zip(layers, parameters, values, outputs, strict=True):
        assert layer.weight is parameter
        assert torch.equal(layer.state_dict()["weight"], value)
        torch.testing.assert_close(layer(x), output)
    assert weights.sizes == list(sizes)
    assert (weights.rank, weights.room) == (rank, room)


def test_what_changes_in_a_joined_weight_is_seen():
    layers = dense()
    weights = BaseWeights(layers)
    other = dense()[1].state_dict()
    layers[1].load_state_dict({"weight": other["weight"] * 2})
    layers[2].weight.data.zero_()
    matrix = weights.matrix(torch.float32)
    assert torch.equal(matrix[24:32], other["weight"] * 2)
    assert not matrix[32:].any()


def test_one_dense_layer_is_its_own_weight():
    (layer,) = dense((24,))
    weights = BaseWeights([layer])
    assert weights.kept is None
    assert weights.matrix(torch.float32).data_ptr() == layer.weight.data_ptr()
    assert weights.matrix(torch.float32).shape == (24, INPUTS)
    assert torch.equal(weights.matrix(torch.bfloat16), layer.weight.bfloat16())
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize("rank", [0, 16])
@pytest.mark.parametrize("sizes", [SIZES, (40,)])
@pytest.mark.parametrize(("kind", "nested"), [("nf4", True), ("nf4", False), ("fp4", True)])
def test_packed_weights_are_bitsandbytes_numbers(kind, nested, sizes, rank):
    layers = packed(sizes, kind=kind, nested=nested)
    weights = BaseWeights(layers, rank=rank)
    for dtype in (torch.float32, torch.bfloat16):
        matrix = weights.matrix(dtype)
        assert (matrix.shape, matrix.dtype) == ((sum(sizes) + rank, INPUTS + (64 if rank else 0)), dtype)
        assert torch.equal(without_room(matrix, sizes), unpacked(layers).to(dtype))
        assert room_is_empty(matrix, sizes)
    # Nothing stays: a second call makes them again.
    assert weights.kept is None
    matrix.fill_(7)
    assert torch.equal(without_room(weights.matrix(torch.bfloat16), sizes), unpacked(layers).bfloat16())
    assert all("forward" not in vars(layer) for layer in layers)


@pytest.mark.parametrize("rank", [0, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_weights_replace_the_base_forward_with_the_same_numbers(dtype, rank):
    layers = packed(bias=(True, False, True), dtype=dtype)
    x = torch.randn(5, INPUTS, dtype=dtype)
    outputs = [layer(x) for layer in layers]
    weights = BaseWeights(layers, keep=dtype, rank=rank)
    matrix = weights.matrix(dtype)
    assert weights.matrix(dtype).data_ptr() == matrix.data_ptr()
    assert torch.equal(without_room(matrix, SIZES), unpacked(layers).to(dtype))
    # What a product writes beside the weights changes no layer by itself, and stays.
    matrix[:, INPUTS:] = 7
    matrix[sum(SIZES) :] = 7
    assert (weights.matrix(dtype)[:, INPUTS:] == 7).all()
    for layer, output in zip(layers, outputs, strict=True):
        assert "forward" in vars(layer)
        again = layer(x)
        assert again.dtype == output.dtype
        torch.testing.assert_close(again, output)
        # In another dtype it follows its input, as an adapter in evaluation may have it.
        assert layer(x.double()).dtype == torch.float64
    # The packed weights are still there, to be saved or merged.
    assert all(is_packed(layer) and layer.weight.dtype == torch.uint8 for layer in layers)


def test_gradients_pass_through_kept_weights():
    layers = packed((8,), bias=(True,))
    BaseWeights(layers, keep=torch.float32)
    x = torch.randn(5, INPUTS, requires_grad=True)
    layers[0](x).sum().backward()
    torch.testing.assert_close(x.grad, unpacked(layers).sum(0).expand(5, -1))


@pytest.mark.parametrize("make", [dense, packed])
def test_biases_are_joined(make):
    bare = BaseWeights(make())
    assert bare.bias(torch.float32) is None
    layers = make(bias=(True, False, True))
    joined = BaseWeights(layers).bias(torch.float64)
    expected = torch.cat([layers[0].bias, torch.zeros(8), layers[2].bias]).double()
    assert torch.equal(joined, expected)
    x = torch.randn(5, INPUTS)
    outputs = x @ BaseWeights(layers).matrix(torch.float32).t() + joined.float()
    torch.testing.assert_close(outputs, torch.cat([layer(x) for layer in layers], 1))


def test_what_dequantised_weights_take():
    model = nn.ModuleList([*packed(), nn.Linear(INPUTS, 100), nn.Embedding(9, 4)])
    assert dequantized_bytes(model, torch.float32) == sum(SIZES) * INPUTS * 4
    assert dequantized_bytes(model, torch.float16) == sum(SIZES) * INPUTS * 2
    assert dequantized_bytes(nn.ModuleList(dense()), torch.float16) == 0


def test_4bit_layers_are_told_apart():
    assert [is_packed(layer) for layer in (*packed(), *dense())] == [True] * 3 + [False] * 3
    assert not is_packed(nn.SiLU())
