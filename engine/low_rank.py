"""Adapters of small factors: LoRA, LoHa, LoKr and GLoRA, by the formulas of the trainers that write them."""

from __future__ import annotations

import torch

from .dense import DeltaRows, Index, Parts, as_rows, fit, folded, joined, matrix, require, take


def lora_factors(parts: Parts) -> tuple[torch.Tensor, torch.Tensor]:
    """(up [rows, r], down [r, columns]) as stored; a Tucker core ``mid`` [r, r', kh, kw] is folded into down (fp32)."""
    up, down = as_rows(parts["up"]), as_rows(parts["down"])
    return joined(up, folded(parts["mid"], down) if "mid" in parts else down)


def lora(parts: Parts, scale: float, weight: torch.Tensor) -> DeltaRows:
    """scale * up @ down."""
    up, down = (factor.to(torch.float32) for factor in lora_factors(parts))
    fit(up.shape[0], down.shape[1], weight)
    return lambda rows: (up[rows] * scale) @ down


def loha(parts: Parts, scale: float, weight: torch.Tensor) -> DeltaRows:
    """scale * (w1_a @ w1_b) * (w2_a @ w2_b); with cores t1, t2 the outer factors are stored as [r, out]."""
    (up1, down1), (up2, down2) = _hadamard(parts, "1"), _hadamard(parts, "2")
    for up, down in ((up1, down1), (up2, down2)):
        fit(up.shape[0], down.shape[1], weight)
    return lambda rows: ((up1[rows] * scale) @ down1).mul_(up2[rows] @ down2)


def _hadamard(parts: Parts, which: str) -> tuple[torch.Tensor, torch.Tensor]:
    outer, inner = matrix(parts[f"w{which}_a"]), matrix(parts[f"w{which}_b"])
    core = parts.get(f"t{which}")
    return joined(outer, inner) if core is None else joined(outer.T, folded(core, inner))


def lokr(parts: Parts, scale: float, weight: torch.Tensor) -> DeltaRows:
    """scale * kron(w1, w2), each whole or split in two factors; with a core t2 w2_a is stored as [r, out]."""
    left, right = _first(parts), _second(parts)
    fit(left.shape[0] * right.shape[0], left.shape[1] * right.shape[1], weight)
    numbers = torch.arange(left.shape[0] * right.shape[0], device=left.device)

    def make(rows: Index) -> torch.Tensor:
        outer, inner = left[numbers[rows] // right.shape[0]], right[numbers[rows] % right.shape[0]]
        return ((outer * scale)[:, :, None] * inner[:, None, :]).flatten(start_dim=1)

    return make


def _first(parts: Parts) -> torch.Tensor:
    if "w1" in parts:
        return matrix(parts["w1"])
    left, right = joined(matrix(parts["w1_a"]), matrix(parts["w1_b"]))
    return left @ right


def _second(parts: Parts) -> torch.Tensor:
    if "w2" in parts:
        return matrix(parts["w2"])
    outer, inner = matrix(parts["w2_a"]), matrix(parts["w2_b"])
    left, right = joined(outer.T, folded(parts["t2"], inner)) if "t2" in parts else joined(outer, inner)
    return left @ right


def glora(parts: Parts, scale: float, weight: torch.Tensor) -> DeltaRows:
    """scale * (B + W A), A and B of rank r: b1 @ b2 and a1 @ a2 today, b2 @ b1 and a2 @ a1 in files of LyCORIS 1.x.

    A mixes the input channels: with W as [out, in, kernel] it is the sum over in.
    """
    a1, a2, b1, b2 = (matrix(parts[name]) for name in ("a1", "a2", "b1", "b2"))
    if (b2.shape[0], b1.shape[1]) == tuple(weight.shape) and b2.shape[1] == b1.shape[0]:
        a1, a2, b1, b2 = a2, a1, b2, b1
    (a1, a2), (b1, b2), channels = joined(a1, a2), joined(b1, b2), a1.shape[0]
    fit(b1.shape[0], b2.shape[1], weight)
    require(a2.shape[1] == channels and weight.shape[1] % channels == 0, a2, weight)

    def make(rows: Index) -> torch.Tensor:
        here = take(weight, rows)
        here = here.view(here.shape[0], channels, weight.shape[1] // channels)
        mixed = torch.einsum("rck,cd->rdk", here, a1 @ a2) if here.shape[2] > 1 else ((here[:, :, 0] @ a1) @ a2)
        return (mixed.flatten(start_dim=1) + b1[rows] @ b2).mul_(scale)

    return make
