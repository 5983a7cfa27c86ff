"""How the orders people argue about round: on the grid, without bias, by the largest value."""

from __future__ import annotations

import pytest
import torch
from lora_foundry.cli.orders import FP8, nearest, quantized, stochastic


def test_stochastic_rounding_is_on_the_grid_and_without_bias():
    values = torch.linspace(-448, 448, 20001).reshape(3, -1)
    rounded = stochastic(values, torch.Generator().manual_seed(1)).float()
    step = torch.exp2(values.abs().clamp(min=2.0**-6).log2().floor() - 3)
    assert torch.all((rounded - values).abs() <= step)
    for value in (1.03, -0.3, 0.001, 2.0**-9 / 3):
        many = stochastic(torch.full((200, 500), value), torch.Generator().manual_seed(1)).float()
        assert many.mean() == pytest.approx(value, rel=0.02), "the mean is the value"
    exact = torch.tensor([[1.125, -448.0, 0.0, 2.0**-9]])
    assert torch.equal(stochastic(exact).float(), exact)


def test_quantizing_takes_the_scale_from_the_largest():
    codes, scale = quantized(torch.tensor([[-0.896, 0.1]]), nearest)
    assert codes.dtype == FP8 and float(codes[0, 0]) == -448 and float(scale) == pytest.approx(0.002)
    codes, scale = quantized(torch.zeros(2, 2), nearest)
    assert not codes.float().any(), "a weight of zeros stays one"
