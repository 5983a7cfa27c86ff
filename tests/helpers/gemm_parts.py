"""LoRAs on one weight, and their sums as bf16 matrix units and fp32 make them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fakes import Delta, a_layer, a_plan, random_delta
from lora_foundry.engine import gemm
from lora_foundry.engine.fuse import start_and_terms
from lora_foundry.engine.gemm import Workspace
from lora_foundry.engine.plan import Layer
from lora_foundry.engine.sums import FusedSum
from lora_foundry.engine.terms import make_term

W = "blocks.0.q.weight"
BF16 = torch.bfloat16
SHAPE = (640, 512)
ALIKE = (0.7,) * 8
MIXED = (0.7, 1.0, 0.85, 0.6, 0.35, 0.9, 0.55, 1.1)


def fast() -> bool:
    """Whether this CPU multiplies bf16 fast and right."""
    return gemm.fast_bf16("cpu")


def summed(weight: torch.Tensor, *layers: Layer, passes: int = 2) -> FusedSum:
    """The sum that is quantized."""
    pairs = a_plan({W: weight}, *layers).by_weight().get(W, ())
    return FusedSum(*start_and_terms(weight, pairs, [make_term(*pair) for pair in pairs]), Workspace(), passes)


def whole(total: FusedSum) -> torch.Tensor:
    """All blocks of a sum, one below the other."""
    return torch.cat([block.clone() for _, block in total.blocks()])


def loras(
    count: int,
    strengths: Sequence[float],
    rms: float,
    shape: tuple[int, ...] = SHAPE,
    dtype: torch.dtype = BF16,
    rank: int = 16,
) -> tuple[list[tuple[Delta, float]], list[Layer]]:
    """([(delta, strength)], layers) whose deltas have together about this rms at strength 1."""
    deltas = [random_delta(W, shape, rank, rms / count**0.5, 10 + i, dtype=dtype) for i in range(count)]
    steps = list(zip(deltas, strengths, strict=False))
    return steps, [a_layer([delta], strength, name=f"{i}") for i, (delta, strength) in enumerate(steps)]
