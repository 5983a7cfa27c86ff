"""DoRA magnitudes: right after light training, silent after heavy training, never wrong; norms against float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import a_layer, a_plan
from forms import STORED, Form, form_layer
from lora_foundry.engine.plan import FUSE, Target
from lora_foundry.validator.magnitudes import Nearest, distance, has_magnitudes, lengths, nearest, quote

MODULES, OUT, IN, RANK = 12, 64, 48, 4
NAMES = [f"blocks.{number}.ffn.weight" for number in range(MODULES)]


def base_weights() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(OUT, IN, generator=random) * 0.1 for name in NAMES}


def accelerator(share: float, seed: int = 1, name: str = "lightning.safetensors", **more):
    """A base LoRA whose deltas have this share of the weights' norm."""
    random = torch.Generator().manual_seed(seed)
    forms = []
    for weight, values in base_weights().items():
        up, down = torch.randn(OUT, RANK, generator=random), torch.randn(RANK, IN, generator=random)
        up *= share * values.norm() / (up @ down).norm()
        forms.append((Form("lora", (OUT, IN), {"up": up, "down": down}, lambda w: w, RANK), Target(weight)))
    return form_layer(forms, stage=FUSE, name=name, **more)


def deltas(layer) -> dict[str, torch.Tensor]:
    read = layer.factors.values
    parts = [dict(patch.adapter.parts) for patch in layer.patches]
    return {name: read[each["up"]] @ read[each["down"]] for name, each in zip(NAMES, parts, strict=True)}


def below(*layers) -> dict[str, torch.Tensor]:
    """The weights with these layers in them."""
    return {name: weight + sum(deltas(layer)[name] for layer in layers) for name, weight in base_weights().items()}


def train(weights: torch.Tensor, steps: int, rate: float, axis: int) -> dict[str, torch.Tensor]:
    """Train DoRAs on top of weights [n, out, in] towards others that differ by 30%, as PEFT does; gives their parts."""
    random, count = torch.Generator().manual_seed(11), len(weights)
    wanted = weights + 0.03 * torch.randn(weights.shape, generator=random)
    size = weights.norm(dim=axis, keepdim=True).clone().requires_grad_()
    down = (torch.randn(count, RANK, IN, generator=random) / IN**0.5).requires_grad_()
    up = torch.zeros(count, OUT, RANK, requires_grad=True)
    optimizer = torch.optim.Adam([size, down, up], rate)
    for _ in range(steps):
        values = torch.randn(count, 64, IN, generator=random)
        total = weights + up @ down
        changed = size * total / total.norm(dim=axis, keepdim=True).detach()
        loss = (values @ (changed - wanted).mT).square().mean(dim=(1, 2)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"up": up.detach(), "down": down.detach(), "magnitude": size.detach()}


LIGHT, HEAVY = (30, 1e-4), (200, 2e-3)  # m moves by 0.3% and by 5%


def dora(weights: dict[str, torch.Tensor], training=LIGHT, axis: int = 2, dtype=torch.float32):
    """A stacked DoRA that was trained on these weights; axis 2: a magnitude for each row, 1: for each column."""
    trained = train(torch.stack(list(weights.values())), *training, axis)
    forms = []
    for number, name in enumerate(weights):
        parts = {part: values[number].to(dtype) for part, values in trained.items()}
        forms.append((Form("lora", (OUT, IN), parts, lambda w: w, RANK), Target(name)))
    return form_layer(forms, name="dora.safetensors")


def found(layer, *fused, values=None) -> Nearest | None:
    return nearest(a_plan(values or base_weights()).base, layer, fused)


@pytest.mark.parametrize("axis", [2, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("on_top", [False, True])
def test_light_training_tells_what_was_below(on_top, dtype, axis):
    lightning = accelerator(0.2)
    near = found(dora(below(*[lightning] * on_top), axis=axis, dtype=dtype), lightning)
    assert near.clear
    assert near.choice == ((0,) if on_top else ())
    assert (near.agree, near.modules) == (MODULES, MODULES)
    assert near.moved < 0.005 < near.apart


@pytest.mark.parametrize("axis", [2, 1])
@pytest.mark.parametrize("on_top", [False, True])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_heavy_training_says_nothing(share, on_top, axis):
    lightning = accelerator(share)
    assert not found(dora(below(*[lightning] * on_top), HEAVY, axis), lightning).clear


@pytest.mark.parametrize("steps", [10, 30, 100, 200])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.3])
def test_it_is_silent_rather_than_wrong(share, steps):
    lightning = accelerator(share, seed=7)
    for on_top in (False, True):
        near = found(dora(below(*[lightning] * on_top), (steps, 3e-4)), lightning)
        assert not near.clear or near.choice == ((0,) if on_top else ())


def test_a_weak_lora_leaves_no_mark_to_measure():
    lightning = accelerator(0.005)
    assert not found(dora(below(lightning)), lightning).clear


