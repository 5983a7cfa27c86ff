"""Inner products of two LoRAs against float64, of many pairs in one pass."""

from __future__ import annotations

import math

import pytest
import torch
from fakes import a_layer, random_delta
from forms import Maker, additive_forms, form_layer
from lora_foundry.engine.grams import Sums
from lora_foundry.engine.plan import MATCH_TRAINING, Target
from lora_foundry.validator.containment import contains
from lora_foundry.validator.overlap import as_filed, overlap, overlaps, spread
from overlap_parts import MODULES, NAMES, SHAPE, exact, factors, lora, whole


def check(sums: Sums, want: dict[str, float], precision: float = 1e-5):
    largest = math.sqrt(want["first"] * want["second"])
    small = {"dot": precision * largest, "scatter": precision * largest**2}
    for name, value in want.items():
        assert getattr(sums, name) == pytest.approx(value, rel=precision, abs=small.get(name, 0)), name


# --- the sums


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_sums_are_those_of_whole_deltas_in_float64(dtype):
    one, other = lora(factors(1, 8), dtype), lora(factors(2, 24, 3.0), dtype)
    check(overlap(one, other).total, exact(whole(one), whole(other)))


def test_alpha_and_strength_scale_and_as_filed_takes_the_strength_away():
    deltas = [random_delta(name, SHAPE, 8, 0.01, number, alpha=2.0) for number, name in enumerate(NAMES)]
    others = [random_delta(name, SHAPE, 4, 0.02, number + 100) for number, name in enumerate(NAMES)]
    one, other = a_layer(deltas, strength=-0.5), a_layer(others, strength=3.0, rounding=MATCH_TRAINING, stage="fuse")
    check(overlap(one, other).total, exact(whole(one, -0.5), whole(other, 3.0)))
    check(overlap(as_filed(one), as_filed(other)).total, exact(whole(one), whole(other)))


def test_only_weights_in_common_count():
    one, other = lora(factors(1, 8)), lora(factors(2, 8)[:10])
    sums = overlap(one, other).total
    assert sums.weights == 10
    check(sums, exact(whole(one), whole(other)))


def test_split_and_fused_qkv_are_compared_by_rows():
    weight, size = "blocks.0.attn.qkv.weight", 32
    fused = random_delta(weight, (3 * size, 64), 8, 0.01, 1)
    split = [random_delta(weight, (size, 64), 4, 0.01, 2 + n, slice=(0, n * size, size)) for n in (0, 2)]
    together, apart = a_layer([fused]), a_layer(split, name="split.safetensors")
    rows = [slice(0, size), slice(2 * size, 3 * size)]
    whole_one = fused.up.double() @ fused.down.double()
    want = exact(
        {n: whole_one[part] for n, part in enumerate(rows)},
        {n: each.up.double() @ each.down.double() for n, each in enumerate(split)},
    )
    for sums in (overlap(together, apart).total, overlap(apart, together).swapped().total):
        assert sums.weights == 1
        check(sums, {name: want[name] for name in ("dot", "first", "second")})


def test_two_adapters_on_one_weight_are_one_delta():
    first, second, third = (random_delta(NAMES[0], SHAPE, 4, 0.01, seed) for seed in (1, 2, 3))
    both = first.exact(SHAPE, 1.0) + second.exact(SHAPE, 1.0)
    sums = overlap(a_layer([first, second]), a_layer([third], name="b")).total
    check(sums, exact({0: both}, {0: third.exact(SHAPE, 1.0)}))


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_every_additive_kind_is_compared_with_every_other(kernel):
    mine, theirs = (additive_forms(Maker(kernel=kernel, seed=seed)) for seed in (1, 2))
    target, empty = Target("w.weight"), torch.zeros(1, dtype=torch.float64)
    for name, form in mine.items():
        for other in theirs.values():
            sums = overlap(form_layer([(form, target)]), form_layer([(other, target)], name="b")).total
            check(sums, exact({0: form.exact(empty)}, {0: other.exact(empty)}))
            assert sums.weights == 1, name


def test_kinds_that_depend_on_the_base_are_left_out_and_counted():
    maker = Maker()
    dora = maker.dora(maker.lora(), "rows")
    targets = [Target(f"w{number}.weight") for number in range(3)]
    one = form_layer([(maker.lora(), targets[0]), (dora, targets[1]), (maker.oft(), targets[2])])
    other = form_layer([(maker.lora(), target) for target in targets], name="b")
    found = overlap(one, other)
    assert (found.total.weights, found.left_out) == (1, 2)


