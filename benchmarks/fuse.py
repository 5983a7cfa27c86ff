"""Fusing LoRAs into one weight: this engine against ComfyUI's own path, CPU time, one process, one run.

python benchmarks/fuse.py [threads]     needs a ComfyUI (COMFYUI_PATH, or python tests/install.py host)

Ratios are ComfyUI's CPU time over ours: bf16 in, bf16 out, all LoRAs at one strength | the same at strengths that share
nothing | fuse and quantize to fp8 | a LoRA patched onto a scaled-fp8 weight against fusing and quantizing last.
Limits, in ms: ``copy`` is the bytes in and out over the bandwidth of memcpy, ``bf16`` and ``fp32`` the FLOPs of the sum
over the rate of a large matrix product, all measured in the run. ``wrong`` is the share of weights that are not the
float64 sum rounded once, at one strength and at many.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from common import WEIGHT, Discard, Keep, cpu_ms, enter_host, plan_of
from lora_foundry.engine.formats import DEFAULT

SHAPES = [(3072, 3072), (12288, 3072)]
COUNTS, RANKS = (1, 2, 4, 8), (16, 32, 64)
STRENGTH = 0.7
STRENGTHS = (0.7, 1.0, 0.85, 0.6, 0.35, 0.9, 0.55, 1.1)  # no two differ by a power of two
COPIES = 16  # weights in the plan, so that what a bake does once is shared as in a model
NAMES = ("bf16", "bf16, many strengths", "fuse + fp8", "LoRA on scaled fp8")
Factors = list[tuple[torch.Tensor, torch.Tensor, float]]


@dataclass(frozen=True)
class Rates:
    """What this machine can do in a millisecond: bytes copied, FLOPs of a bf16 and of an fp32 matrix product."""

    copy: float
    bf16: float
    fp32: float


def main() -> None:
    """Print one Markdown row a configuration, and the medians."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    enter_host()
    rates = machine_rates()
    print(f"copy {rates.copy / 1e6:.1f} GB/s, bf16 {rates.bf16 / 1e6:.0f} GFLOP/s, fp32 {rates.fp32 / 1e6:.0f} GFLOP/s")
    titles = ("weight", "LoRAs x rank", "ComfyUI ms", "ours ms", "copy", "bf16", "fp32", *NAMES, "wrong")
    print(f"| {' | '.join(titles)} |")
    print("|---|---|" + "--:|" * 10)
    rows = [row(shape, count, rank, rates) for shape in SHAPES for count in COUNTS for rank in RANKS]
    for name, column in zip(NAMES, zip(*rows, strict=True), strict=True):
        print(f"{name}: median {statistics.median(column):.1f}, least {min(column):.1f}, most {max(column):.1f}")


def machine_rates() -> Rates:
    """Measured on matrices of the size of a large layer."""
    size, inner = SHAPES[-1], 512
    up, down = torch.randn(size[0], inner), torch.randn(inner, size[1])
    source, out = torch.zeros(size, dtype=torch.bfloat16), torch.empty(size, dtype=torch.bfloat16)
    up16, down16, out32 = up.bfloat16(), down.bfloat16(), torch.empty(size)
    copy, bf16, fp32 = cpu_ms(
        lambda: out.copy_(source), lambda: torch.mm(up16, down16, out=out), lambda: torch.mm(up, down, out=out32)
    )
    flops = 2 * size[0] * size[1] * inner
    return Rates(4 * source.numel() / copy, flops / bf16, flops / fp32)


