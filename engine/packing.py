"""Codes of fewer than 8 bits side by side in bytes, and scales in the order in which GPU kernels read them."""

from __future__ import annotations

import torch
from einops import rearrange

TILE_ROWS, TILE_COLUMNS = 128, 4  # of scales that a kernel reads together (cuBLAS: 32 x 4 x 4)


def pack_nibbles(first: torch.Tensor, second: torch.Tensor, out: torch.Tensor) -> None:
    """Fill uint8 ``out`` [rows, n] with codes below 16: ``first`` in the low half of each byte, ``second`` above it.

    ``second`` is overwritten.
    """
    torch.bitwise_or(first, second.bitwise_left_shift_(4), out=out)


def nibbles(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(low, high) half of each byte of a uint8 tensor."""
    return packed & 15, packed >> 4


def padded(size: int, multiple: int) -> int:
    """The next multiple from ``size`` on."""
    return -(-size // multiple) * multiple


def swizzled_shape(rows: int, columns: int) -> tuple[int, int]:
    """Shape of ``swizzle`` of a [rows, columns] tensor."""
    return padded(rows, TILE_ROWS), padded(columns, TILE_COLUMNS)


def swizzle(scales: torch.Tensor) -> torch.Tensor:
    """uint8 [rows, columns], padded with zeros to whole tiles, each tile laid out for the kernel."""
    whole = scales.new_zeros(swizzled_shape(*scales.shape))
    whole[: scales.shape[0], : scales.shape[1]] = scales
    order = "(a quarter row) (b column) -> (a b row quarter column)"
    return rearrange(whole, order, quarter=4, row=32, column=TILE_COLUMNS).view(whole.shape)


def unswizzle(scales: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The [rows, columns] tensor that ``swizzle`` made."""
    tall, wide = swizzled_shape(rows, columns)
    order = "(a b row quarter column) -> (a quarter row) (b column)"
    sizes = {"a": tall // TILE_ROWS, "row": 32, "quarter": 4, "column": TILE_COLUMNS}
    return rearrange(scales.reshape(tall * wide), order, **sizes)[:rows, :columns]
