"""The conflict view: cosines, signs, energies and the advice, against whole deltas, and against LF402."""

from __future__ import annotations

import math

import pytest
import torch
from lora_foundry.engine.merge.conflicts import conflicts
from lora_foundry.engine.merge.deltas import full_delta
from lora_foundry.validator.overlap import overlap
from merge_parts import an_input, dense, low_rank, random_triple
from overlap_parts import NAMES, factors, lora

BLOCKS = {"q": "0", "k": "0", "v": "1"}


def three(weights=(1.0, 0.8, -0.5)):
    made = []
    for number, weight in enumerate(weights):
        deltas = {name: low_rank(random_triple(64, 48, 4, seed + 7 * number)) for seed, name in enumerate(BLOCKS)}
        made.append(an_input(f"lora {number}", weight, deltas))
    shared = made[0].read("q").products[0]
    first = low_rank((shared.up, shared.down, 0.7), *((p.up, p.down, p.scale) for p in made[1].read("q").products))
    made[1] = an_input("lora 1", weights[1], {"q": first, "k": made[1].read("k")})
    return made


def whole(each, module):
    return each.strength(module) * dense(each.read(module)).flatten() if module in each.modules else None


def test_every_figure_is_that_of_whole_deltas():
    inputs = three()
    found = conflicts(inputs, BLOCKS.get)
    rows = [
        torch.cat([d if (d := whole(each, m)) is not None else torch.zeros(64 * 48) for m in BLOCKS]) for each in inputs
    ]
    gram = torch.stack(rows) @ torch.stack(rows).T
    size = gram.diagonal().sqrt()
    assert torch.allclose(found.total.cosine, gram / (size[:, None] * size), atol=1e-6)
    assert torch.allclose(found.total.energies, gram.diagonal(), rtol=1e-6)
    assert found.total.stack == pytest.approx(float(gram.sum()), rel=1e-6)
    assert list(found.groups) == ["0", "1"] and found.groups["1"].energies[1] == 0
    assert found.total.cosine[0, 1] > 0.25 and found.total.clash[0, 1] < 0.5


def test_signs_of_unrelated_loras_clash_by_chance():
    found = conflicts(three()).total
    assert abs(float(found.excess[0, 2])) < 0.05 and abs(float(found.clash[0, 2]) - 0.5) < 0.05
    assert torch.equal(found.clash, found.clash.T) and torch.equal(found.cosine, found.cosine.T)
    assert found.clash.diagonal().tolist() == [0.0] * 3 and found.excess.diagonal().abs().max() < 1e-3


def test_a_negative_weight_turns_the_signs():
    one, other = conflicts(three()).total, conflicts(three((1.0, -0.8, -0.5))).total
    assert other.cosine[0, 1] == pytest.approx(-float(one.cosine[0, 1]))
    assert other.clash[0, 1] == pytest.approx(1 - float(one.clash[0, 1]))


def test_the_figures_are_those_of_lf402():
    pairs = [factors(seed, 8) for seed in (1, 2)]
    pairs[1] = [
        (torch.cat([u, -0.4 * v], 1), torch.cat([d, e])) for (u, d), (v, e) in zip(pairs[1], pairs[0], strict=True)
    ]
    layers = [lora(pair, torch.float32, name) for pair, name in zip(pairs, "ab", strict=True)]
    want = overlap(*layers).total
    inputs = [
        an_input(name, 1.0, {weight: low_rank((*pair, 1.0)) for weight, pair in zip(NAMES, each, strict=True)})
        for name, each in zip("ab", pairs, strict=True)
    ]
    found = conflicts(inputs).total
    assert float(found.cosine[0, 1]) == pytest.approx(want.cosine, rel=1e-6) and want.cosine < -0.1
    assert (float(found.clashes[0, 1]), float(found.sampled[0, 1])) == (want.clashes, want.sampled)


def test_the_advice_brings_the_stack_to_its_strongest():
    inputs = three((1.0, 0.8, 0.5))
    found = conflicts(inputs)
    assert found.loudness > 1 and found.advice[1] / found.advice[0] == pytest.approx(0.8)
    again = conflicts(
        [an_input(e.name, w, {m: e.read(m) for m in e.modules}) for e, w in zip(inputs, found.advice, strict=True)]
    )
    assert math.sqrt(again.total.stack) == pytest.approx(math.sqrt(float(found.total.energies.max())))


def test_loras_that_weaken_each_other_are_not_lowered():
    one = low_rank(random_triple(64, 48, 4, 0))
    found = conflicts([an_input("a", 1.0, {"q": one}), an_input("b", -0.9, {"q": one})])
    assert found.loudness < 1 and found.advice == (1.0, -0.9)


def test_as_json():
    told = conflicts(three(), BLOCKS.get).to_json()
    assert told["loras"][2] == {"name": "lora 2", "weight": -0.5} and told["left_out"] == 0
    assert sum(each["stack"] for each in told["blocks"]) == pytest.approx(1)
    assert [each["block"] for each in told["blocks"]] == ["0", "1"]
    assert all(len(told[table]) == 3 == len(told[table][0]) for table in ("cosine", "clash", "excess"))


def test_modules_of_one_lora_full_parts_and_a_set_norm():
    full, up = torch.randn(64, 48), random_triple(64, 48, 4, 0)
    from dataclasses import replace

    sets = replace(full_delta((8,), torch.ones(8, 1)), dense=(), replaces=torch.ones(8, 1))
    a = an_input("a", 1.0, {"q": full_delta((64, 48), full), "norm": sets})
    found = conflicts([a, an_input("b", 1.0, {"q": low_rank(up)})])
    want = float((full.double() * dense(low_rank(up))).sum() / full.double().norm() / dense(low_rank(up)).norm())
    assert float(found.total.cosine[0, 1]) == pytest.approx(want, abs=1e-6) and found.left_out == 1


def test_one_lora_and_progress():
    steps = []
    found = conflicts(three()[:1], on_step=lambda *step: steps.append(step))
    assert steps == [(0, 3), (1, 3), (2, 3)] and found.total.cosine.tolist() == [[1.0]] and found.loudness == 1.0
