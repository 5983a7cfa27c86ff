"""Sums that are quantized: block by block, in any rows, with their largest number known beforehand."""

from __future__ import annotations

import pytest
import torch
from fakes import a_layer, a_plan, exact, noise, random_delta, same
from gemm_parts import ALIKE, BF16, MIXED, SHAPE, W, fast, loras, summed, whole
from lora_foundry.engine import gemm
from lora_foundry.engine.formats import DEFAULT, quantize
from lora_foundry.engine.fuse import fused_rows, start_and_terms
from lora_foundry.engine.gemm import JoinedProducts, Workspace
from lora_foundry.engine.sums import FusedSum
from lora_foundry.engine.terms import make_term


@pytest.mark.parametrize("dtype", [BF16, torch.float16, torch.float32])
@pytest.mark.parametrize("strengths", [ALIKE, MIXED], ids=["alike", "mixed"])
def test_a_sum_for_quantizing_rounds_only_the_delta(path, stacks, strengths, dtype):
    weight = noise(SHAPE, 0.02, 1)
    steps, layers = loras(4, strengths, 0.0004, dtype=dtype)
    want = exact(weight, steps)
    got = whole(summed(weight, *layers))
    rms = float((want - weight.double()).square().mean().sqrt())
    assert got.dtype == torch.float32
    assert float((got.double() - want).square().mean().sqrt()) < 2**-8 * rms
    assert bool(stacks) == gemm.fast_bf16("cpu")
    bf16_sum = want.to(BF16).double()
    assert float((got.double() - want).abs().mean()) < 0.1 * float((bf16_sum - want).abs().mean())


def test_quantizing_is_as_good_as_from_the_exact_sum():
    """Relative error and gain of the codes, to four digits."""
    weight = noise((1024, 1024), 0.02, 1)
    steps, layers = loras(4, MIXED, 0.002, (1024, 1024))
    want = exact(weight, steps)
    delta = want - weight.double()
    results = []
    for total in (whole(summed(weight, *layers)), want.float()):
        stored = DEFAULT.decode(*quantize(total, DEFAULT)).double()
        gain = ((stored - weight.double()) * delta).sum() / delta.square().sum()
        results.append((float((stored - want).norm() / want.norm()), float(gain)))
    assert results[0] == pytest.approx(results[1], rel=2e-4)
    assert results[0][1] == pytest.approx(1.0, abs=0.01)


def test_a_strong_delta_is_summed_in_fp32():
    weight = noise(SHAPE, 0.02, 1)
    for rms, limit in ((0.02, 1e-6), (0.002, 1e-3)):
        steps, layers = loras(2, MIXED, rms)
        want = exact(weight, steps)
        assert float((whole(summed(weight, *layers)).double() - want).norm() / want.norm()) < limit


@pytest.mark.parametrize("rms", [0.0002, 0.02])
@pytest.mark.parametrize("passes", [1, 2])
def test_blocks_are_the_callers_to_change_and_come_again_as_they_were(path, rms, passes):
    shape = (1537, 1024)  # more than one block of rows, the last one short
    weight = noise(shape, 0.02, 1)
    total = summed(weight, *loras(2, ALIKE, rms, shape)[1], passes=passes)
    first = whole(total)
    for rows, block in total.blocks():
        assert block.shape == (rows.stop - rows.start, 1024)
        block.fill_(7.0)
    assert first.shape == shape and same(whole(total), first)


def test_rows_nobody_touches_are_the_weights_whatever_the_workspace_held():
    weight, workspace = noise((1280, 512), 0.02, 1), Workspace()
    for slot in ("delta", "sum", "block", "piece"):
        for dtype in (BF16, torch.float32):
            workspace.take(weight.shape, weight.device, dtype, slot).fill_(0.0001)
    delta = random_delta(W, (256, 512), 8, 0.0004, 1, slice=(0, 512, 256))
    pairs = a_plan({W: weight}, a_layer([delta])).by_weight()[W]
    got = whole(FusedSum(*start_and_terms(weight, pairs, [make_term(*pair) for pair in pairs]), workspace))
    assert same(got[:512], weight[:512].float()) and same(got[768:], weight[768:].float())
    assert not same(got[512:768], weight[512:768].float())


@pytest.mark.parametrize(("passes", "times"), [(1, 3), (2, 1)])
def test_the_gemm_is_done_once_for_two_passes(path, monkeypatch, passes, times):
    seen = []
    addmm = torch.Tensor.addmm_
    monkeypatch.setattr(torch.Tensor, "addmm_", lambda *given: (seen.append(given), addmm(*given))[1])
    total = summed(noise(SHAPE, 0.02, 1), *loras(1, ALIKE, 0.02)[1], passes=passes)  # too strong for bf16
    for _ in range(3):
        whole(total)
    assert len(seen) == times


