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


# (effect kept, error of the weights) in percent, for a LoRA of 0.5, 1 and 2 %: README, docs/no-effect-on-fp8.md.
FIGURES = {
    "fused first": ((99, 2.65), (100, 2.65), (100, 2.65)),
    "on scaled fp8, nearest": ((24, 2.7), (44, 2.8), (69, 3.0)),
    "on scaled fp8, by chance": ((100, 3.06), (100, 3.35), (100, 3.75)),
    "on a plain cast": ((0, 3.4), (0, 3.5), (21, 3.9)),
}


def noisy(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def after(order: str, weight: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(what is multiplied with, what is without the LoRA) in fp32."""
    chance = torch.Generator().manual_seed(5)
    if order == "fused first":
        codes, scale = quantized(weight + delta, nearest)
        return codes.float() * scale, weight
    if order == "on a plain cast":
        cast = nearest(weight).float()
        return nearest(cast + delta).float(), cast
    codes, scale = quantized(weight, nearest)
    base = codes.float() * scale
    rounding = nearest if order.endswith("nearest") else lambda values: stochastic(values, chance)
    return quantized(base + delta, rounding, scale)[0].float() * scale, base


@pytest.mark.parametrize("order", FIGURES)
def test_what_the_orders_leave_of_a_lora(order):
    """Weights of 1536 x 3072 of rms 0.02, rows and columns of different size, the largest 15 times the rms."""
    spread = torch.exp(0.3 * noisy(1536, 1, seed=1)) * torch.exp(0.3 * noisy(1, 3072, seed=2))
    weight = noisy(1536, 3072, seed=3) * spread
    weight = (weight * (0.02 / weight.square().mean().sqrt())).clamp_(-0.3, 0.3)
    weight[0, 0] = 0.3
    weight = weight.to(torch.bfloat16).float()
    delta = noisy(1536, 32, seed=4) @ noisy(32, 3072, seed=5)
    delta *= 0.02 / delta.square().mean().sqrt()
    for share, (kept, error) in zip((0.005, 0.01, 0.02), FIGURES[order], strict=True):
        stored, base = after(order, weight, share * delta)
        effect = float(((stored - base) * share * delta).sum() / (share * delta).square().sum())
        off = float((stored - weight - share * delta).norm() / (weight + share * delta).norm())
        assert (100 * effect, 100 * off) == (pytest.approx(kept, abs=0.5), pytest.approx(error, rel=0.02)), share


def test_a_cast_without_a_scale_is_a_quarter_further_off():
    """docs/grid.md: much of a weight of rms 0.02 is below 0.0156, where the steps of fp8 get no smaller."""
    weight = 0.02 * noisy(1536, 3072, seed=3)
    codes, scale = quantized(weight, nearest)
    off = [float((each - weight).norm() / weight.norm()) for each in (nearest(weight).float(), codes.float() * scale)]
    assert [100 * each for each in off] == pytest.approx([3.31, 2.65], rel=0.005)
