"""The fp32 sum that is quantized: gone through as often as needed, with little held, its amax found in a few numbers.

No number of a low-rank product is larger than the norms of its factors allow, so only weights close to the largest one
can hold the amax of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from . import gemm
from .fuse import add_rows, fused_blocks, largest, low_rank, row_blocks, row_segments, total
from .gemm import JoinedProducts, Workspace
from .rows import RowBlocks, row_ranges
from .terms import AnyTerm

PEAK_ROWS = 32  # rows that are searched at once for the largest number
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # signed: without their sign, magnitudes in order


@dataclass(frozen=True)
class _Part:
    """Rows ``first`` to ``stop`` of a weight, and all that is added there."""

    first: int
    stop: int
    joined: JoinedProducts


def read_sum(
    shape: Sequence[int], read: Callable[[slice], torch.Tensor], terms: Sequence[AnyTerm], workspace: Workspace
) -> RowBlocks:
    """The fp32 sum of what ``read`` gives of rows and all terms there, made anew at every call.

    A block is overwritten by the next one.
    """

    def blocks() -> Iterator[tuple[slice, torch.Tensor]]:
        for rows in row_ranges(shape):
            start = read(rows).flatten(start_dim=1)
            yield rows, add_rows(workspace.take(start.shape, start.device).copy_(start), rows, terms)

    return blocks


class FusedSum:
    """weight + all deltas in fp32, block by block.

    Where bf16 products are fast and the deltas are weak, each block is worked out when it is asked for, its delta in
    bf16 (the sum itself is never rounded). Else the fp32 sum is held (4 bytes a weight), unless ``passes`` is 1.
    """

    def __init__(self, start: torch.Tensor, terms: Sequence[AnyTerm], workspace: Workspace, passes: int = 2) -> None:
        """``start`` and ``terms`` as ``start_and_terms`` gives them."""
        self._start, self._terms, self._workspace = start, terms, workspace
        self._parts = _weak_parts(start, terms, workspace)
        again = self._parts is None and passes > 1 and start.device.type == "cpu"
        self._sum = total(start, terms, workspace) if again else None

    def amax(self) -> torch.Tensor | None:
        """max |sum| as an fp32 scalar; None where all of the sum has to be looked at, or not every number is finite.

        The rows that can hold it are summed from the most likely one on, until no other can hold more.
        """
        if self._parts is None or not self._start.numel():
            return None
        tops, reach = self._tops(), self._reach()
        bounds, found = tops + reach, (tops - reach).amax().clamp_(min=0.0)
        if not torch.isfinite(bounds).all():
            return None
        likely = (bounds > found).nonzero()[:, 0]
        likely = likely[bounds[likely].argsort(descending=True)]
        for first in range(0, len(likely), PEAK_ROWS):
            rows = likely[first : first + PEAK_ROWS]
            if bounds[rows[0]] <= found:
                break
            found = torch.maximum(found, self._peak(rows, found - reach[rows].amax()))
        return found

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """(rows, the sum there in fp32); the block is the caller's to change until the next one."""
        if self._sum is None and self._parts is None:
            yield from fused_blocks(self._start, self._terms, self._workspace)
            return
        for rows in row_blocks(self._start):
            yield rows, self._summed(rows)

    def _summed(self, rows: slice) -> torch.Tensor:
        """The sum in some rows, in fp32 workspace memory, where it is held or made of parts."""
        block = self._take(self._start[rows] if self._sum is None else self._sum[rows], "block")
        for part in self._parts or ():
            first, stop = max(rows.start, part.first), min(rows.stop, part.stop)
            if first < stop:
                shape = (stop - first, block.shape[1])
                product = self._workspace.take(shape, block.device, gemm.BF16, "product")
                part.joined.multiply(slice(first - part.first, stop - part.first), product)
                block[first - rows.start : stop - rows.start].add_(
                    self._take(product, "piece"), alpha=part.joined.alpha
                )
        return block

    def _take(self, rows: torch.Tensor, slot: str) -> torch.Tensor:
        return self._workspace.take(rows.shape, rows.device, slot=slot).copy_(rows)

    def _tops(self) -> torch.Tensor:
        """fp32 [rows]: the largest |weight| of each, found among integers: their order is that of the magnitudes."""
        bits = INTEGERS[self._start.itemsize]
        tops = torch.empty(self._start.shape[0], dtype=bits)
        for rows in row_blocks(self._start):
            block = self._start[rows].view(bits)
            magnitudes = self._workspace.take(block.shape, block.device, bits, "magnitudes")
            torch.amax(torch.bitwise_and(block, torch.iinfo(bits).max, out=magnitudes), 1, out=tops[rows])
        return tops.view(self._start.dtype).to(torch.float32)

    def _reach(self) -> torch.Tensor:
        """fp32 [rows]: no |delta| is larger there."""
        reach = torch.zeros(self._start.shape[0])
        for part in self._parts or ():
            reach[part.first : part.stop] = part.joined.reach(self._workspace)
        return reach

    def _peak(self, rows: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        """max |sum| of some rows, in the columns where one of the weights is ``least`` or more."""
        weight = self._take(self._start[rows], "block")
        columns = (weight.abs().amax(0) >= least).nonzero()[:, 0]
        picked = weight[:, columns]
        for part in self._parts or ():
            here = ((rows >= part.first) & (rows < part.stop)).nonzero()[:, 0]
            product = part.joined.up[rows[here] - part.first] @ part.joined.down[:, columns]
            picked.index_add_(0, here, product.to(torch.float32), alpha=part.joined.alpha)
        return largest(picked) if picked.numel() else picked.new_zeros(())


def _weak_parts(start: torch.Tensor, terms: Sequence[AnyTerm], workspace: Workspace) -> list[_Part] | None:
    """All deltas as bf16 products, none where there are no terms; None where fp32 has to do it."""
    known = start.device.type == "cpu" and start.itemsize in INTEGERS
    if not known or not low_rank(terms) or (terms and not gemm.suits(start)):
        return None
    parts = list[_Part]()
    for rows, products in row_segments(start.shape[0], terms):
        if products:
            joined = gemm.rounded_products(products, workspace, f" {len(parts)}")
            if not gemm.is_weak(joined, start[rows]):
                return None
            parts.append(_Part(rows.start, rows.stop, joined))
    return parts