@pytest.mark.parametrize("dtype", [BF16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("outlier", [0.0, 0.3, -0.3])
def test_the_largest_number_of_a_sum_is_found_in_a_few_rows(path, outlier, dtype):
    """That of the blocks, but for the rounding of the delta; where one outlier holds it, from its neighbours alone."""
    weight = noise((2048, 512), 0.02, 1, dtype)
    weight[1000, 17] += outlier
    steps = [(random_delta(W, (1024, 512), 16, 0.0004, 2, slice=(0, 512, 1024)), 1.0)]
    total = summed(weight, a_layer([steps[0][0]]))
    searched = []
    peak = total._peak
    total._peak = lambda rows, least: (searched.append(len(rows)), peak(rows, least))[1]
    found = total.amax()
    if not fast():
        assert found is None  # the sum is held: it is looked at as a whole
        return
    want = exact(weight, steps).abs().max()
    assert float(found) == pytest.approx(float(want), abs=2**-8 * 0.003)
    assert float(found) == pytest.approx(float(whole(total).abs().max()), abs=2**-8 * 0.003)
    assert 1 <= sum(searched) <= (32 if outlier else 256)


@pytest.mark.parametrize("first", [0, 512, 1536])
def test_a_slice_can_hold_the_largest_number(path, first):
    """A delta on some rows of a weight that is the same everywhere: the rows to look at are those of the slice."""
    weight = torch.full((2048, 512), 0.02).to(BF16)
    delta = random_delta(W, (512, 512), 16, 0.0004, 2, slice=(0, first, 512))
    found = summed(weight, a_layer([delta])).amax()
    want = exact(weight, [(delta, 1.0)]).abs().max()
    assert float(want) > 0.021
    assert (found is not None) == fast() and (found is None or float(found) == pytest.approx(float(want), rel=2**-10))


@pytest.mark.parametrize("rank", [4, 64, 512])
@pytest.mark.parametrize("seed", range(4))
def test_a_delta_can_hold_the_largest_number(seed, rank):
    """A delta that is largest where the weight is not: the bound must not look past it."""
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.rand((1024, 512), generator=generator) * 0.02).to(BF16)
    steps, layers = loras(1, ALIKE, 0.0003, tuple(weight.shape), rank=rank)
    total = summed(weight, *layers)
    want = exact(weight, steps).abs().max()
    found = total.amax()
    assert (found is not None) == fast() and (found is None or float(found) == pytest.approx(float(want), rel=2**-12))
    assert float(want) > float(weight.abs().max())


@pytest.mark.parametrize("size", [1e-25, 1e-12, 1.0, 1e12, 1e25])
@pytest.mark.parametrize("rank", [1, 3, 64, 512])
def test_no_product_reaches_farther_than_its_bound(rank, size):
    """Also where the squares of a factor vanish, or are Inf."""
    generator = torch.Generator().manual_seed(rank)
    up = (torch.randn((96, rank), generator=generator) * size).to(BF16)
    down = (torch.randn((rank, 80), generator=generator) / size).to(BF16)
    down[:, 0] = 9 * up[5] / (size * size)  # as far as it can reach
    exact = (up.double() @ down.double()).abs().amax(1) * 0.7
    bound = JoinedProducts(up, down, -0.7).reach(Workspace()).double()
    assert (bound.isinf() | (bound >= exact)).all()
    assert size != 1.0 or float(bound[5]) < 1.1 * float(exact[5])


def test_the_largest_number_of_a_weight_alone_needs_no_sum():
    weight = noise((300, 512), 0.02, 1)
    assert float(summed(weight).amax()) == float(weight.abs().max())


def test_a_strong_delta_with_gaps_is_not_weak():
    weight = noise((512, 512), 0.02, 1)
    up, down = torch.randn(512, 8).to(BF16), torch.randn(8, 512).to(BF16)
    for step in (2, 4, 8, 16):
        gaps = down.clone()
        gaps[:, ::step] = 0
        assert not gemm.is_weak(JoinedProducts(up, gaps, 0.02), weight)


def test_a_weight_of_the_same_number_everywhere():
    weight = torch.full((512, 512), -0.5, dtype=BF16)
    steps, layers = loras(1, ALIKE, 0.001, (512, 512))
    want = exact(weight, steps).abs().max()
    found = summed(weight, *layers).amax()
    assert (found is not None) == fast() and (found is None or float(found) == pytest.approx(float(want), rel=2**-12))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_largest_number_is_claimed_where_not_all_are_finite(bad):
    weight = noise(SHAPE, 0.02, 1)
    weight[3, 5] = bad
    assert summed(weight, a_layer([random_delta(W, SHAPE, 16, 0.0004, 2)])).amax() is None


def test_a_sum_of_nothing_is_the_weight():
    weight = noise(SHAPE, 0.02, 1)
    assert same(whole(summed(weight)), weight.float())
    assert same(whole(summed(weight, a_layer([random_delta(W, SHAPE, 4, 0.1, 1)], 0.0))), weight.float())


def test_rows_one_by_one_are_the_rows_of_the_sum():
    weight = noise((96, 32), 0.02, 1)
    delta = random_delta(W, (32, 32), 8, 0.004, 1, 4.0, slice=(0, 32, 32))
    pairs = a_plan({W: weight}, a_layer([delta])).by_weight()[W]
    start, merged = start_and_terms(weight, pairs, [make_term(*pair) for pair in pairs])
    out = torch.empty(96, 32)
    for first in range(0, 96, 24):
        fused_rows(start[first : first + 24], first, merged, out[first : first + 24])
    torch.testing.assert_close(out.double(), exact(weight, [(delta, 1.0)]), rtol=1e-6, atol=1e-8)
