"""What a bake costs on a GPU, counted on a pretended one: waits of the host, launches, bytes over the bus, memory."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from disk_fakes import File, OnDisk, on_disk
from fakes import a_layer, a_plan, noise, random_delta, same_all
from lora_foundry.engine import gemm, streams
from lora_foundry.engine.bake import bake, bake_all
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.job import BakeRequest
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.engine.plan import Plan
from lora_foundry.engine.reuse import Previous
from lora_foundry.engine.tensors import Nowhere
from pretended_cuda import CUDA
from pretended_streams import BOARD

SHAPE = (528, 512)  # a sample of it is measured
FORMATS = ("none", "float8_e4m3fn", "int8_convrot")
WAYS = {"none": "bf16, torch", "float8_e4m3fn": "fp8, torch", "int8_convrot": "int8_convrot, torch"}


def plan(count: int, loras: int = 4) -> Plan:
    names = [f"blocks.{number}.l.weight" for number in range(count)]
    values = {name: noise(SHAPE, 0.02, seed) for seed, name in enumerate(names)}
    deltas = [random_delta(name, SHAPE, 8, 0.0002, seed) for seed, name in enumerate(names)]
    return on_disk(a_plan(values, *(a_layer(deltas, 0.5 + i, name=f"{i}") for i in range(loras))))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("memory", [AUTO, LOW, LOWEST])
def test_the_host_waits_once_a_bake_and_never_for_a_weight(format, memory, machine, ways):
    finish, launches = Finish(format, keep=()), []
    bake(plan(1), finish, File(), device=CUDA, memory=memory)  # what is made once a process
    for count in (2, 5):
        machine.launches.clear()
        machine.syncs.clear()
        BOARD.waits.clear()
        bake(plan(count), finish, File(), device=CUDA, memory=memory)
        launches.append(sum(machine.launches.values()))
        assert list(machine.syncs.values()) == [1], machine.syncs
        assert BOARD.waits["MainThread"] == 0
    assert (launches[1] - launches[0]) / 3 == ways[WAYS[format]].launches


@pytest.mark.parametrize("format", FORMATS)
def test_what_nothing_is_done_to_stays_on_the_host(format, machine):
    """Untouched tensors, and those taken over from an earlier result, go neither up nor down."""
    names = [f"blocks.{number}.l.weight" for number in range(4)]
    values = {name: noise(SHAPE, 0.02, seed) for seed, name in enumerate(names)} | {"norm": noise((3000,), 1.0, 1)}
    one, other = ([random_delta(name, SHAPE, 8, 0.0002, 5)] for name in names[:2])
    finish, sink = Finish(format, keep=("auto", names[3])), File()

    def made(strength: float) -> BakeRequest:
        wanted = on_disk(a_plan(values, a_layer(one, name="a"), a_layer(other, strength, name="b")))
        return BakeRequest(blueprint(wanted, finish), sink)

    first = made(1.0)
    (report,) = bake_all([first], device=CUDA)
    worked_on = sum(fate.is_measured for fate in first.blueprint.fates.values())
    before = Previous(first.blueprint.keys, report.measures_json(), OnDisk(sink.values), report.arithmetic)
    factors = (SHAPE[0] + SHAPE[1]) * 8 * 2
    assert (
        worked_on * 2 * math.prod(SHAPE) + 2 * factors
        <= machine.bytes["up"]
        <= worked_on * (2 * math.prod(SHAPE) + 512) + 2 * factors
    )
    machine.bytes.clear()
    again = replace(made(0.5), previous=before, sink=File())
    (report,) = bake_all([again], device=CUDA)
    assert report.reused == report.tensors - 1
    assert machine.bytes["up"] <= 2 * math.prod(SHAPE) + factors + 1024
    assert machine.bytes["down"] <= sum(entry.nbytes for entry in again.blueprint.fates[names[1]].entries) + 256


def test_a_pass_that_only_measures_brings_nothing_down(machine):
    wanted = blueprint(plan(4), Finish("float8_e4m3fn", keep=(), max_error=0.02))
    (report,) = bake_all([BakeRequest(wanted, Nowhere())], device=CUDA)
    assert report.relative_error > 0.02
    assert machine.bytes["down"] < 4 * 1024


def test_the_host_holds_little_of_a_weight_in_page_locked_memory(machine, monkeypatch):
    """Weights and results larger than a buffer go in pieces."""
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    monkeypatch.setattr(streams, "CHUNK", 64 << 10)
    here, there = File(), File()
    bake(plan(3), Finish("float8_e4m3fn", keep=()), here)
    for memory in (AUTO, LOWEST):
        machine.bytes.clear()
        there = File()
        bake(plan(3), Finish("float8_e4m3fn", keep=()), there, device=CUDA, memory=memory)
        assert same_all(there.values, here.values)
        assert machine.bytes["pinned"] <= 6 * (64 << 10)