def test_of_two_fused_loras_any_one_or_both_are_told_apart():
    first, second = accelerator(0.2), accelerator(0.2, 2, "turbo.safetensors")
    for choice, layers in {(): (), (0,): (first,), (1,): (second,), (0, 1): (first, second)}.items():
        near = found(dora(below(*layers)), first, second)
        assert near.clear
        assert near.choice == choice


def test_the_strength_it_is_fused_with_counts():
    lightning = accelerator(0.2)
    near = found(dora(below(lightning)), accelerator(0.2, strength=3.0))
    assert not near.clear or near.choice != (0,)


def test_another_lora_of_the_same_size_is_not_taken_for_the_fused_one():
    near = found(dora(below(accelerator(0.2, 3))), accelerator(0.2))
    assert not near.clear


def test_growth_that_all_rows_have_in_common_says_nothing():
    """Weight decay or a rate of its own for m: m is then nearer to the larger norms of a fused base."""
    weights = base_weights()
    grown = dora({name: 1.02 * weight for name, weight in weights.items()})
    near = found(grown, accelerator(0.2))
    assert near.choice == ()
    assert near.moved < 0.005


def test_weights_of_another_model_are_nearest_to_nothing():
    random = torch.Generator().manual_seed(9)
    other = {name: torch.randn(OUT, IN, generator=random) * 0.1 for name in NAMES}
    assert not found(dora(other), accelerator(0.2)).clear


def test_few_modules_are_no_verdict():
    weights = dict(list(base_weights().items())[:7])
    near = found(dora(weights), accelerator(0.2))
    assert near.modules == 7
    assert near.margin > 0.5
    assert not near.clear


def test_nothing_to_compare_is_none():
    plain = accelerator(0.2, 5, "style.safetensors")
    assert not has_magnitudes(plain)
    assert found(plain, accelerator(0.2)) is None
    trained = dora(base_weights())
    assert has_magnitudes(trained)
    assert found(trained) is None
    assert found(trained, accelerator(0.2, strength=0.0)) is None
    elsewhere = a_layer([], name="elsewhere.safetensors", stage=FUSE)
    assert found(trained, elsewhere) is None


def test_magnitudes_that_are_no_lengths_are_left_out():
    layer = dora(base_weights())
    stored = f"{NAMES[0].removesuffix('.weight')}.0.{STORED['magnitude']}"
    layer.factors.values[stored] = -layer.factors.values[stored]
    assert found(layer, accelerator(0.2)).modules == MODULES - 1


def test_at_most_twenty_weights_of_the_base_are_read():
    names = [f"blocks.{number}.q.weight" for number in range(50)]
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    size = weight.norm(dim=1, keepdim=True)
    parts = {"up": torch.zeros(8, 1), "down": torch.ones(1, 8)}
    on_top = [(Form("lora", (8, 8), {**parts, "magnitude": size}, lambda w: w), Target(name)) for name in names]
    fused = [(Form("lora", (8, 8), {**parts, "up": torch.eye(8)[:, :1]}, lambda w: w), Target(n)) for n in names]
    told: list[tuple[int, int]] = []
    plan = a_plan(dict.fromkeys(names, weight))
    near = nearest(plan.base, form_layer(on_top), [form_layer(fused, stage=FUSE)], lambda *step: told.append(step))
    assert near.clear
    assert near.modules == len(set(plan.base.source.reads)) == len(plan.base.source.reads) == 20
    assert told == [(number, 20) for number in range(20)]


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_lengths_are_those_of_float64(kernel):
    weight = torch.randn(24, 16, *kernel, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    exact = weight.double()
    others = tuple(range(1, weight.ndim))
    torch.testing.assert_close(lengths(weight), exact.square().sum(others).sqrt(), rtol=1e-6, atol=0)
    columns = exact.square().sum((0, *others[1:])).sqrt()
    torch.testing.assert_close(lengths(weight, 16), columns, rtol=1e-6, atol=0)


def test_the_distance_is_the_rms_of_what_differs_from_row_to_row():
    norms = torch.full((4,), 2.0, dtype=torch.float64)
    assert distance(norms * 1.5, norms) == pytest.approx(0, abs=1e-12)
    assert distance(norms * torch.tensor([0.99, 1.01, 0.99, 1.01]), norms) == pytest.approx(0.01, rel=1e-3)


def test_a_verdict_is_clear_near_and_of_most_modules():
    sure = Nearest((), 0.6, 16, 20, 0.019, 0.05)
    assert sure.clear
    for lacking in ({"margin": 0.49}, {"agree": 15}, {"moved": 0.021}, {"agree": 7, "modules": 7}):
        assert not replace(sure, **lacking).clear, lacking


def test_the_quote_has_the_numbers():
    near = Nearest((0,), 0.871, 11, 12, 0.0019, 0.0154)
    assert quote(near) == "in 11 of 12 modules nearest; 0.19% away, the next 1.54% (margin 0.87)"


def test_a_slice_of_a_weight_is_not_looked_at():
    layer = dora(base_weights())
    cut = [replace(patch, target=replace(patch.target, slice=(0, 0, OUT))) for patch in layer.patches]
    assert found(replace(layer, patches=tuple(cut)), accelerator(0.2)) is None
