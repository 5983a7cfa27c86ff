"""Where a bake's time on a GPU goes: waits of the host, the kernels that take longest, and other sizes of blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pack_here as pack_here  # first: it makes the rest importable
import torch
from common import Discard
from device_rows import Row
from lora_foundry.engine import kernels
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.plan import Plan
from torch.profiler import ProfilerActivity, profile

LONGEST = 8  # kernels that are told
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
BLOCKS = ((128, 64), (64, 128), (32, 64))  # rows and columns; those of the kernels are in the rows before


def profiled(device: torch.device, plan: Plan) -> Iterator[Row]:
    """One bake to fp8: the share of its time that the host waits for the device, then kernels, the longest first."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    begin = time.perf_counter()
    with profile(activities=activities) as seen:
        bake(plan, Finish("float8_e4m3fn", keep=()), Discard(), device=device)
    seconds = time.perf_counter() - begin
    averages = list(seen.key_averages())
    waited = {each.key: each.cpu_time_total / 1e6 for each in averages if each.key in WAITS}
    told = ", ".join(f"{name} {part / seconds:.0%}" for name, part in waited.items())
    yield Row("time in waits, all threads (the reader's and the writer's are meant to wait)", told or "none")
    on_device = [each for each in averages if "CUDA" in str(getattr(each, "device_type", ""))]
    for each in sorted(on_device, key=time_there, reverse=True)[:LONGEST]:
        name = each.key.replace("|", "/").replace("\n", " ")[:80]
        yield Row(f"on the device: {name}", time_there(each) / len(plan.base.source.tensors), "us a weight")


def time_there(average: object) -> float:
    """Microseconds of the device; releases of torch call them differently."""
    names = ("self_device_time_total", "self_cuda_time_total")
    return float(next((getattr(average, name) for name in names if hasattr(average, name)), 0.0))


def variants(device: torch.device, rate: Callable[[str], Row], blocks: bool) -> Iterator[Row]:
    """Where Triton is used: rates by torch alone, and with ``blocks`` of other sizes; ``rate`` says how."""
    if device.type != "cuda" or kernels.why_not(device):
        return
    with patch.object(kernels, "is_used", lambda device, format: False):
        yield rate("by torch alone")
    from lora_foundry.engine import triton_kernels

    for rows, columns in BLOCKS if blocks else ():
        with patch.multiple(triton_kernels, ROWS=rows, COLUMNS=columns):
            yield rate(f"in blocks of {rows} x {columns}")
