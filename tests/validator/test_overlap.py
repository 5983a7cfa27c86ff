"""Inner products of two LoRAs against float64, what counts as contained, and that strangers never do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from fakes import Delta, Tensors, a_layer, noise, random_delta
from forms import Maker, additive_forms, form_layer
from lora_foundry.engine.lineage import Ingredient
from lora_foundry.engine.plan import MATCH_TRAINING, Target
from lora_foundry.validator.containment import Share, contained_share, contains, is_apart
from lora_foundry.validator.grams import SIGMAS, Sums
from lora_foundry.validator.overlap import as_filed, overlap, overlaps, spread

SHAPE = (96, 64)
MODULES = 16
NAMES = [f"blocks.{number}.attn.q.weight" for number in range(MODULES)]


def factors(seed: int, rank: int, norm: float = 1.0, shape=SHAPE) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Factors of one LoRA on every weight, each delta of this norm with singular values that fall off."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in NAMES:
        up = torch.randn(shape[0], rank, generator=random) * torch.exp(-0.1 * torch.arange(rank))
        down = torch.randn(rank, shape[1], generator=random)
        found.append((up * (norm / (up @ down).norm()), down))
    return found


def lora(pairs, dtype=torch.bfloat16, name="style.safetensors", **more):
    deltas = [Delta(weight, up.to(dtype), down.to(dtype)) for weight, (up, down) in zip(NAMES, pairs, strict=False)]
    return a_layer(deltas, name=name, **more)


def merged(one, other, strength: float):
    """The exact merge of one + strength * other, ranks side by side."""
    both = zip(one, other, strict=True)
    return [(torch.cat([u, strength * v], 1), torch.cat([d, e], 0)) for (u, d), (v, e) in both]


def truncated(pairs, rank: int):
    found = []
    for up, down in pairs:
        left, sizes, right = torch.linalg.svd(up @ down, full_matrices=False)
        found.append((left[:, :rank] * sizes[:rank], right[:rank]))
    return found


def exact(first, second) -> dict[str, float]:
    """The sums by the textbook, from whole deltas in float64 (dicts of weight -> delta)."""
    shared = [name for name in first if name in second]
    flat = [(first[name].double().flatten(), second[name].double().flatten()) for name in shared]
    dots = [float(a @ b) for a, b in flat]
    return {
        "dot": sum(dots),
        "first": sum(float(a @ a) for a, _ in flat),
        "second": sum(float(b @ b) for _, b in flat),
        "chance": sum(float((a @ a) * (b @ b)) / len(a) for a, b in flat),
        "scatter": sum(dot**2 for dot in dots),
        "reach": sum(float(a.norm() * b.norm()) for a, b in flat),
    }


def check(sums: Sums, want: dict[str, float], precision: float = 1e-5):
    largest = math.sqrt(want["first"] * want["second"])
    small = {"dot": precision * largest, "scatter": precision * largest**2}
    for name, value in want.items():
        assert getattr(sums, name) == pytest.approx(value, rel=precision, abs=small.get(name, 0)), name


def whole(layer, strength: float = 1.0) -> dict[str, torch.Tensor]:
    """Every delta of a layer of plain LoRAs in float64, from its factors as stored."""
    found = {}
    for patch in layer.patches:
        parts = dict(patch.adapter.parts)
        up, down = (layer.factors.values[parts[part]].double() for part in ("up", "down"))
        found[patch.target.weight] = strength * patch.adapter.scale * up @ down
    return found


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


# --- one inside another


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("style", [0.3, 1.0, 3.0])
def test_a_half_merge_reads_one_half(dtype, style):
    accelerator = factors(1, 16)
    upper = lora(merged(factors(2, 16, style), accelerator, 0.5), dtype)
    sums = overlap(upper, lora(accelerator, dtype, "lightning")).total
    own = exact(whole(lora(factors(2, 16, style), dtype)), whole(lora(accelerator, dtype)))
    assert sums.coefficient - own["dot"] / own["second"] == pytest.approx(0.5, abs=0.005)
    assert contains(sums)
    assert not is_apart(sums)


def test_a_half_merge_among_many_numbers_reads_one_half():
    shape = (384, 256)
    accelerator = factors(1, 16, shape=shape)
    upper = lora(merged(factors(2, 16, 1.0, shape), accelerator, 0.5))
    assert overlap(upper, lora(accelerator)).total.coefficient == pytest.approx(0.5, abs=0.005)


def test_truncation_loses_a_part_and_from_a_fifth_on_it_is_told():
    accelerator, style = factors(1, 16), factors(2, 16)
    found = [
        overlap(lora(truncated(merged(style, accelerator, 0.5), rank)), lora(accelerator)).total for rank in (24, 16, 4)
    ]
    shares = [sums.coefficient for sums in found]
    assert 0.5 > shares[0] > shares[1] > shares[2]
    assert [contains(sums) for sums in found] == [share >= 0.2 for share in shares] == [True, True, False]


def test_two_hundred_strangers_never_contain_each_other():
    """Also where one is thirty times as strong, so that a cosine of 0.01 is a coefficient of 0.3."""
    for seed in range(200):
        strong = 30.0 ** (seed % 3 / 2)
        one, other = (factors(2 * seed, 4 + seed % 13, strong)[:12], factors(2 * seed + 1, 4 + seed % 7)[:12])
        both = overlap(lora(one), lora(other))
        assert not contains(both.total)
        assert not contains(both.swapped().total)
        assert abs(both.total.cosine) < 0.02
        assert not both.total.significant


def test_strangers_that_share_the_few_directions_a_model_uses_never_contain_each_other():
    """Parts of all factors lie in the same four directions: cosines beyond chance, up here and down there."""
    random = torch.Generator().manual_seed(5)
    paths = [(torch.randn(SHAPE[0], 4, generator=random), torch.randn(4, SHAPE[1], generator=random)) for _ in NAMES]

    def along(seed, norm):
        mine = torch.Generator().manual_seed(seed)
        found = []
        for (up, down), (left, right) in zip(factors(seed, 8, norm), paths, strict=True):
            up, down = up / up.norm() + 0.8 * left @ torch.randn(4, 8, generator=mine) / 40, down / down.norm()
            down = down + 0.8 * torch.randn(8, 4, generator=mine) @ right / 40
            found.append((norm * up / (up @ down).norm(), down))
        return found

    wide = 0.0
    for seed in range(40):
        both = overlap(lora(along(seed, 10.0)), lora(along(1000 + seed, 1.0))).total
        wide = max(wide, abs(both.dot) / math.sqrt(both.chance))
        assert not contains(both)
    assert wide > SIGMAS  # the bound for chance alone would not have held


def test_a_verdict_needs_all_of_its_signs():
    sure = Sums(0.5, 4.0, 1.0, chance=1e-4, scatter=0.01, first_within=0.3, second_within=0.9, weights=100)
    assert contains(sure)
    for lacking in (
        {"dot": 0.19},  # inside at too small a share
        {"second_within": 0.09},  # it only points the same way, from directions of its own
        {"chance": 0.01},
        {"scatter": 0.03},
        {"dot": -0.5},
        {"second_within": 0.5, "first_within": 3.9},  # the first is a part of the second
    ):
        assert not contains(replace(sure, **lacking)), lacking


def test_few_weights_are_not_enough():
    accelerator = factors(1, 16)
    upper = merged(factors(2, 16), accelerator, 0.5)
    assert not contains(overlap(lora(upper[:4]), lora(accelerator[:4])).total)
    assert contains(overlap(lora(upper[:12]), lora(accelerator[:12])).total)


def test_apart_is_said_only_where_it_is_sure():
    assert is_apart(overlap(lora(factors(1, 8)), lora(factors(2, 8))).total)
    assert not is_apart(overlap(lora(factors(1, 8, 30.0)), lora(factors(2, 8))).total)
    assert not is_apart(Sums())


# --- one inside a checkpoint


def checkpoint(pairs=(), strength=1.0, change=0.0, dtype=torch.bfloat16, height=512, only=None):
    """Weights of rms 0.02, with a LoRA of 1% added to those of ``only``, trained on by ``change`` of their rms."""
    values = {}
    for number, name in enumerate(NAMES):
        weight = noise((height, 128), 0.02, number, torch.float32).double()
        if pairs and (only is None or number in only):
            weight = weight + strength * pairs[number][0].double() @ pairs[number][1].double()
        if change:
            weight = weight + noise((height, 128), 0.02 * change, 500 + number, torch.float32)
        values[name] = weight.to(dtype)
    return Tensors(values)


FUSED = factors(1, 16, 0.0002 * math.sqrt(512 * 128), (512, 128))


@pytest.mark.parametrize(("strength", "dtype"), [(1.0, torch.bfloat16), (0.7, torch.float16), (-1.0, torch.float32)])
def test_what_was_fused_into_a_checkpoint_reads_its_strength(strength, dtype):
    share = contained_share(
        checkpoint(FUSED, strength, dtype=dtype), checkpoint(dtype=dtype), lora(FUSED, strength=0.1)
    )
    assert share.coefficient == pytest.approx(strength, abs=0.01)
    assert (share.modules, share.of) == (MODULES, MODULES)
    assert share.spread < 0.05
    inside = share.contained(Ingredient("lightning.safetensors", ("sha256:1",)))
    assert inside.level == "derived"
    assert inside.ingredient == Ingredient("lightning.safetensors", ("sha256:1",), pytest.approx(strength, abs=0.01))
    assert f"{strength:.2f} of lightning.safetensors in 16 of 16" in inside.source


def test_the_share_is_that_of_float64():
    """The coefficient on the rows that are read is <M - W, d> / <d, d> of whole numbers."""
    fused, base = checkpoint(FUSED, 0.7, change=0.01), checkpoint()
    rows = slice(128, 384)
    dot = energy = 0.0
    for name, delta in whole(lora(FUSED)).items():
        change = (fused.values[name].double() - base.values[name].double())[rows]
        dot, energy = dot + float((change * delta[rows]).sum()), energy + float(delta[rows].square().sum())
    assert contained_share(fused, base, lora(FUSED)).coefficient == pytest.approx(dot / energy, abs=1e-5)


def test_another_lora_or_none_reads_nothing():
    base = checkpoint()
    for modified in (base, checkpoint(factors(9, 16, 0.05, (512, 128)))):
        share = contained_share(modified, base, lora(FUSED))
        assert (share.modules, share.of) == (0, MODULES)
        assert share.coefficient == pytest.approx(0, abs=0.02)
        assert share.contained(Ingredient("lightning")) is None


def test_a_lora_fused_into_half_of_the_modules_is_told_as_such():
    share = contained_share(checkpoint(FUSED, only=range(8)), checkpoint(), lora(FUSED))
    assert (share.modules, share.of) == (8, MODULES)
    assert share.coefficient == pytest.approx(1, abs=0.02)


def test_a_merge_that_was_trained_on_keeps_its_share_until_the_training_drowns_it():
    lightly = contained_share(checkpoint(FUSED, change=0.02), checkpoint(), lora(FUSED))
    assert lightly.coefficient == pytest.approx(1, abs=0.05)
    assert contained_share(checkpoint(FUSED, change=10.0), checkpoint(), lora(FUSED)) is None


def test_a_share_between_inside_and_not_is_no_verdict():
    assert contained_share(checkpoint(FUSED, 0.15), checkpoint(), lora(FUSED)) is None


def test_strengths_that_differ_from_module_to_module_are_no_verdict():
    weak, strong = ([(up * (scale if n % 2 else 1), down) for n, (up, down) in enumerate(FUSED)] for scale in (0.3, 3))
    assert contained_share(checkpoint(strong), checkpoint(), lora(weak)) is None


def test_modules_where_the_lora_does_almost_nothing_are_not_counted():
    faint = [(up * (1e-4 if number < 4 else 1), down) for number, (up, down) in enumerate(FUSED)]
    share = contained_share(checkpoint(faint, change=0.02), checkpoint(), lora(faint))
    assert (share.modules, share.of) == (12, 12)


def test_no_share_from_few_weights_or_other_shapes():
    few = lora(FUSED[:5])
    assert contained_share(checkpoint(FUSED), checkpoint(), few) is None
    assert contained_share(checkpoint(height=256), checkpoint(), lora(FUSED)) is None
    assert contained_share(Tensors({}), checkpoint(), lora(FUSED)) is None


def test_weights_in_fp8_are_noise_and_no_share():
    base = checkpoint()
    rounded = Tensors(
        {name: (w.float() / 0.0002).to(torch.float8_e4m3fn).float() * 0.0002 for name, w in base.values.items()}
    )
    share = contained_share(rounded, base, lora(FUSED))
    assert share == Share(pytest.approx(0, abs=0.05), 0, MODULES, pytest.approx(0, abs=0.1))
