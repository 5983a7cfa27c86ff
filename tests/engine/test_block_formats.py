"""nvfp4, mxfp8, w4a8 and w6a8: reference bytes, error, edges, rows that do not know each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import bits, noise
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.formats import FORMATS, quantize
from quant_vectors import VECTORS, sha256, vector_weight

NAMES = ("mxfp8", "nvfp4", "w4a8", "w6a8")
every = pytest.mark.parametrize("each", [FORMATS[name] for name in NAMES], ids=NAMES)


def error_of(values: torch.Tensor, each) -> float:
    codes, scale = quantize(values, each)
    decoded = each.decode(codes[: len(values)], scale).double()
    return float((decoded - values.double()).norm() / values.double().norm())


def heavy(shape=(512, 1024)) -> torch.Tensor:
    """A Gaussian over a chi of 4 degrees, by its definition, with rows and columns of different size."""
    chi = sum(noise(shape, 1.0, seed, torch.float32).square() for seed in range(10, 14)) / 4
    spread = torch.exp(noise((1, shape[1]), 0.5, 2, torch.float32) + noise((shape[0], 1), 0.3, 3, torch.float32))
    return noise(shape, 0.02, 1, torch.float32) / chi.sqrt() * spread


@pytest.mark.parametrize("name", VECTORS)
def test_bytes_are_those_of_the_reference(name):
    each = FORMATS[name]
    if name == "nvfp4":
        each = replace(each, searched=range(1))  # scales by amax / 6, as the reference
    weight = vector_weight(2.0**-10 if name == "int8_convrot" else 0.0)
    codes, scale = quantize(weight, each)
    suffixes = ["weight", *(suffix for suffix, _, _ in each.beside(weight.shape))]
    stored = dict(zip(suffixes, [codes, *each.stored_scales(scale)], strict=True))
    assert {suffix: sha256(tensor) for suffix, tensor in stored.items()} == VECTORS[name]


@every
def test_what_is_stored_is_what_was_announced(each):
    weight = noise((48, 512), 0.02, 1, torch.float32)
    codes, scale = quantize(weight, each)
    assert tuple(codes.shape) == each.code_shape(weight.shape) and codes.dtype == each.dtype
    for (suffix, dtype, shape), tensor in zip(each.beside(weight.shape), each.stored_scales(scale), strict=True):
        assert (tensor.dtype, tuple(tensor.shape)) == (dtype, shape), suffix
        assert tensor.is_contiguous()
    assert torch.equal(each.read_scales(each.stored_scales(scale), weight.shape), scale)


@pytest.mark.parametrize(("name", "gauss", "heavy_tailed"), [
    ("mxfp8", 0.0266, 0.0266), ("nvfp4", 0.083, 0.086), ("w4a8", 0.074, 0.074), ("w6a8", 0.0215, 0.0215),
])  # fmt: skip
def test_error_of_a_round_trip(name, gauss, heavy_tailed):
    each = FORMATS[name]
    assert 0.75 * gauss < error_of(noise((512, 1024), 0.02, 1, torch.float32), each) <= gauss
    assert 0.75 * heavy_tailed < error_of(heavy(), each) <= heavy_tailed


def test_searched_scales_beat_those_by_amax():
    each, values = FORMATS["nvfp4"], noise((256, 1024), 0.02, 1, torch.float32)
    plain = error_of(values, replace(each, searched=range(1)))
    assert plain == pytest.approx(0.0951, rel=0.01) and error_of(values, each) < 0.87 * plain


@every
def test_rows_do_not_know_each_other(each):
    """Only the amax of the whole weight is common, in nvfp4."""
    weight = heavy((160, 768))
    codes, scale = quantize(weight, each)
    amax = None if each.row_scaled else weight.abs().amax()
    for rows in (slice(0, 1), slice(1, 48), slice(48, 160)):
        prepared = each.prepare(weight[rows].clone())
        part = each.scales(prepared, amax)
        assert torch.equal(part, scale[rows])
        assert torch.equal(bits(each.encode(prepared, part)), bits(codes[rows]))
        assert torch.equal(each.decode(codes[rows], part), each.decode(codes[:160], scale)[rows])


def test_the_host_is_told_what_it_needs():
    """In the words of the host; loaders take the bits of a code from the width."""
    assert [FORMATS[name].options for name in NAMES[:2]] == [{}, {}]
    assert all(FORMATS[name].options == {"group_size": 16, "convrot_groupsize": 256} for name in NAMES[2:])


@every
def test_zeros_stay_zeros(each):
    codes, scale = quantize(torch.zeros(16, 512), each)
    assert not each.decode(codes[:16], scale).any()
    weight = noise((16, 512), 0.02, 1, torch.float32)
    weight[3], weight[4, :256] = 0, -0.0
    codes, scale = quantize(weight, each)
    decoded = each.decode(codes[:16], scale)
    assert not decoded[3].any() and not decoded[4, :256].any() and torch.isfinite(decoded).all()


@every
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-33, 1e-10, 1e10, 1e36])
def test_weights_of_any_size_give_finite_numbers(each, size):
    weight = noise((16, 512), 0.02, 1, torch.float32)
    weight = weight / weight.abs().max() * size
    codes, scale = quantize(weight, each)
    assert torch.isfinite(each.decode(codes[:16], scale)).all()
    if size > 1e-30:
        assert error_of(weight, each) < 0.1


@every
def test_one_huge_number_spoils_its_block_only(each):
    """In nvfp4 the e4m3 scales reach from 2**-9 to 448: blocks 2**17 below the largest number still get theirs."""
    weight = noise((16, 512), 0.02, 1, torch.float32)
    weight[0, 0] = 100.0
    codes, scale = quantize(weight, each)
    off = each.decode(codes[:16], scale) - weight
    assert float(off[1:].norm() / weight[1:].norm()) < (0.12 if each.name == "nvfp4" else 0.08)
    assert float(off[0, 0].abs() / 100) < 0.1


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_is_refused_by_name(each, bad):
    values = torch.zeros(16, 512)
    values[3, 4] = bad
    with pytest.raises(FoundryError, match=r"blocks\.0\.q\.weight would hold 1 NaN or Inf of 8192"):
        quantize(values, each, "blocks.0.q.weight")


@pytest.mark.parametrize(("shape", "fits"), [
    ((32, 256), NAMES), ((48, 512), NAMES[1:]), ((32, 32), ("mxfp8", "nvfp4")), ((32, 48), ("nvfp4",)),
    ((16, 24), ()), ((24, 256), ()), ((16, 256, 1, 1), ()), ((256,), ()),
])  # fmt: skip
def test_what_does_not_fit_stays_as_it_is(shape, fits):
    assert tuple(name for name in NAMES if FORMATS[name].fits(shape)) == fits
