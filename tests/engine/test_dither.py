"""Rounding without bias: right on average, never further than the next code, the same bits every time."""

from __future__ import annotations

import pytest
import torch
from fakes import FP8_VALUES, Collected, a_layer, a_plan, noise, random_delta, same
from lora_foundry.engine.bake import bake
from lora_foundry.engine.codes import Format
from lora_foundry.engine.dither import DitheredMXFP8, Unbiased, UnbiasedGrouped, rounding_for
from lora_foundry.engine.finish import Finish
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


# --- formats of blocks, and grids that meet across formats

NAMES = {  # of a base's form -> the format that makes such weights
    "scaled fp8 (scale_weight): float8_e4m3fn": "float8_e4m3fn", "comfy_quant: float8_e5m2": "float8_e5m2",
    "comfy_quant: int8_tensorwise per row with convrot": "int8_convrot", "comfy_quant: mxfp8": "mxfp8",
    "nvfp4 (weight_scale_2)": "nvfp4", "w4a8 (weight_codebook)": "w4a8", "comfy_quant: w6a8": "w6a8",
}  # fmt: skip
SHAPE = (256, 1024)


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("form", NAMES)
def test_a_lora_survives_from_every_format_to_every_other(form, target):
    """To the nearest: w4a8 to w4a8 1 %, nvfp4 to fp8 59 %, fp8 to e5m2 286 %; these bakes were refused."""
    kind = FORMATS[NAMES[form]]
    weight = kind.decode(*quantize(noise(SHAPE, 0.02, 1, torch.float32), kind)).to(torch.float32)
    layer = a_layer([random_delta("blocks.0.q.weight", SHAPE, 16, 0.0002, 5)])
    plan = a_plan({"blocks.0.q.weight": weight}, layer, quantized=form, dequantized=True)
    report = bake(plan, Finish(target), Collected())
    assert report.quantized == 1 and abs(report.gains[0] - 1) < 0.05


def test_a_weak_lora_on_bf16_is_not_made_stronger_by_mxfp8():
    """One bf16 number of 16 lies between two codes, and any LoRA tipped it: of one of 0.1 % 194 % arrived."""
    base = noise((512, 2048), 0.02, 1).float()
    delta = noise((512, 16), 1.0, 3, torch.float32) @ noise((16, 2048), 1.0, 4, torch.float32)
    delta *= 0.001 * base.norm() / delta.norm()
    plain, kept, off = FORMATS["mxfp8"], {}, {}
    for format in (plain, rounding_for(plain, Base("a", None, None, None))):
        error = format.decode(*quantize(base + delta, format)) - base - delta
        kept[type(format)] = 1 + float((error * delta).sum() / delta.square().sum())
        off[type(format)] = float(error.norm() / base.norm())
    assert kept[type(plain)] > 1.6 and abs(kept[DitheredMXFP8] - 1) < 0.15
    assert off[DitheredMXFP8] < 1.003 * off[type(plain)]


@pytest.mark.parametrize(("name", "size"), [("w4a8", 104.0), ("w6a8", 3.75)])
def test_between_two_levels_of_blocks_each_is_taken_as_often_as_it_is_near(name, size):
    format = rounding_for(FORMATS[name], Base("a", None, None, f"comfy_quant: {name}", dequantized=True))
    assert isinstance(format, UnbiasedGrouped) and format.coarse
    scale = torch.cat([torch.full((500, 16), size), torch.ones(500, 1)], 1)
    generator = torch.Generator().manual_seed(1)
    first = 0 if format.bits == 4 else 1
    codes = torch.randint(first, 2**format.bits - 1, (500, 256), generator=generator)
    low, high = (format.levels(each, scale[:, :-1]) for each in (codes, codes + 1))

    def read_back(numbers: torch.Tensor) -> torch.Tensor:
        return format.prepare(format.decode(format.encode(numbers.clone(), scale), scale)).round()

    assert torch.equal(read_back(low), low) and torch.equal(read_back(high), high)
    for share in (0.1, 0.5, 0.9):
        around = share - 0.05 + 0.1 * torch.rand(codes.shape, generator=generator)
        got = read_back(low + (high - low) * around)
        assert ((got == low) | (got == high)).all()
        assert abs(float((got == high).float().mean()) - share) < 0.01


@pytest.mark.parametrize("name", ["w4a8", "w6a8", "mxfp8", "nvfp4"])
@pytest.mark.parametrize("form", [None, "same"])
def test_blocks_of_rows_of_those_give_the_same_bits(name, form):
    base = Base("a", None, None, f"comfy_quant: {name}" if form else None, dequantized=form is not None)
    format, weight = rounding_for(FORMATS[name], base), noise((96, 512), 0.02, 1, torch.float32)
    codes, scale = quantize(weight, format)
    rows = slice(32, 64)
    assert same(codes[rows], format.encode(format.prepare(weight[rows].clone()), scale[rows]))
