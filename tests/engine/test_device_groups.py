"""Small weights of one shape come, and are made, together; what comes out is what comes of each by itself."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from disk_fakes import File, OnDisk
from fakes import a_layer, a_plan, noise, random_delta, same_all
from lora_foundry.engine import bake as bake_module
from lora_foundry.engine import gemm, kernels, streams
from lora_foundry.engine.bake import bake, bake_all
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.job import BakeRequest
from lora_foundry.engine.memory import AUTO, LOW
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING
from pretended_cuda import CUDA

SMALL, OTHER, LARGE = (64, 256), (32, 256), (1024, 256)
BIG = "blocks.0.mlp.weight"
NAMES = [f"blocks.{number}.{part}.weight" for number in range(4) for part in "qkv"]


class Filled(OnDisk):
    """A source whose reader can also put bytes where they are wanted, as that of a file can."""

    @contextmanager
    def reader(self, mmap=None):
        def fill(name, at, buffer):
            buffer.copy_(self.values[name].reshape(-1).view(torch.uint8)[at : at + len(buffer)])

        with super().reader(mmap) as reader:
            reader.fill = fill
            yield reader


def plan(kind=Filled, **changed):
    values = {BIG: noise(LARGE, 0.02, 99)}
    for seed, name in enumerate(NAMES):
        values |= {name: noise(SMALL, 0.02, seed), name.replace("weight", "bias"): noise((64,), 0.1, seed)}
    values |= {f"blocks.{number}.o.weight": noise(OTHER, 0.02, 50 + number) for number in range(2)}
    shapes = {name: tuple(value.shape) for name, value in values.items() if value.ndim > 1}
    one = [random_delta(name, shape, 4, 0.002, 7 + i) for i, (name, shape) in enumerate(shapes.items())]
    two = [random_delta(name, shapes[name], 8, 0.001, 70 + i) for i, name in enumerate(NAMES) if i != 5]
    made = a_plan(values, a_layer(one, 0.7, name="a"), a_layer(two, **{"strength": -0.4, **changed}, name="b"))
    return replace(made, base=replace(made.base, source=kind(values)))


def seen_groups(monkeypatch):
    found, plain = [], bake_module.grouped

    def seen(*given):
        found.append(plain(*given))
        return found[-1]

    monkeypatch.setattr(bake_module, "grouped", seen)
    return found


def sizes(groups):
    return {first: len(group) for first, group in groups.items()}


@pytest.mark.parametrize("format", ["float8_e4m3fn", "int8_convrot", "none"])
def test_a_group_is_made_in_one_go_and_every_result_is_its_own(format, kernel, machine, monkeypatch):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    monkeypatch.setattr(streams, "CHUNK", 5000)
    finish, together, apart, here = Finish(format, keep=()), File(), File(), File()
    wanted = bake(plan(), finish, here)
    found = seen_groups(monkeypatch)
    assert kernels.why_not(CUDA) == kernels.why_no_rotation(CUDA) == ""
    kernel.calls = 0
    report = bake(plan(), finish, together, device=CUDA)
    calls = kernel.calls
    assert sizes(found[0]) == {NAMES[0]: 11, "blocks.0.o.weight": 2}, "the sixth has one LoRA alone"
    monkeypatch.setattr(bake_module, "grouped", lambda *given: {})
    alone = bake(plan(), finish, apart, device=CUDA)
    differing = [n for n, v in apart.values.items() if not torch.equal(v.float(), together.values[n].float())]
    assert not differing
    assert same_all(together.values, apart.values) and list(together.values) == list(here.values)
    assert report.measures == alone.measures
    assert report.gains == pytest.approx(wanted.gains) and report.layers == pytest.approx(wanted.layers, rel=1e-3)
    assert (calls, kernel.calls - calls) == ((3 * 4, 3 * 15) if format != "none" else (2 * 4, 2 * 15))


def test_only_what_is_alike_goes_together(kernel, machine, monkeypatch):
    found = seen_groups(monkeypatch)
    finish = Finish("float8_e4m3fn", keep=())
    bake(plan(stage=FUSE, rounding=MATCH_TRAINING), finish, File(), device=CUDA)
    assert sizes(found[0]) == {"blocks.0.o.weight": 2}
    bake(plan(), Finish("mxfp8", keep=()), File(), device=CUDA)
    assert found[1] == {}
    bake(plan(OnDisk), finish, File(), device=CUDA)
    assert found[2] == {}, "what such a reader gave is gone when two more are read"
    bake(plan(), finish, File(), device=CUDA, memory=LOW)
    made = blueprint(plan(), finish)
    bake_all([BakeRequest(made, File()), BakeRequest(made, File())], device=CUDA, memory=AUTO)
    assert len(found) == 3, "results that share the reading are made weight by weight"


def test_without_room_for_a_group_its_weights_are_made_on_the_cpu(kernel, machine, monkeypatch):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    finish, wanted, sink = Finish("float8_e4m3fn", keep=()), File(), File()
    bake(plan(), finish, wanted)
    plain = torch.empty

    def refusing(*given, **more):
        if given and given[0] == (11, *SMALL):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(*given, **more)

    bake(plan(), finish, File(), device=CUDA)
    monkeypatch.setattr(torch, "empty", refusing)
    report = bake(plan(), finish, sink, device=CUDA)
    assert "11 weights in fp32 on the CPU" in report.arithmetic
    assert list(sink.values) == list(wanted.values)
    same = [torch.equal(sink.values[name].float(), value.float()) for name, value in wanted.values.items()]
    assert sum(same) > len(same) - 3
