"""Attention of one token a row to a static cache, in plain PyTorch, against its definition."""

import pytest
import torch
from attention_cases import SHAPES, by_definition, case

from medtune.model.kernels.decode_attention import attend_last_token


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_form_follows_the_definition(shape):
    query, keys, values, span = case(shape)
    output = attend_last_token(query, keys, values, span)
    expected = by_definition(query, keys, values, span, shape[2] ** -0.5)
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)
    scaled = attend_last_token(query.double(), keys.double(), values.double(), span, 0.3)
    torch.testing.assert_close(scaled, by_definition(query, keys, values, span, 0.3), atol=1e-12, rtol=1e-12)
