"""Adapters that rotate a weight: its rows as LyCORIS and sd-scripts do it, its columns as PEFT and OneTrainer do."""

from __future__ import annotations

import math

import torch
from einops import rearrange

from .dense import DeltaRows, Index, Parts, require, take

TERMS = 5  # of the series that PEFT and OneTrainer take for a Cayley transform, unless told otherwise


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


# --- rotations of the inputs: every row of the weight is turned for itself


def oft_in(parts: Parts, terms: float, weight: torch.Tensor) -> DeltaRows:
    """W R^T - W, R a rotation of each block of columns: OFT of PEFT and OneTrainer.

    ``turns`` [count, size * (size - 1) / 2] are the numbers above the diagonal of Q = -Q^T; one row serves all blocks.
    R is a series of so many ``terms`` for (I + Q) (I - Q)^-1; with 0 terms it is (I - Q) (I + Q)^-1, as in PEFT.
    """
    vectors = parts["turns"]
    size = block_size(vectors.shape[-1])
    fits = vectors.ndim == 2 and size > 1 and weight.shape[1] % size == 0
    require(fits and vectors.shape[0] in (1, weight.shape[1] // size), vectors, weight)
    skew = torch.zeros(vectors.shape[0], size, size, dtype=torch.float64, device=vectors.device)
    above = torch.triu_indices(size, size, 1).to(vectors.device)
    skew[:, above[0], above[1]] = vectors.to(torch.float64)
    skew = skew - skew.mT
    turns = (_series(skew, round(terms)) if terms else _cayley(skew)).to(torch.float32)
    return lambda rows: _in_blocks(take(weight, rows), turns).sub_(weight[rows])


def boft_in(parts: Parts, limit: float, weight: torch.Tensor) -> DeltaRows:
    """sizes * (W M^T) - W, M a product of stages that rotate blocks of columns: BOFT of PEFT; ``limit`` is unused.

    ``turned`` [stages, count, size, size], Q half of it less its transpose; ``sizes`` one number a row. In stage i the
    blocks are of columns that lie 2^i half blocks apart.
    """
    blocks, sizes = parts["turned"], parts["sizes"].to(torch.float32).reshape(-1, 1)
    require(blocks.ndim == 4 and blocks.shape[2] == blocks.shape[3], blocks, weight)
    stages, count, size, _ = blocks.shape
    fits = count * size == weight.shape[1] and (stages == 1 or (size % 2 == 0 and count % 2 ** (stages - 1) == 0))
    require(fits and len(sizes) == weight.shape[0], blocks, weight)
    stored = blocks.to(torch.float64)
    turns = _cayley((stored - stored.mT) / 2).to(torch.float32)
    orders = [_butterfly(weight.shape[1], size // 2, stage, stages).to(blocks.device) for stage in range(stages)]

    def make(rows: Index) -> torch.Tensor:
        turned = take(weight, rows)
        for order, turn in zip(orders, turns, strict=True):
            back = torch.empty_like(order)
            back[order] = torch.arange(len(order), device=order.device)
            turned = _in_blocks(turned[:, back], turn)[:, order]
        return turned.mul_(sizes[rows]).sub_(weight[rows])

    return make


def block_size(numbers: int) -> int:
    """Rows of a square matrix that has so many numbers above its diagonal; 0 where none has."""
    size = (1 + math.isqrt(1 + 8 * numbers)) // 2
    return size if size * (size - 1) // 2 == numbers else 0


def _in_blocks(rows: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Each block of columns times its own rotation, transposed; one rotation serves all."""
    size = turns.shape[-1]
    blocks = rearrange(rows, "row (block column) -> block row column", column=size)
    return rearrange(blocks @ turns.mT, "block row column -> row (block column)")


def _series(skew: torch.Tensor, terms: int) -> torch.Tensor:
    """I + 2 Q + 2 Q^2 + ... + Q^last, as PEFT ends it: with three terms or more the last power counts once."""
    last = max(3, terms - 1) if terms > 2 else terms - 1
    power = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    turns = power.expand_as(skew)
    for exponent in range(1, last + 1):
        power = power @ skew
        turns = turns + power * (1 if exponent == last and terms > 2 else 2)
    return turns


def _cayley(skew: torch.Tensor) -> torch.Tensor:
    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    turns: torch.Tensor = torch.linalg.solve(one + skew, one - skew)  # the two commute
    return turns


def _butterfly(columns: int, half: int, stage: int, stages: int) -> torch.Tensor:
    """Which column comes where before a stage: those that one block mixes lie 2^stage half blocks apart."""
    order = torch.arange(columns)
    if stages == 1:
        return order
    apart = 2**stage
    return rearrange(order, "(group near two half) -> (group two near half)", two=2, near=apart, half=half)
