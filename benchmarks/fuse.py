"""Fusing LoRAs into one weight: this engine against ComfyUI's own path, CPU time, one process, one run.

python benchmarks/fuse.py [threads]     needs a ComfyUI (COMFYUI_PATH, or python tests/install.py host)

Columns: bf16 in, bf16 out | fuse and quantize to fp8 | a LoRA patched onto a scaled-fp8 weight against fusing and
quantizing last. A ratio is ComfyUI's CPU time over ours. ``floor`` is memcpy of the weight in and out; ``gemm`` the
fp32 multiplication alone: what no implementation gets below.
"""

from __future__ import annotations

import statistics
import sys

import torch
from common import WEIGHT, Discard, cpu_ms, enter_host, plan_of

SHAPES = [(3072, 3072), (12288, 3072)]
COUNTS, RANKS = (1, 2, 4, 8), (16, 32, 64)
STRENGTH = 0.7
COPIES = 4  # weights in the plan, so that what a bake does once is shared as in a model


def main() -> None:
    """Print one Markdown row a configuration, and the medians."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    enter_host()
    print("| weight | LoRAs x rank | ComfyUI ms | ours ms | ratio | fp8 | on scaled fp8 | floor | gemm | wrong |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    rows = [row(shape, count, rank) for shape in SHAPES for count in COUNTS for rank in RANKS]
    for name, column in zip(("bf16", "fuse + fp8", "LoRA on scaled fp8"), zip(*rows, strict=True), strict=True):
        print(f"{name}: median {statistics.median(column):.1f}, least {min(column):.1f}, most {max(column):.1f}")


def row(shape: tuple[int, int], count: int, rank: int) -> tuple[float, float, float]:
    """Measure one configuration; the three ratios."""
    import comfy.float
    import comfy.lora
    import comfy.weight_adapter
    from lora_foundry.engine.bake import bake
    from lora_foundry.engine.finish import Finish

    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(shape, generator=generator) * 0.02).bfloat16()
    size = 0.01 * 0.02 / (rank**0.5 * 0.01 * STRENGTH)  # each delta is 1 % of the weight's rms
    factors = [
        (
            (torch.randn(shape[0], rank, generator=generator) * size).bfloat16(),
            (torch.randn(rank, shape[1], generator=generator) * 0.01).bfloat16(),
            STRENGTH,
        )
        for _ in range(count)
    ]
    adapters = [comfy.weight_adapter.LoRAAdapter(set(), (up, down, None, None, None, None)) for up, down, _ in factors]
    patches = [(STRENGTH, adapter, 1.0, None, None) for adapter in adapters]
    scale = weight.float().abs().amax() / 448
    codes = (weight.float() / scale).to(torch.float8_e4m3fn)

    def host_fused(start: torch.Tensor) -> torch.Tensor:
        return comfy.lora.calculate_weight(patches, start.to(torch.float32, copy=True), WEIGHT)

    def host_bf16() -> torch.Tensor:
        return comfy.float.stochastic_rounding(host_fused(weight), torch.bfloat16, seed=1)

    def host_fp8() -> torch.Tensor:
        fused = host_bf16()
        amax = fused.abs().amax() / 448
        return (fused / amax).to(torch.float8_e4m3fn)

    def host_patch_fp8() -> torch.Tensor:
        fused = host_fused(codes.to(torch.float32) * scale)
        return comfy.float.stochastic_rounding(fused / scale, torch.float8_e4m3fn, seed=1)

    plan, first = plan_of(weight, factors, COPIES), plan_of(weight, factors, 1)
    cast, quantize = Finish(), Finish("float8_e4m3fn", keep=())
    out = torch.empty_like(weight)
    kept: dict[str, torch.Tensor] = {}
    keep = type("Keep", (), {"write": lambda _, name, tensor: kept.update({name: tensor})})()
    bake(first, cast, keep)
    exact = weight.double() + sum(s * (up.double() @ down.double()) for up, down, s in factors)
    wrong = (kept[WEIGHT] != exact.bfloat16()).double().mean().item()
    up, down = torch.cat([u for u, _, _ in factors], 1).float(), torch.cat([d for _, d, _ in factors]).float()
    rounds = 2 if count * rank > 128 else 3
    times = cpu_ms(
        host_bf16,
        lambda: bake(plan, cast, Discard()),
        host_fp8,
        lambda: bake(plan, quantize, Discard()),
        lambda: out.copy_(weight),
        lambda: up @ down,
        rounds=rounds,
    )
    times[1], times[3] = times[1] / COPIES, times[3] / COPIES
    (patched,) = cpu_ms(host_patch_fp8, rounds=1)
    ratios = (times[0] / times[1], times[2] / times[3], patched / times[3])
    print(
        f"| {shape[0]} x {shape[1]} | {count} x {rank} | {times[0]:.0f} | {times[1]:.0f} | {ratios[0]:.1f} | "
        f"{ratios[1]:.1f} | {ratios[2]:.1f} | {times[4]:.1f} | {times[5]:.0f} | {wrong:.1e} |",
        flush=True,
    )
    return ratios


if __name__ == "__main__":
    main()
