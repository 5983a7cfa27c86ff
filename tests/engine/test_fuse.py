"""The sum of a weight and its deltas: against float64, in any listing order, and as the trainers round it."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from fakes import (
    A_B,
    A_B_NAMED,
    DOWN_UP,
    Collected,
    Delta,
    a_layer,
    a_plan,
    bits,
    exact,
    noise,
    random_delta,
    round_to_bf16,
    same,
    same_all,
    wrong_share,
)
from lora_foundry.engine.bake import bake
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.fuse import fused_weight
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, STACK
from lora_foundry.engine.terms import make_term, merge_terms, swap_scale_shift

W = "blocks.0.q.weight"
BF16 = Finish("none", torch.bfloat16)


def baked(values, *layers, finish=BF16):
    sink = Collected()
    bake(a_plan(values, *layers), finish, sink)
    return sink.values


def summed(weight, *layers):
    """The fp32 sum a bake finishes from."""
    plan = a_plan({W: weight}, *layers)
    pairs = plan.by_weight().get(W, ())
    return fused_weight(weight, pairs, [make_term(*pair) for pair in pairs])


RANKS = (4, 64, 16, 32, 8, 4, 64, 16)
STRENGTHS = (1.0, 0.7, -0.5, 1.3, 0.05, 0.8, -1.0, 2.0)


@pytest.mark.parametrize(("layers", "shape"), [
    (1, (1024, 512)), (2, (512, 256)), (3, (384, 640)), (4, (256, 512)), (5, (512, 512)), (6, (320, 256)),
    (7, (256, 256)), (8, (1024, 1024)), (2, (320, 128, 1, 1)), (3, (128, 64, 3, 3)),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bf16_bake_is_the_float64_sum_rounded_once(layers, shape, dtype):
    weight = noise(shape, 0.02, 1, dtype)
    deltas = [random_delta(W, shape, RANKS[i], 0.0006, 10 + i, (None, 8.0)[i % 2]) for i in range(layers)]
    listed = [a_layer([d], STRENGTHS[i], (STACK, FUSE)[i == 0], f"{i}") for i, d in enumerate(deltas)]
    result = baked({W: weight}, *listed)[W]
    want = exact(weight, list(zip(deltas, STRENGTHS, strict=False)))
    assert wrong_share(result, round_to_bf16(want)) <= 1e-4
    assert wrong_share(result, round_to_bf16(weight.double())) > 0.2  # the LoRAs did something


def test_the_fp32_sum_is_exact_to_fp32():
    weight = noise((256, 256), 0.02, 3)
    deltas = [random_delta(W, (256, 256), 32, 0.002, i, 16.0, torch.float16) for i in range(6)]
    result = summed(weight, *(a_layer([d], 0.9, name=f"{i}") for i, d in enumerate(deltas)))
    assert result.dtype == torch.float32
    want = exact(weight, [(d, 0.9) for d in deltas])
    assert float((result.double() - want).abs().max() / want.abs().max()) < 4e-7


@pytest.mark.parametrize(("alpha", "factor"), [(None, 1.0), (8.0, 0.125), (64.0, 1.0), (0.0, 0.0), (128.0, 2.0)])
def test_scale_is_alpha_over_rank_and_one_without_alpha(alpha, factor):
    up, down = noise((32, 64), 1.0, 0, torch.float32), noise((64, 16), 1.0, 1, torch.float32)
    result = summed(torch.zeros(32, 16), a_layer([Delta(W, up, down, alpha)], 0.5))
    torch.testing.assert_close(result.double(), 0.5 * factor * (up.double() @ down.double()), rtol=1e-5, atol=1e-5)


def test_conv_deltas_land_on_the_right_taps():
    """One tap at a time: a kernel read in another order would put the value elsewhere."""
    for row in range(3):
        for column in range(3):
            down = torch.zeros(1, 5, 3, 3)
            down[0, 4, row, column] = 2.0
            up = torch.zeros(6, 1, 1, 1)
            up[3] = 1.0
            result = summed(torch.zeros(6, 5, 3, 3), a_layer([Delta(W, up, down)]))
            want = torch.zeros(6, 5, 3, 3)
            want[3, 4, row, column] = 2.0
            assert torch.equal(result, want)


def test_a_linear_lora_fits_a_1x1_convolution_and_the_reverse():
    linear, conv = random_delta(W, (32, 48), 4, 0.1, 5), random_delta(W, (32, 48, 1, 1), 4, 0.1, 5)
    for weight, delta in ((torch.zeros(32, 48, 1, 1), linear), (torch.zeros(32, 48), conv)):
        result = summed(weight, a_layer([delta]))
        assert result.shape == weight.shape
        assert torch.equal(result.flatten(1), summed(torch.zeros(32, 48), a_layer([linear])))


def qkv_layers():
    """Fused qkv [384, 128]: two LoRAs on q, k and v, one on the whole, one on a column slice."""
    rows = [(0, 128 * part, 128) for part in range(3)]
    split = [
        [random_delta(W, (128, 128), 8, 0.001, 20 + 3 * n + i, slice=s) for i, s in enumerate(rows)] for n in (0, 1)
    ]
    whole = [random_delta(W, (384, 128), 16, 0.001, 40, 4.0)]
    columns = [random_delta(W, (384, 64), 4, 0.001, 41, slice=(1, 64, 64))]
    return [*split, whole, columns]


def test_slices_on_rows_and_columns():
    weight, parts = noise((384, 128), 0.02, 2), qkv_layers()
    result = baked({W: weight}, *(a_layer(deltas, 0.8, name=f"{i}") for i, deltas in enumerate(parts)))[W]
    want = round_to_bf16(exact(weight, [(d, 0.8) for deltas in parts for d in deltas]))
    assert wrong_share(result, want) <= 1e-4


@pytest.mark.parametrize("target", [(0, 256, 128), (1, 64, 64)])
def test_a_slice_leaves_the_rest_alone(target):
    weight = noise((384, 128), 0.02, 2)
    shape = (128, 128) if target[0] == 0 else (384, 64)
    result = baked({W: weight}, a_layer([random_delta(W, shape, 8, 0.01, 1, slice=target)]))[W]
    rest = torch.ones(384, 128, dtype=torch.bool)
    rest.narrow(*target).fill_(False)
    assert torch.equal(bits(result)[rest], bits(weight)[rest])
    assert not torch.equal(result.narrow(*target), weight.narrow(*target))


@pytest.mark.parametrize("slice_", [None, (0, 64, 64)])
def test_swap_scale_shift_swaps_the_halves_of_the_delta(slice_):
    delta = random_delta(
        W, (128 if slice_ is None else 64, 32), 8, 0.01, 4, 4.0, slice=slice_, transform="swap_scale_shift"
    )
    weight = noise((128, 32), 0.02, 9)
    result = baked({W: weight}, a_layer([delta], 0.7))[W]
    assert wrong_share(result, round_to_bf16(exact(weight, [(delta, 0.7)]))) <= 2e-4
    unswapped = Delta(W, delta.up, delta.down, 4.0, slice_)
    assert wrong_share(result, round_to_bf16(exact(weight, [(unswapped, 0.7)]))) > 0.1
    assert swap_scale_shift(torch.arange(4.0)[:, None])[:, 0].tolist() == [2.0, 3.0, 0.0, 1.0]


def test_listing_order_changes_not_one_bit():
    weight = noise((128, 96), 0.02, 1, torch.float32)
    deltas = [random_delta(W, (128, 96), r, 0.004, 30 + r, 8.0) for r in (4, 8, 16, 32)]
    stages = (FUSE, STACK, STACK, FUSE)
    layers = [a_layer([d], 0.1 + 0.3 * i, stages[i], f"{i}") for i, d in enumerate(deltas)]
    first = summed(weight, *layers)
    for order in permutations(layers):
        assert same(summed(weight, *order), first)
    terms = [make_term(layer, layer.patches[0]) for layer in layers]
    naive = [weight.clone().addmm_(m.up, m.down) for order in permutations(terms) for m in merge_terms(order)]
    assert any(not same(other, naive[0]) for other in naive)  # the case is sensitive: unsorted sums do differ


def test_listing_order_changes_not_one_bit_where_slices_overlap():
    weight, parts = noise((384, 128), 0.02, 2, torch.float32), qkv_layers()
    layers = [a_layer(deltas, 0.9, name=f"{i}") for i, deltas in enumerate(parts)]
    first = summed(weight, *layers)
    for order in list(permutations(layers))[::3]:
        assert same(summed(weight, *order), first)


def test_moving_a_lora_from_fuse_to_stack_changes_not_one_bit():
    weight = noise((64, 64), 0.02, 1)
    deltas = [random_delta(W, (64, 64), 8, 0.004, i) for i in range(3)]
    results = []
    for stages in ((FUSE, FUSE, STACK), (STACK, FUSE, FUSE), (STACK, STACK, STACK)):
        results.append(
            summed(weight, *(a_layer([d], 0.6, s, f"{i}") for i, (d, s) in enumerate(zip(deltas, stages, strict=True))))
        )
    assert same(results[0], results[1]) and same(results[0], results[2])


def test_a_lora_listed_twice_counts_twice():
    weight, delta, other = noise((64, 64), 0.02, 1), *(random_delta(W, (64, 64), 8, 0.003, i) for i in range(2))
    twice = [a_layer([delta], 0.4), a_layer([other], 1.0, name="other"), a_layer([delta], 0.4)]
    result = baked({W: weight}, *twice)[W]
    assert wrong_share(result, round_to_bf16(exact(weight, [(delta, 0.8), (other, 1.0)]))) <= 3e-4
    again = a_layer([delta], 0.4)
    assert same(baked({W: weight}, again, twice[1], again)[W], result)  # the very same object twice


def test_opposite_strengths_cancel():
    weight, delta = noise((64, 64), 0.02, 1), random_delta(W, (64, 64), 8, 0.003, 1)
    assert same(baked({W: weight}, a_layer([delta], 0.7), a_layer([delta], -0.7))[W], weight)


@pytest.mark.parametrize("rounding", ["once", MATCH_TRAINING])
def test_strength_zero_has_no_effect(rounding):
    weight, delta = noise((64, 64), 0.02, 1, torch.float32), random_delta(W, (64, 64), 8, 0.003, 1)
    other = a_layer([random_delta(W, (64, 64), 8, 0.003, 2)], 1.0, name="other")
    off = a_layer([delta], 0.0, FUSE, rounding=rounding)
    assert same(baked({W: weight}, off, finish=Finish())[W], weight)
    assert same(baked({W: weight}, off, other, finish=Finish())[W], baked({W: weight}, other, finish=Finish())[W])
    assert off.factors.reads == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("rounding", ["once", MATCH_TRAINING])
def test_inputs_are_never_modified(dtype, rounding):
    values = {W: noise((64, 64), 0.02, 1, dtype), "c.weight": noise((32, 16, 3, 3), 0.02, 2, dtype)}
    deltas = [
        random_delta(W, (64, 64), 8, 0.01, 1, dtype=torch.float32),
        random_delta("c.weight", (32, 16, 3, 3), 4, 0.01, 2),
    ]
    layer = a_layer(deltas, 0.9, FUSE, rounding=rounding)
    before = [{k: v.clone() for k, v in group.items()} for group in (values, layer.factors.values)]
    for finish in (BF16, Finish(), Finish("none", torch.float32)):
        result = baked(values, layer, finish=finish)
        assert not any(same(result[name], values[name]) for name in values)
        assert all(result[name].data_ptr() != values[name].data_ptr() for name in values)
    assert same_all(values, before[0]) and same_all(layer.factors.values, before[1])


def as_trained(weight, steps, suffixes):
    """What the Lightning loader (down/up) and the general loader (A/B: alpha ignored) leave in a bf16 model."""
    weight = weight.to(torch.bfloat16)
    for delta, strength in steps:
        scale = strength if suffixes is not DOWN_UP or delta.alpha is None else strength * (delta.alpha / delta.rank)
        up, down = delta.up.to(torch.bfloat16), delta.down.to(torch.bfloat16)
        if weight.ndim == 4 and weight.shape[2:] == (1, 1):
            change = (scale * torch.mm(up.squeeze(3).squeeze(2), down.squeeze(3).squeeze(2))).unsqueeze(2).unsqueeze(3)
        elif weight.ndim == 4:
            change = (scale * torch.mm(up.flatten(1), down.flatten(1))).reshape(weight.shape)
        else:
            change = scale * torch.mm(up, down)
        weight = weight + change
    return weight


@pytest.mark.parametrize("suffixes", [DOWN_UP, A_B, A_B_NAMED], ids=["down/up", "A/B", "A/B named"])
@pytest.mark.parametrize("shape", [(192, 128), (96, 64, 1, 1), (64, 32, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_match_training_is_bit_for_bit_what_the_trainers_do(suffixes, shape, dtype):
    weight = noise(shape, 0.02, 1, dtype)
    steps = [
        (random_delta(W, shape, r, 0.003, r, a, torch.float32), s)
        for r, a, s in ((64, 8.0, 1.0), (16, 3.0, 0.7), (4, None, 0.3))
    ]
    layers = [a_layer([d], s, FUSE, f"{9 - i}", MATCH_TRAINING, suffixes) for i, (d, s) in enumerate(steps)]
    want = as_trained(weight, steps, suffixes)
    assert same(baked({W: weight}, *layers)[W], want)
    assert wrong_share(baked({W: weight}, *reversed(layers))[W], want) > 0  # listed order matters, hash order is not it
    assert wrong_share(want, round_to_bf16(exact(weight, steps))) > 0.01


def test_the_stack_is_added_to_the_trained_base_in_fp32_and_rounded_once():
    shape = (256, 128)
    weight = noise(shape, 0.02, 1)
    lightning = [(random_delta(W, shape, 64, 0.003, 5, 8.0), 1.0), (random_delta(W, shape, 16, 0.003, 6), 0.5)]
    styles = [(random_delta(W, shape, 16, 0.0004, 7, 8.0), 0.8), (random_delta(W, shape, 8, 0.0004, 8, 8.0), 0.6)]
    fused = [a_layer([d], s, FUSE, f"f{i}", MATCH_TRAINING) for i, (d, s) in enumerate(lightning)]
    stack = [a_layer([d], s, STACK, f"s{i}", suffixes=A_B) for i, (d, s) in enumerate(styles)]
    want = round_to_bf16(exact(as_trained(weight, lightning, DOWN_UP), styles))
    for order in (fused + stack, [stack[0], *fused, stack[1]], fused + stack[::-1]):
        assert wrong_share(baked({W: weight}, *order)[W], want) <= 1e-4


def test_match_training_says_nothing_about_the_stack():
    """Only the fuse stage is rounded as trained; in the stack alpha counts for A/B files too."""
    weight, delta = noise((64, 64), 0.02, 1), random_delta(W, (64, 64), 16, 0.004, 1, 4.0)
    odd = a_layer([delta], 0.7, STACK, rounding=MATCH_TRAINING, suffixes=A_B)
    assert same(summed(weight, odd), summed(weight, a_layer([delta], 0.7, STACK)))


def test_match_training_touches_slices_only():
    weight = noise((96, 32), 0.02, 1)
    delta = random_delta(W, (32, 32), 8, 0.004, 1, 4.0, slice=(0, 32, 32))
    result = baked({W: weight}, a_layer([delta], 1.0, FUSE, rounding=MATCH_TRAINING))[W]
    want = weight.clone()
    want[32:64] = as_trained(weight[32:64], [(delta, 1.0)], DOWN_UP)
    assert same(result, want)


def test_a_plan_without_its_file_says_so():
    layer = a_layer([random_delta(W, (16, 16), 4, 0.1, 1)], name="gone.safetensors")
    orphan = type(layer)(**{**vars(layer), "factors": None})
    with pytest.raises(FoundryError, match=r"gone\.safetensors.*Plan it again"):
        baked({W: torch.zeros(16, 16)}, orphan)


@pytest.mark.parametrize("at", [0, 128, 256])
def test_the_scale_is_that_of_the_largest_number_of_any_row_slice(at):
    """The amax is looked for where it may be: a number that a slice far down makes largest is found."""
    weight = noise((384, 128), 0.02, 1)
    places = [random_delta(W, (128, 128), 8, 0.001, seed, slice=(0, seed, 128)) for seed in (0, 128, 256) if seed != at]
    places.append(random_delta(W, (128, 128), 8, 0.2, 7, slice=(0, at, 128)))
    plan, sink = a_plan({W: weight}, a_layer(places)), Collected()
    bake(plan, Finish("float8_e4m3fn", keep=()), sink)
    want = exact(weight, [(delta, 1.0) for delta in places]).abs()
    assert int(want.amax(dim=1).argmax()) in range(at, at + 128)
    assert float(sink.values[f"{W}_scale"]) == pytest.approx(float(want.max()) / 448, rel=4e-3)
