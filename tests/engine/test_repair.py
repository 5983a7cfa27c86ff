"""LoRAs in few bits: each is there in full, also where rounding to the nearest would take a part of it."""

from __future__ import annotations

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
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING
from lora_foundry.engine.repair import driven, settled
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
    assert factor > 1.1 and f"LoRAs driven by up to {factor:.2f} in 1 of them" in bake_sentence(report)
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


def test_at_most_two_rounds_and_only_what_is_lost():
    layer = lora()
    term = make_term(layer, layer.patches[0])
    seen = []

    def attempt(terms):
        seen.append([each.products[0].scale / term.products[0].scale for each in terms])
        return [0.5, 0.99]

    assert settled([term, term], attempt) == [2.0, 1.0]
    assert seen == [[1.0, 1.0], [1.5, 1.0], [2.0, 1.0]]
    seen.clear()
    assert settled([term], lambda terms: [1.2]) == [1.0]
    assert driven(term, 1.0) is term
