"""Rounding a weight block of rows by block of rows, while the block is in the core's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from .codes import Format
from .formats import finite_amax, require_finite_scale
from .fuse import BLOCK
from .tensors import RowSink, TensorInfo

RowBlocks = Callable[[], Iterator[tuple[slice, torch.Tensor]]]  # (rows, fp32 sum there), anew at each call
Put = Callable[[slice, torch.Tensor], object]
Encode = Callable[[slice, torch.Tensor, torch.Tensor], object]  # rows, what is rounded there, its scale


def row_ranges(shape: Sequence[int]) -> Iterator[slice]:
    """The rows of a weight in blocks of about 3 MB of fp32."""
    columns = 1
    for size in shape[1:]:
        columns *= size
    step = max(1, BLOCK // max(1, columns))
    return (slice(first, min(first + step, shape[0])) for first in range(0, shape[0], step))


def gathered(blocks: RowBlocks, shape: Sequence[int], most: int) -> RowBlocks:
    """The same sum in blocks of as many rows as ``most`` numbers are, whatever the blocks it comes in."""
    step = max(1, most // max(1, shape[1]))

    def larger() -> Iterator[tuple[slice, torch.Tensor]]:
        held = torch.empty(0)
        for rows, block in blocks():
            at = rows.start
            while at < rows.stop:
                start = at - at % step
                stop = min(start + step, shape[0])
                held = torch.empty(stop - start, shape[1], device=block.device) if at == start else held
                end = min(rows.stop, stop)
                held[at - start : end - start] = block[at - rows.start : end - rows.start]
                at = end
                if at == stop:
                    yield slice(start, stop), held

    return larger


def quantize_blocks(
    blocks: RowBlocks, format: Format, info: TensorInfo, encode: Encode, amax: torch.Tensor | None = None
) -> torch.Tensor:
    """The scale, as it is worked with, of a sum of the shape of ``info`` that is gone through block by block.

    Once for row scales and where ``amax`` of the whole sum is known (and the sum itself is rounded), else twice.
    ``encode`` gets each block as it is rounded. NaN and Inf are FoundryError LF304.
    """
    if not format.row_scaled and (amax is None or not format.rounds_as_it_is):
        amax = torch.stack([finite_amax(format.prepare(block), info.name) for _, block in blocks()]).amax()
    whole: torch.Tensor | None = None
    for rows, block in blocks():
        prepared = format.prepare(block)
        scale = format.scales(prepared, amax)
        require_finite_scale(scale, block, info.name)
        encode(rows, prepared, scale)
        if whole is None:  # made once: parts kept among what is freed would hold the memory around them
            whole = scale.new_empty(info.shape[0], *scale.shape[1:]) if scale.ndim else scale
        if scale.ndim:
            whole[rows] = scale
    return torch.empty(0) if whole is None else whole


def cast_blocks(blocks: RowBlocks, dtype: torch.dtype, name: str, put: Put) -> None:
    """Round a sum that is made block by block to ``dtype``; NaN and Inf are LF304."""
    for rows, block in blocks():
        cast = block.to(dtype)
        finite_amax(cast, name)
        put(rows, cast)


class SampledRows:
    """Passes blocks of rows of one tensor on to a sink and remembers the sampled ones, as they were stored."""

    def __init__(self, sink: RowSink, info: TensorInfo, sampled: range) -> None:
        self._sink, self._info, self._sampled = sink, info, sampled
        self._kept: list[torch.Tensor] = []

    def put(self, rows: slice, block: torch.Tensor) -> None:
        """Write the rows ``rows``; ``block`` is [rows, in * kh * kw]."""
        first = -(rows.start // -self._sampled.step) * self._sampled.step
        self._kept.append(block[first - rows.start :: self._sampled.step].clone())
        self._sink.write_rows(self._info.name, rows.start, block.reshape(-1, *self._info.shape[1:]))

    def stored(self) -> torch.Tensor:
        """The sampled rows, in order."""
        return torch.cat([kept.view(torch.uint8) if kept.itemsize == 1 else kept for kept in self._kept]).view(
            self._kept[0].dtype
        )


def rows_of(scale: torch.Tensor | None, rows: slice) -> torch.Tensor | None:
    """The scales of some rows; one for the whole tensor is everybody's."""
    return scale if scale is None or scale.ndim == 0 else scale[rows]


def is_same(weight: torch.Tensor, stored: torch.Tensor) -> bool:
    """Whether a result is the base's own tensor again."""
    return weight.dtype == stored.dtype and torch.equal(weight, stored)
