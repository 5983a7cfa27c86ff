"""The Triton kernels: their maths in Triton's interpreter on the CPU; they are left wherever they are not right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from disk_fakes import File, on_disk
from fakes import a_layer, a_plan, noise, random_delta, same_all
from lora_foundry.engine import gemm, kernels
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from pretended_cuda import CUDA
from sources import ROOT

SCRIPT = """
import json, runpy
runpy.run_path({conftest!r})
import torch
from lora_foundry.engine import kernels, triton_kernels

def steps(x, dtype):  # the distance of neighbouring codes around each number, in fp64
    info = torch.finfo(dtype)
    power = 2.0 ** torch.floor(torch.log2(x.abs().clamp(min=info.tiny)))
    return power * info.eps

torch.manual_seed(1)
weight = (torch.randn(96, 80) * torch.logspace(-6, 0, 80)).to(torch.bfloat16)
up, down = torch.randn(96, 24) * 1e-4, torch.randn(24, 80)
exact = weight.double() + up.double() @ down.double()
told = {{"check": kernels.why_not(torch.device("cpu")), "off": {{}}}}
amax = triton_kernels.sum_amax(weight, up, down)
told["amax"] = abs(float(amax) / float(exact.abs().max()) - 1)
for dtype in triton_kernels.CODES:
    factor = torch.finfo(dtype).max / amax if dtype.itemsize == 1 else torch.ones(())
    out = torch.empty(weight.shape, dtype=dtype)
    triton_kernels.sum_codes(weight, up, down, factor, out)
    wanted = exact * factor.double()
    told["off"][str(dtype)] = float(((out.double() - wanted).abs() / steps(wanted, dtype)).max())
weight[3, 5] = float("nan")
told["nan"] = float(triton_kernels.sum_amax(weight, up, down))
print(json.dumps(told))
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton: pip install triton")
def test_the_kernels_round_the_exact_sum_to_the_nearest():
    """Against float64, in a process of its own: the interpreter is chosen when Triton is imported."""
    script = SCRIPT.format(conftest=str(ROOT / "tests" / "conftest.py"))
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["check"] == ""
    assert told["amax"] < 1e-6
    assert told["nan"] == float("inf")
    assert all(off <= 0.5001 for off in told["off"].values()), told


@pytest.fixture
def forget():
    """What is known of devices is not of this test."""
    kernels.why_not.cache_clear()
    yield
    kernels.why_not.cache_clear()


def test_the_setting_switches_them_off_and_without_triton_torch_does_it(forget, monkeypatch):
    monkeypatch.setenv(kernels.SETTING, "0")
    assert kernels.why_not(CUDA) == "LORA_FOUNDRY_TRITON is 0"
    kernels.why_not.cache_clear()
    monkeypatch.delenv(kernels.SETTING)
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert kernels.why_not(CUDA) == "Triton is not installed"


class Plain:
    """What the kernels do, by torch; ``wrong``: the way they fail."""

    CODES = {torch.float8_e4m3fn: (3, 7, torch.int8), torch.bfloat16: (7, 127, torch.int16)}
    FAULTS = (ZeroDivisionError,)

    def __init__(self, wrong: str = "") -> None:
        self.wrong, self.calls = wrong, 0

    def sum_amax(self, weight, up, down):
        self.calls += 1
        if self.wrong == "raises":
            raise ZeroDivisionError
        return torch.addmm(weight.float(), up, down).abs().amax() * (2 if self.wrong == "amax" else 1)

    def sum_codes(self, weight, up, down, factor, out):
        self.calls += 1
        exact = torch.addmm(weight.float(), up, down).mul_(factor)
        out.copy_(exact * 1.01 if self.wrong == "codes" else exact)


@pytest.fixture
def kernel(request, forget, monkeypatch):
    made = Plain(request.param)
    monkeypatch.setitem(sys.modules, "lora_foundry.engine.triton_kernels", made)
    monkeypatch.setattr(sys.modules["lora_foundry.engine"], "triton_kernels", made, raising=False)
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    return made


def baked(format):
    shape, sink = (80, 128), File()
    names = [f"blocks.{number}.l.weight" for number in range(2)]
    values = {name: noise(shape, 0.02, seed) for seed, name in enumerate(names)}
    plan = on_disk(a_plan(values, a_layer([random_delta(name, shape, 4, 0.002, 7) for name in names])))
    return sink.values, bake(plan, Finish(format, keep=()), sink, device=CUDA)


@pytest.mark.parametrize("kernel", ["", "raises", "amax", "codes"], indirect=True)
@pytest.mark.parametrize("format", ["float8_e4m3fn", "none"])
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
    kernels.why_not.cache_clear()
    assert same_all(got, baked(format)[0])