def row(shape: tuple[int, int], count: int, rank: int, rates: Rates) -> tuple[float, ...]:
    """Measure one configuration; the ratios of ``NAMES``."""
    from lora_foundry.engine.bake import bake
    from lora_foundry.engine.finish import Finish

    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(shape, generator=generator) * 0.02).bfloat16()
    same = random_factors(shape, count, rank, generator)
    many = [(up, down, strength) for (up, down, _), strength in zip(same, STRENGTHS, strict=False)]
    cast, quantize = Finish(), Finish("float8_e4m3fn", keep=())
    plan, varied = plan_of(weight, same, COPIES), plan_of(weight, many, COPIES)
    host, host_fp8, host_patch_fp8 = host_jobs(weight, same)
    times = cpu_ms(
        host,
        host_fp8,
        *(lambda plan=plan, finish=finish: bake(plan, finish, Discard())
          for plan, finish in ((plan, cast), (varied, cast), (plan, quantize))),
        rounds=2 if count * rank > 128 else 3,
    )  # fmt: skip
    (patched,) = cpu_ms(host_patch_fp8, rounds=1)
    ours, ours_many, ours_fp8 = (time / COPIES for time in times[2:])
    ratios = (times[0] / ours, times[0] / ours_many, times[1] / ours_fp8, patched / ours_fp8)
    flops = 2 * weight.numel() * count * rank
    limits = (4 * weight.numel() / rates.copy, flops / rates.bf16, flops / rates.fp32)
    print(
        f"| {shape[0]} x {shape[1]} | {count} x {rank} | {times[0]:.0f} | {ours:.0f} |",
        *(f"{limit:.1f} |" for limit in limits),
        *(f"{ratio:.1f} |" for ratio in ratios),
        f"{wrong_share(weight, same):.1e} {wrong_share(weight, many):.1e} |",
        flush=True,
    )
    return ratios


def random_factors(shape: tuple[int, int], count: int, rank: int, generator: torch.Generator) -> Factors:
    """LoRAs whose deltas have 1 % of the weight's rms each."""
    size = 0.01 * 0.02 / (rank**0.5 * 0.01 * STRENGTH)
    return [
        (
            (torch.randn(shape[0], rank, generator=generator) * size).bfloat16(),
            (torch.randn(rank, shape[1], generator=generator) * 0.01).bfloat16(),
            STRENGTH,
        )
        for _ in range(count)
    ]


def host_jobs(weight: torch.Tensor, factors: Factors) -> tuple[Callable[[], object], ...]:
    """ComfyUI's way: to bf16, to bf16 and then fp8, and onto a scaled-fp8 weight."""
    import comfy.float
    import comfy.lora
    import comfy.weight_adapter

    adapters = [comfy.weight_adapter.LoRAAdapter(set(), (up, down, None, None, None, None)) for up, down, _ in factors]
    patches = [(STRENGTH, adapter, 1.0, None, None) for adapter in adapters]
    scale = weight.float().abs().amax() / DEFAULT.largest
    codes = (weight.float() / scale).to(torch.float8_e4m3fn)

    def fused(start: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = comfy.lora.calculate_weight(patches, start.to(torch.float32, copy=True), WEIGHT)
        return total

    def to_bf16() -> torch.Tensor:
        rounded: torch.Tensor = comfy.float.stochastic_rounding(fused(weight), torch.bfloat16, seed=1)
        return rounded

    def to_fp8() -> torch.Tensor:
        rounded = to_bf16()
        return (rounded / (rounded.abs().amax() / DEFAULT.largest)).to(torch.float8_e4m3fn)

    def patch_fp8() -> torch.Tensor:
        start = fused(codes.to(torch.float32) * scale)
        rounded: torch.Tensor = comfy.float.stochastic_rounding(start / scale, torch.float8_e4m3fn, seed=1)
        return rounded

    return to_bf16, to_fp8, patch_fp8


def wrong_share(weight: torch.Tensor, factors: Factors) -> float:
    """Share of baked bf16 weights that differ from the float64 sum rounded once."""
    from lora_foundry.engine.bake import bake
    from lora_foundry.engine.finish import Finish

    keep = Keep()
    bake(plan_of(weight, factors, 1), Finish(), keep)
    exact = weight.double() + sum(strength * (up.double() @ down.double()) for up, down, strength in factors)
    return (keep.values[WEIGHT] != exact.bfloat16()).double().mean().item()


if __name__ == "__main__":
    main()
