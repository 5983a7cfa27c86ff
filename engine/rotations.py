"""Adapters that rotate the rows of a weight: OFT and BOFT, as LyCORIS and sd-scripts do it."""

from __future__ import annotations

import torch
from einops import rearrange

from .dense import DeltaRows, Parts, require


def oft(parts: Parts, limit: float, weight: torch.Tensor) -> DeltaRows:
    """R W - W, R a rotation of each block of rows: (I + Q) (I - Q)^-1 transposed, Q = blocks - blocks^T.

    ``blocks`` [count, size, size]; |Q| is at most ``limit`` * rows (0: no limit), as LyCORIS and sd-scripts do it.
    ``rescale`` [rows, 1] multiplies the rotated rows.
    """
    blocks = parts["blocks"]
    require(blocks.ndim == 3 and blocks.shape[0] * blocks.shape[1] == weight.shape[0], blocks, weight)
    turns = rotations(blocks, limit * weight.shape[0])
    in_blocks = rearrange(weight.to(torch.float32), "(block row) column -> block row column", block=blocks.shape[0])
    turned = turns.mT @ in_blocks
    return _changed(turned, parts, weight)


def boft(parts: Parts, limit: float, weight: torch.Tensor) -> DeltaRows:
    """OFT in stages: stage i rotates rows that lie 2^i half blocks apart. ``blocks`` [stages, count, size, size]."""
    blocks = parts["blocks"]
    require(blocks.ndim == 4, blocks, weight)
    stages, count, size, _ = blocks.shape
    fits = count * size == weight.shape[0] and size % 2 == 0 and count % 2 ** (stages - 1) == 0
    require(fits, blocks, weight)
    turned = weight.to(torch.float32)
    for stage, turns in enumerate(rotations(blocks, limit * weight.shape[0])):
        apart = 2**stage * (size // 2)
        mixed = rearrange(turned, "(group half apart) column -> (group apart half) column", half=2, apart=apart)
        mixed = turns @ rearrange(mixed, "(block row) column -> block row column", block=count)
        mixed = rearrange(mixed, "block row column -> (block row) column")
        turned = rearrange(mixed, "(group apart half) column -> (group half apart) column", half=2, apart=apart)
    return _changed(turned, parts, weight)


def rotations(blocks: torch.Tensor, limit: float) -> torch.Tensor:
    """Rotation matrices of blocks [..., size, size], fp32; the norm of all Q together is at most ``limit`` (0: any)."""
    require(blocks.shape[-1] == blocks.shape[-2], blocks, blocks)
    skew = blocks.to(torch.float64) - blocks.to(torch.float64).mT
    norm = float(skew.norm())
    if norm > limit > 0:
        skew *= limit / norm
    one = torch.eye(blocks.shape[-1], dtype=torch.float64, device=blocks.device)
    turns: torch.Tensor = torch.linalg.solve(one - skew, one + skew)  # the two commute
    return turns.to(torch.float32)


def _changed(turned: torch.Tensor, parts: Parts, weight: torch.Tensor) -> DeltaRows:
    """rescale * turned - weight."""
    turned = turned.reshape(weight.shape)
    if "rescale" in parts:
        require(parts["rescale"].numel() == weight.shape[0], parts["rescale"], weight)
        turned = turned * parts["rescale"].to(torch.float32).reshape(-1, 1)
    changed = turned - weight
    return lambda rows: changed[rows]
