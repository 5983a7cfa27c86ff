"""The Triton kernels are left wherever they are not right; themselves they are in test_device_kernels.py."""

from __future__ import annotations

import pytest
import torch
from disk_fakes import File, on_disk
from fakes import a_layer, a_plan, noise, random_delta, same_all
from lora_foundry.engine import gemm, kernels
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from pretended_cuda import CUDA


def test_the_setting_switches_them_off_and_without_triton_torch_does_it(forget, monkeypatch):
    monkeypatch.setenv(kernels.SETTING, "0")
    assert kernels.why_not(CUDA) == "LORA_FOUNDRY_TRITON is 0"
    kernels.why_not.cache_clear()
    monkeypatch.delenv(kernels.SETTING)
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert kernels.why_not(CUDA) == "Triton is not installed"


def baked(format):
    shape, sink = (80, 256), File()
    names = [f"blocks.{number}.l.weight" for number in range(2)]
    values = {name: noise(shape, 0.02, seed) for seed, name in enumerate(names)}
    plan = on_disk(a_plan(values, a_layer([random_delta(name, shape, 4, 0.002, 7) for name in names])))
    return sink.values, bake(plan, Finish(format, keep=()), sink, device=CUDA)


@pytest.mark.parametrize("kernel", ["", "raises", "amax", "codes", "measure"], indirect=True)
@pytest.mark.parametrize("format", ["float8_e4m3fn", "int8_convrot", "none"])
def test_kernels_that_are_wrong_on_a_device_are_left_and_the_bake_is_right(format, kernel, machine, monkeypatch):
    used = not kernel.wrong
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    got, report = baked(format)
    assert (report.arithmetic == "fp32 with Triton on Pretended") == used
    assert bool(kernels.why_not(CUDA)) != used
    tried = kernel.calls
    assert tried
    baked(format)
    assert (kernel.calls > tried) == used, "a failed check is not repeated"
    monkeypatch.setenv(kernels.SETTING, "0")
    forget_all()
    wanted = baked(format)[0]
    differ = [float((got[name] != each).float().mean()) for name, each in wanted.items() if each.dtype == torch.int8]
    assert same_all(got, wanted) if format != "int8_convrot" or not used else max(differ) < 1e-3


def forget_all():
    for known in (kernels.why_not, kernels.why_no_rotation):
        known.cache_clear()


@pytest.mark.parametrize("kernel", ["rotation"], indirect=True)
def test_a_rotation_that_is_wrong_is_left_and_all_else_is_not(kernel, machine, monkeypatch):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    got, report = baked("int8_convrot")
    assert report.arithmetic == "fp32 with Triton but for rotations on Pretended"
    tried = kernel.calls
    baked("int8_convrot")
    assert kernel.calls == tried
    baked("float8_e4m3fn")
    assert kernel.calls > tried
    monkeypatch.setenv(kernels.SETTING, "0")
    forget_all()
    assert same_all(got, baked("int8_convrot")[0])


@pytest.mark.parametrize("kernel", [""], indirect=True)
def test_they_are_tried_on_the_device_they_are_asked_about_not_on_the_current_one(kernel, machine, monkeypatch):
    """Triton launches on the current device: on another one it would write where nobody said."""
    current = []

    class Entered:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            current.append(self.device)

        def __exit__(self, *_):
            current.pop()

    plain = kernel.write_codes

    def seen(*given):
        kernel.devices.append(list(current))
        return plain(*given)

    monkeypatch.setattr(torch.cuda, "device", Entered)
    monkeypatch.setattr(kernel, "write_codes", seen)
    assert kernels.why_not(CUDA) == ""
    assert kernel.devices and all(devices == [CUDA] for devices in kernel.devices)


@pytest.mark.parametrize("kernel", [""], indirect=True)
def test_they_are_not_tried_on_gpus_that_triton_does_not_know(kernel, machine, monkeypatch):
    """Its compiler ends the process there."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert "7.5" in kernels.why_not(CUDA)
    assert kernel.calls == 0


@pytest.mark.parametrize("kernel", [""], indirect=True)
def test_a_variant_that_does_not_compile_is_left_to_torch_and_the_others_are_not(kernel, machine, monkeypatch):
    """What a launch needs is compiled when it comes, long after the check of the device."""
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    wanted, plain, tried = baked("float8_e4m3fn")[0], kernel.measures, []

    def failing(sums, out, *given):
        tried.append(out.dtype)
        if out.dtype == torch.float8_e4m3fn:
            raise ZeroDivisionError("no such instruction")
        return plain(sums, out, *given)

    monkeypatch.setattr(kernel, "measures", failing)
    got, report = baked("float8_e4m3fn")
    assert same_all(got, wanted)
    assert tried == [torch.float8_e4m3fn], "once for two weights"
    assert report.gains == pytest.approx([1.0], abs=0.1)
    baked("none")
    assert tried[1:] == [torch.bfloat16] * 2
