"""What counts as contained in a LoRA or a checkpoint, and that strangers never do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from fakes import Tensors, noise
from lora_foundry.engine.grams import SIGMAS, Sums
from lora_foundry.validator.containment import Containment, contained_share, contains, is_apart
from lora_foundry.validator.overlap import overlap
from overlap_parts import MODULES, NAMES, SHAPE, exact, factors, lora, whole


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
    assert share == Containment(pytest.approx(0, abs=0.05), 0, MODULES, pytest.approx(0, abs=0.1))
