"""The quantization formats: bytes, weight error, CPU time of one thread beside comfy-kitchen's; memory of a whole bake.

python benchmarks/formats.py                    a weight of 1024 x 3072 in every format, about two minutes
python benchmarks/formats.py --file 0.5 3       bf16 files of so many GB with four LoRAs: time and peak RSS of each bake

Times are CPU seconds per 10^9 weights, the best of five rounds: quantized to the nearest (nvfp4 once more with scales
by amax alone), by comfy-kitchen where it is installed (the library that ComfyUI quantizes with), and what rounding by
known inputs takes on top, on a weight of 3072 x 3072.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from common import best_of, cpu_ms
from files import LORAS, RANK, make_files, ours
from lora_foundry.cli.demo.formats import gram_of, made_up_inputs
from lora_foundry.engine.codes import Format
from lora_foundry.engine.feedback import Feedback
from lora_foundry.engine.formats import FORMATS, quantize
from lora_foundry.engine.gemm import Workspace
from lora_foundry.engine.memory import peak_rss_bytes

SHAPE, SQUARE = (1024, 3072), (3072, 3072)  # codes of 3 MB: a bake, too, makes room for no more at once
AMAX = "nvfp4, scales by amax"
NVFP4 = FORMATS["nvfp4"]
ROWS: dict[str, Format] = {**FORMATS, AMAX: replace(NVFP4, searched=range(1))}  # type: ignore[call-arg]
# comfy-kitchen's class of a format, and what it is told.
LIBRARY: dict[str, tuple[str, dict[str, Any]]] = {
    "float8_e4m3fn": ("TensorCoreFP8Layout", {}),
    "float8_e5m2": ("TensorCoreFP8Layout", {"dtype": torch.float8_e5m2}),
    "int8_convrot": ("TensorWiseINT8Layout", {"per_channel": True, "convrot": True}),
    "mxfp8": ("TensorCoreMXFP8Layout", {}),
    AMAX: ("TensorCoreNVFP4Layout", {}),
    "w4a8": ("AsymW4A8Int8Layout", {}),
    "w6a8": ("AsymW4A8Int8Layout", {"bits": 6}),
}
BAKED = ("import", "float8_e4m3fn", "nvfp4", "w4a8")  # each in a process of its own


def gauss(shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    """N(0, 0.02)"""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02


def heavy(shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    """Student's t of 4 degrees, by its definition, with rows and columns of different size."""
    generator = torch.Generator().manual_seed(1)
    squares = sum(torch.randn(shape, generator=generator).square() for _ in range(4))
    rows, columns = (torch.randn(size, generator=generator) for size in ((shape[0], 1), (1, shape[1])))
    numbers = torch.randn(shape, generator=generator) * 0.02 / (squares / 4).sqrt()  # type: ignore[union-attr]
    return numbers * torch.exp(0.3 * rows + 0.5 * columns)


def error_of(weight: torch.Tensor, format: Format) -> tuple[float, float]:
    """(relative error, bytes of one weight with its share of the scales)."""
    codes, scale = quantize(weight, format)
    off = format.decode(codes, scale).double() - weight.double()
    nbytes = codes.nbytes + sum(each.nbytes for each in format.stored_scales(scale))
    return float(off.norm() / weight.double().norm()), nbytes / weight.numel()


def library(name: str, weight: torch.Tensor) -> Callable[[], object] | None:
    """A job that lets comfy-kitchen quantize; None where it is not installed, or does not know the format."""
    if name not in LIBRARY or find_spec("comfy_kitchen") is None:
        return None
    kind, told = LIBRARY[name]
    make = getattr(importlib.import_module("comfy_kitchen.tensor"), kind).quantize
    if not told.keys() <= inspect.signature(make).parameters.keys():  # of an older one
        return None
    return lambda: make(weight, **told)


def by_inputs(name: str) -> tuple[float, float]:
    """CPU seconds of rounding one SQUARE weight by its inputs per 10^9 weights, and of a block of 1024 columns."""
    format, weight = ROWS[name], gauss(SQUARE)
    gram = gram_of(made_up_inputs(SQUARE[1])[0])
    prepared = format.prepare(weight.clone())
    scale = format.scales(prepared, None if format.row_scaled else prepared.abs().amax())
    made, space, block = Feedback(gram, format), Workspace(), torch.empty_like(prepared)
    rounded, factored = cpu_ms(
        lambda: made.adjust(block.copy_(prepared), scale, space), lambda: Feedback(gram, format), rounds=3
    )
    return rounded / weight.numel() * 1e6, factored / 1e3 / (SQUARE[1] / 1024)


def times() -> None:
    """One row a format."""
    torch.set_num_threads(1)
    weight, other, blocks = gauss(), heavy(), list[float]()
    kitchen = f"comfy-kitchen {version('comfy-kitchen')}" if find_spec("comfy_kitchen") else "no comfy-kitchen"
    print(f"torch {torch.__version__}, one thread, {kitchen}, load {os.getloadavg()[0]:.1f}")
    print("| format | bytes | error, Gaussian | heavy | CPU s | comfy-kitchen | times as fast | by inputs |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, format in ROWS.items():
        (error, nbytes), (spread, _) = error_of(weight, format), error_of(other, format)
        theirs = library(name, weight)

        def mine(format: Format = format) -> object:
            return quantize(weight, format)

        took = [each / weight.numel() * 1e6 for each in cpu_ms(mine, *([theirs] if theirs else []))]
        beside = f"{took[1]:.1f} | {took[1] / took[0]:.1f}" if theirs else "- | -"
        rounded, block = by_inputs(name)
        blocks.append(block)
        print(
            f"| {name} | {nbytes:.4f} | {error:.2%} | {spread:.2%} | {took[0]:.1f} | {beside} | {rounded:.1f} |",
            flush=True,
        )
    print(f"1024 columns of X^T X made ready: {min(blocks):.3f} to {max(blocks):.3f} CPU s")


def baked(sizes: list[float]) -> None:
    """Peak memory and time of whole bakes from file to file."""
    print(f"{len(LORAS)} LoRAs of rank {RANK}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    print("| GB | format | peak RSS GB | wall s | CPU s |\n|--:|---|--:|--:|--:|")
    for gigabytes in sizes:
        with tempfile.TemporaryDirectory(prefix="lora_foundry_bench_") as name:
            make_files(Path(name), gigabytes)
            for mode, row in best_of(BAKED, Path(name), 1).items():
                print(
                    f"| {gigabytes:g} | {mode} | {row['rss']:.2f} | {row['wall']:.1f} | {row['cpu']:.1f} |", flush=True
                )


def run(mode: str, folder: Path) -> None:
    """One bake, in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    if mode in FORMATS:
        ours(folder, "bake", mode)
    numbers = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "rss": peak_rss_bytes() / 1e9}
    print(json.dumps(numbers))


if __name__ == "__main__":
    if "--mode" in sys.argv:
        run(sys.argv[-2], Path(sys.argv[-1]))
    elif "--file" in sys.argv:
        baked([float(each) for each in sys.argv[sys.argv.index("--file") + 1 :]] or [3.0])
    else:
        times()
