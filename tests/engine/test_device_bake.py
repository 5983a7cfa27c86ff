"""Bakes on a CUDA device, pretended: the numbers of the CPU's fp32, in every memory mode, however late copies are."""

from __future__ import annotations

import pytest
import torch
from disk_fakes import File, on_disk
from fakes import Cancelled, Collected, a_layer, a_plan, noise, random_delta, same_all
from lora_foundry.engine import gemm
from lora_foundry.engine.bake import bake
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING
from pretended_cuda import CUDA, threads_of

NAMES = [f"blocks.{i}.self_attn.q.weight" for i in range(5)]
FORMATS = ("none", "float8_e4m3fn", "float8_e5m2", "int8_convrot", "mxfp8", "nvfp4", "w4a8", "w6a8")
SHAPE = (64, 256)


def values():
    weights = {name: noise(SHAPE, 0.02, i) for i, name in enumerate(NAMES)}
    return {
        **weights,
        "head.head.weight": noise((16, 64), 0.02, 9),
        "norm.weight": torch.ones(64),
        "steps": torch.tensor(3),
    }


def lora(names, seed, strength=1.0, **more):
    deltas = [random_delta(name, SHAPE, 4, 0.002, seed + i) for i, name in enumerate(names)]
    return a_layer(deltas, strength, name=f"{seed}.safetensors", **more)


def plan(rounding="once"):
    return a_plan(values(), lora(NAMES[:3], 1, stage=FUSE, rounding=rounding), lora(NAMES[1:4], 40, 0.6), family="wan")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rounding", ["once", MATCH_TRAINING])
@pytest.mark.parametrize("memory", [AUTO, LOW, LOWEST])
def test_a_bake_on_the_device_is_that_of_the_cpu_in_fp32(format, rounding, memory, machine, monkeypatch):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    here, there = File(), File()
    wanted = bake(on_disk(plan(rounding)), Finish(format), here, memory=memory)
    report = bake(on_disk(plan(rounding)), Finish(format), there, device=CUDA, memory=memory)
    assert same_all(there.values, here.values)
    assert report.gains == pytest.approx(wanted.gains)
    assert report.layers == pytest.approx(wanted.layers)
    counted = ("tensors", "touched", "quantized", "bytes_read", "bytes_written")
    assert [getattr(report, each) for each in counted] == [getattr(wanted, each) for each in counted]
    assert machine.bytes["up"] and threads_of("lora-foundry") == []


def test_a_sink_that_keeps_what_it_gets_has_memory_of_its_own(machine, monkeypatch):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    here, there = Collected(), Collected()
    bake(plan(), Finish("float8_e4m3fn"), here)
    bake(plan(), Finish("float8_e4m3fn"), there, device=CUDA)
    assert same_all(there.values, here.values)
    assert not any(value.is_cuda for value in there.values.values())


def test_weights_in_page_locked_memory_are_copied_from_where_they_are(machine, monkeypatch):
    """As ComfyUI holds what is offloaded; the factors behind them come through a buffer, which leaves them alone."""
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    here, there, wanted = File(), File(), plan()
    bake(wanted, Finish("float8_e4m3fn"), here)
    held = wanted.base.source.values
    for name in NAMES[:4]:
        held[name] = torch.empty(SHAPE, dtype=held[name].dtype, pin_memory=True).copy_(held[name])
    bake(wanted, Finish("float8_e4m3fn"), there, device=CUDA)
    assert same_all(there.values, here.values)


@pytest.mark.parametrize("format", FORMATS)
def test_numbers_that_are_none_are_found_at_the_end_and_counted(format, machine):
    bad = values()
    bad[NAMES[2]][3, 5:8] = float("nan")
    with pytest.raises(FoundryError, match=rf"\[LF304\] .*{NAMES[2]}.* would hold \d+ NaN or Inf") as seen:
        bake(a_plan(bad, lora(NAMES[1:4], 40)), Finish(format, keep=()), File(), device=CUDA)
    with pytest.raises(FoundryError) as wanted:
        bake(a_plan(bad, lora(NAMES[1:4], 40)), Finish(format, keep=()), File())
    assert format == "int8_convrot" or str(seen.value) == str(wanted.value)
    assert threads_of("lora-foundry") == []


def test_a_change_that_the_samples_miss_is_one_and_none_is_refused(machine):
    large = {"blocks.0.l.weight": noise((4096, 128), 0.02, 1)}
    delta = random_delta("blocks.0.l.weight", (4096, 128), 4, 0.002, 1)
    delta.up[:4094] = delta.up[4095] = 0  # one row is left, which no sample looks at
    bake(a_plan(large, a_layer([delta])), Finish(), File(), device=CUDA)
    weak = delta.up[4094] * 1e-12
    for rows in (4094, slice(None)):
        delta.up.zero_()[rows] = weak  # no zeros, and nothing beside the weight
        with pytest.raises(FoundryError, match="LF203"):
            bake(a_plan(large, a_layer([delta])), Finish(), File(), device=CUDA)
    delta.up.zero_()
    bake(a_plan(large, a_layer([delta])), Finish(), File(), device=CUDA)


@pytest.mark.parametrize("fails", [False, True])
def test_a_bake_that_is_cancelled_or_fails_leaves_no_thread(fails, machine):
    def stop(done, total):
        if done == 3 and not fails:
            raise Cancelled

    class Full(File):
        def write(self, name, tensor):
            if fails and name == NAMES[1]:
                raise OSError("disk full")
            super().write(name, tensor)

    with pytest.raises(OSError if fails else Cancelled):
        bake(on_disk(plan()), Finish("float8_e4m3fn"), Full(), stop, CUDA)
    assert threads_of("lora-foundry") == []


@pytest.mark.parametrize("memory", [AUTO, LOWEST])
def test_a_bake_inside_inference_mode_as_nodes_are_run(memory, machine, monkeypatch):
    """Threads are not in the mode: what they fill must not have been made in it."""
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    here, there, kept = File(), File(), Collected()
    bake(on_disk(plan()), Finish("float8_e4m3fn"), here)
    with torch.inference_mode():
        bake(on_disk(plan()), Finish("float8_e4m3fn"), there, device=CUDA, memory=memory)
        bake(plan(), Finish("float8_e4m3fn"), kept, device=CUDA, memory=memory)
    assert same_all(there.values, here.values)
    assert same_all(kept.values, here.values)
