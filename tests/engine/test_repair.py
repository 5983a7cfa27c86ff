"""LoRAs in few bits: each is there in full, also where rounding to the nearest would take a part of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from disk_fakes import File, on_disk
from fakes import a_layer, a_plan, noise, random_delta, same_all
from lora_foundry.engine import gemm, repair
from lora_foundry.engine.bake import bake
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.formats import FORMATS
from lora_foundry.engine.gain import Measure
from lora_foundry.engine.gemm import Workspace
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING
from lora_foundry.engine.repair import ALIKE, FARTHEST, STEPS, Gains, arrived, driven
from lora_foundry.engine.report import bake_sentence
from lora_foundry.engine.terms import make_term
from pretended_cuda import CUDA

W = "blocks.0.self_attn.q.weight"
SHAPE = (1536, 1024)
every = pytest.mark.parametrize("name", FORMATS)


def gauss() -> torch.Tensor:
    return noise(SHAPE, 0.02, 1, torch.float32)


def near_zero() -> torch.Tensor:
    """A third of the numbers far below a quarter of a step of 4 bits."""
    weight = gauss()
    small = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2)) < 0.3
    return torch.where(small, weight * 0.02, weight)


def lora(rms: float = 0.0002, seed: int = 5, **more):
    return a_layer([random_delta(W, SHAPE, 16, rms, seed)], name=f"{seed}.safetensors", **more)


def kept(sink: File, name: str, weight: torch.Tensor, layer) -> float:
    """<stored - base, delta> / <delta, delta> of all numbers, in float64."""
    format = FORMATS[name]
    parts = [sink.values[W.removesuffix("weight") + part] for part, _, _ in format.beside(SHAPE)]
    stored = format.decode(sink.values[W], format.read_scales(parts, SHAPE)).double()
    found = dict(layer.patches[0].adapter.parts)
    up, down = (layer.factors.values[found[part]].double().flatten(1) for part in ("up", "down"))
    delta = up @ down
    return float(((stored - weight.double()) * delta).sum() / delta.square().sum())


@every
@pytest.mark.parametrize("make", [gauss, near_zero])
def test_a_lora_of_one_percent_arrives_in_every_format(name, make):
    weight, layer, sink = make(), lora(0.01 * float(make().square().mean().sqrt())), File()
    report = bake(on_disk(a_plan({W: weight}, layer)), Finish(name), sink)
    assert kept(sink, name, weight, layer) == pytest.approx(1.0, abs=0.03)
    assert not report.driven or FORMATS[name].coarse


def test_without_the_repair_the_bake_is_refused(monkeypatch):
    monkeypatch.setattr(repair, "ROUNDS", 0)
    with pytest.raises(FoundryError, match=r"LF203.*kept 7\d"):
        bake(on_disk(a_plan({W: near_zero()}, lora())), Finish("nvfp4"), File())


def test_the_report_says_how_far_loras_were_driven():
    report = bake(on_disk(a_plan({W: near_zero()}, lora())), Finish("nvfp4"), File())
    (factor,) = report.driven.values()
    assert factor > 1.1 and f"LoRAs driven by {factor:.2f} in 1 of them" in bake_sentence(report)
    assert report.to_json()["driven"] == {W: factor} and report.relative_error < 0.085
    assert Measure.from_json(report.measures[W].to_json()) == report.measures[W]
    assert "driven" not in Measure(1.0, 2.0).to_json()


@pytest.mark.parametrize("rounding", ["once", MATCH_TRAINING])
def test_every_memory_mode_and_device_drives_alike(rounding, machine, monkeypatch):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    weight = near_zero().to(torch.bfloat16)
    results = []
    for memory, device in ((AUTO, None), (LOW, None), (LOWEST, None), (AUTO, CUDA)):
        sink, fused = File(), lora(0.0003, 7, stage=FUSE, rounding=rounding)
        report = bake(on_disk(a_plan({W: weight}, fused, lora())), Finish("nvfp4"), sink, device=device, memory=memory)
        results.append((sink.values, report.driven))
    assert results[0][1] and all(each[1] == results[0][1] for each in results[1:])
    assert all(same_all(each[0], results[0][0]) for each in results[1:])


def pretend(lacking, numbers=(0, 1)):
    """(what ``arrived`` gives for codes that lack this of two LoRAs, the factors it tried)."""
    layer = lora()
    term, seen = make_term(layer, layer.patches[0]), []

    def attempt(terms, gains):
        seen.append([each.products[0].scale / term.products[0].scale for each in terms])
        gains.missing = lambda: list(lacking)[: len(numbers)]
        return len(seen)

    return arrived([term, term], numbers, Workspace(), attempt), seen


def test_at_most_two_rounds_and_the_last_one_counts():
    (_, found, factor), seen = pretend([0.5, 0.0])
    assert seen == [[1.0, 1.0], [1.5, 1.0], [2.0, 1.0]]
    assert (found, factor) == (3, 2.0)
    assert pretend([0.0, 0.0])[1] == [[1.0, 1.0]]
    (_, found, factor), seen = pretend([-0.25], [1])
    assert seen == [[1.0, 1.0], [1.0, 0.75], [1.0, 0.5]]
    assert (found, factor) == (3, 0.5)
    assert pretend([1e9, -1e9])[1] == [[1.0, 1.0], [1 + FARTHEST, 1 - FARTHEST]]
    layer = lora()
    term = make_term(layer, layer.patches[0])
    assert driven(term, 1.0) is term


def missing(error: torch.Tensor, *layers) -> list[float]:
    """What codes that are off by ``error`` lack."""
    base, terms = gauss(), [make_term(layer, layer.patches[0]) for layer in layers]
    gains = Gains(terms, Workspace())
    stored = sum((term.delta(slice(None), torch.float32) for term in terms), base + error)
    for rows in (slice(0, 1000), slice(1000, SHAPE[0])):
        gains.add(rows, base[rows], stored[rows])
    return gains.missing()


def test_what_is_missing_is_shared_by_loras_that_are_alike_and_known_both_ways():
    one, other = lora(), lora(seed=6)
    delta = make_term(one, one.patches[0]).delta(slice(None), torch.float32)
    off = pytest.approx
    assert missing(-0.25 * delta, one, other) == [off(0.25, abs=1 / STEPS), off(0.0, abs=1 / STEPS)]
    assert missing(0.25 * delta, one) == [off(-0.25, abs=1 / STEPS)]
    assert missing(-0.25 * delta, one, lora()) == [off(0.125, abs=1 / STEPS)] * 2
    assert missing(-0.015 * delta, one) == [0.0]
    assert missing(torch.full(SHAPE, float("inf")), one) == [0.0]
    assert 0 < ALIKE < 0.01


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", ["nvfp4", "w4a8"])
def test_loras_that_are_alike_arrive_as_one_of_their_sum_would(name, count):
    """Each of them lacks what all of them lack: made up for by every one it was too much, and the bake refused."""
    alike = [replace(lora(), lora=replace(lora().lora, name=f"{number}")) for number in range(count)]
    report = bake(on_disk(a_plan({W: near_zero()}, *alike)), Finish(name), File())
    assert report.gains == [pytest.approx(1.0, abs=0.15)] * count


@pytest.mark.cpu  # 120 small weights, each on its own: half a minute on a pretended GPU, and about chance
@pytest.mark.parametrize("name", ["nvfp4", "w4a8"])
def test_chance_makes_weak_loras_no_stronger(name):
    """One of 0.15 % on small weights is off by a third in each of them, up or down: in all it is not."""
    names = [f"blocks.{number}.self_attn.q.weight" for number in range(120)]
    weights = {each: noise((64, 256), 0.02, seed, torch.float32) for seed, each in enumerate(names)}
    weak = [random_delta(each, (64, 256), 4, 3e-5, 1000 + seed) for seed, each in enumerate(names)]
    report = bake(on_disk(a_plan(weights, a_layer(weak))), Finish(name), File())
    assert report.gains == [pytest.approx(1.0, abs=0.05)]
    assert len(report.driven) > 60


@pytest.mark.parametrize("name", ["nvfp4", "w4a8"])
@pytest.mark.parametrize("seed", range(4))
def test_numbers_too_large_to_tell_drive_nothing(name, seed):
    weight = noise((64, 256), 1.0, 1, torch.float32)
    weight[0] *= 1e30
    layer = a_layer([random_delta(W, (64, 256), 4, 1e9, seed)])
    assert bake(on_disk(a_plan({W: weight}, layer)), Finish(name, keep=()), File()).driven == {}