def test_a_dense_delta_is_compared_with_the_rows_of_a_slice():
    maker, target = Maker(seed=1), Target("w.weight")
    for name, form in additive_forms(maker).items():
        part = random_delta("w.weight", (10, 16), 4, 0.1, 5, slice=(0, 6, 10))
        sums = overlap(form_layer([(form, target)]), a_layer([part], name="b")).total
        rows = form.exact(torch.zeros(1, dtype=torch.float64))[6:16]
        assert sums.weights == 1, name
        check(sums, exact({0: rows}, {0: part.exact((24, 16), 1.0)[6:16]}))


@pytest.mark.parametrize("turned", [False, True])
def test_a_weight_that_is_changed_in_part_by_such_a_kind_is_left_out(turned):
    maker, target = Maker(), Target("w.weight")
    two = [(maker.lora(), target), (maker.oft(), target)]
    found = overlap(form_layer(two[::-1] if turned else two), form_layer([(maker.lora(), target)], name="b"))
    assert (found.total.weights, found.left_out) == (0, 1)


def test_a_pair_can_be_seen_from_the_other_side():
    one, other = lora(factors(1, 6)), lora(factors(2, 9, 3.0))
    there, back = overlap(one, other).total, overlap(other, one).total
    for field in ("dot", "first", "second", "chance", "first_within", "second_within", "clashes"):
        assert getattr(there.swapped(), field) == pytest.approx(getattr(back, field), rel=1e-5), field
    assert there.swapped().swapped() == there


def test_what_lies_within_the_other_is_a_projection_on_its_factors():
    one, other = lora(factors(1, 6), torch.float32), lora(factors(2, 9), torch.float32)
    want = 0.0
    for name, delta in whole(other).items():
        parts = dict(next(p.adapter.parts for p in one.patches if p.target.weight == name))
        up, down = (one.factors.values[parts[part]].double() for part in ("up", "down"))
        left, right = torch.linalg.qr(up)[0], torch.linalg.qr(down.T)[0]
        want += float((left @ (left.T @ delta @ right) @ right.T).square().sum())
    sums = overlap(one, other).total
    assert sums.second_within == pytest.approx(want, rel=1e-4)
    assert overlap(other, one).total.first_within == pytest.approx(want, rel=1e-4)
    assert sums.expressed == pytest.approx(6 * 6 / (96 * 64), rel=0.5)


def test_a_part_of_a_lora_is_all_within_the_whole_even_where_factors_are_dependent():
    pairs = factors(1, 8)
    doubled = [(torch.cat([up, up], 1), torch.cat([down, down], 0)) for up, down in pairs]
    assert overlap(lora(doubled), lora([(u[:, :3], d[:3]) for u, d in pairs])).total.expressed == pytest.approx(
        1, abs=1e-3
    )


def test_opposite_signs_are_counted():
    pairs = factors(1, 8)
    assert overlap(lora(pairs), lora(pairs)).total.clash == 0
    assert overlap(lora(pairs), lora(pairs, strength=-1.0)).total.clash == 1
    assert overlap(lora(pairs), lora(factors(2, 8))).total.clash == pytest.approx(0.5, abs=0.03)


def test_a_lora_that_does_nothing_has_nothing_in_common():
    idle = [(torch.zeros_like(up), down) for up, down in factors(1, 4)]
    for sums in (overlap(lora(idle), lora(factors(2, 4))).total, overlap(lora(factors(2, 4)), lora(idle)).total):
        assert sums.cosine == sums.coefficient == sums.expressed == 0
        assert sums.clash == 0.5
        assert not sums.significant
        assert not contains(sums)


# --- many pairs


def test_pairs_share_one_pass_and_give_what_each_gives_alone():
    layers = [lora(factors(seed, 4 + seed), name=f"{seed}.safetensors") for seed in range(3)]
    pairs = [(layers[0], layers[1]), (layers[0], layers[2]), (layers[1], layers[2])]
    told = []
    found = overlaps(pairs, group=lambda name: name.split(".")[1], on_step=lambda *step: told.append(step))
    for pair, one in zip(pairs, found, strict=True):
        alone = overlap(*pair)
        assert list(one.groups) == [str(number) for number in range(MODULES)]
        assert one.total == alone.total
    assert told == [(number, MODULES) for number in range(MODULES)]
    assert len(layers[0].factors.reads) == 2 * MODULES * 3  # once for both pairs, and once each time alone


def test_at_most_so_many_weights_are_compared():
    one, other = lora(factors(1, 4)), lora(factors(2, 4))
    assert overlap(one, other, 5).total.weights == 5
    assert overlap(one, other, 5).groups.keys() == overlap(other, one, 5).groups.keys()


def test_a_sample_is_spread_over_blocks_and_over_the_modules_of_a_block():
    names = [f"{block}.{module}" for block in range(60) for module in range(12)]
    sample = [name.split(".") for name in spread(names, 60)]
    assert {block for block, _ in sample} == {str(block) for block in range(60)}
    assert len({module for _, module in sample}) >= 10
    assert spread(names, 1000) == names
    assert spread(names, 60) == spread(names, 60)
