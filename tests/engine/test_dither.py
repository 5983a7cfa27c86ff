"""Rounding without bias: right on average, never further than the next code, the same bits every time."""

from __future__ import annotations

import pytest
import torch
from fakes import FP8_VALUES, noise, same
from lora_foundry.engine.codes import Format
from lora_foundry.engine.dither import Unbiased, rounding_for
from lora_foundry.engine.formats import FORMATS, quantize
from lora_foundry.engine.plan import Base

UNBIASED = {name: Unbiased(**vars(format)) for name, format in FORMATS.items() if type(format) is Format}
ONE = torch.ones(())
every_format = pytest.mark.parametrize("name", UNBIASED)


def grid(name: str) -> torch.Tensor:
    """Every value the codes of a format stand for, in order."""
    dtype = FORMATS[name].dtype
    positive = FP8_VALUES[dtype] if dtype.is_floating_point else torch.arange(128, dtype=torch.float64)
    return torch.cat([-positive.flip(0)[:-1], positive]).float()


@every_format
def test_a_number_on_the_grid_stays(name):
    values = grid(name)[None]
    assert torch.equal(UNBIASED[name].encode(values, ONE).float(), values)


@every_format
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_between_two_codes_each_is_taken_as_often_as_it_is_near(name, share):
    """All gaps, subnormal ones and those at a power of two among them, in both signs."""
    values = grid(name)
    low, high = values[:-1, None], values[1:, None]
    around = torch.linspace(share - 0.05, share + 0.05, 4001)
    exact = low + (high - low) * around
    got = UNBIASED[name].encode(exact, ONE).float()
    assert ((got == low) | (got == high)).all()
    up = (got == high).float().mean(1)
    assert (up - share).abs().max() < 0.05 and abs(float(up.mean()) - share) < 0.005


@every_format
def test_what_is_beyond_the_largest_code_becomes_it(name):
    largest = FORMATS[name].largest
    values = torch.tensor([[largest * 1.001, -largest * 2, largest, 0.0]])
    assert UNBIASED[name].encode(values, ONE).float().tolist() == [[largest, -largest, largest, 0.0]]


@every_format
def test_blocks_of_rows_give_the_same_bits(name):
    format, weight = UNBIASED[name], noise((96, 256), 0.02, 1, torch.float32)
    codes, scale = quantize(weight, format)
    assert same(codes, quantize(weight, format)[0])
    rows = slice(32, 64)
    part = scale[rows] if format.row_scaled else scale
    assert same(codes[rows], format.encode(format.prepare(weight[rows].clone()), part))


@every_format
def test_a_weak_lora_survives_a_second_quantization(name):
    plain, unbiased = FORMATS[name], UNBIASED[name]
    original = noise((256, 1024), 0.02, 2, torch.float32)
    base = plain.decode(*quantize(original, plain))
    delta = noise((256, 8), 1.0, 3, torch.float32) @ noise((8, 1024), 1.0, 4, torch.float32)
    delta *= 0.002 * base.norm() / delta.norm()
    kept = {}
    for format in (plain, unbiased):
        error = format.decode(*quantize(base + delta, format)) - base - delta
        kept[type(format)] = 1 + float((error * delta).sum() / delta.square().sum())
    assert kept[type(plain)] < 0.2 and abs(kept[Unbiased] - 1) < 0.08


@pytest.mark.parametrize(
    ("quantized", "format", "unbiased"),
    [
        ("scaled fp8 (scale_weight): float8_e4m3fn", "float8_e4m3fn", True),
        ("float8_e5m2 without scales", "float8_e4m3fn", True),
        ("float8_e4m3fn without scales", "int8_convrot", False),
        ("comfy_quant: int8_tensorwise per row with convrot", "int8_convrot", True),
        ("comfy_quant: int8_tensorwise per row", "int8_convrot", False),
        ("comfy_quant: int8_tensorwise per row with convrot", "float8_e5m2", False),
        (None, "float8_e4m3fn", False),
    ],
)
def test_only_where_the_base_lies_on_that_grid(quantized, format, unbiased):
    base = Base("a", None, None, quantized, dequantized=quantized is not None)
    chosen = rounding_for(FORMATS[format], base)
    assert isinstance(chosen, Unbiased) is unbiased and {**vars(chosen)} == vars(FORMATS[format])
    assert rounding_for(FORMATS[format], Base("a", None, None, quantized)) is FORMATS[format]
