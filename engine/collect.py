"""Inputs of Linears counted as they come: ranges, Gram matrices in blocks of columns, some tokens kept aside.

Linears that are given the same tensor (q, k and v of one attention) share one count.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping

import torch

from .calibration import BLOCKS, GRAM, HELD, Range
from .feedback import gram_blocks
from .gemm import full_fp32
from .tensors import TensorInfo

ASIDE = 16  # of so many tokens one is kept aside and counted nowhere else
MOST_ASIDE = 128  # tokens of one set of inputs
MOST_TOKENS = 4096  # of one call that go into the Gram matrix, evenly spread
NUMBER = 4  # bytes
Allocate = Callable[[tuple[int, int]], torch.Tensor]  # an fp32 matrix of zeros


def gram_bytes(widths: Mapping[str, int], size: int) -> int:
    """The memory for Gram matrices of Linears with so many inputs, in blocks of ``size``, if none share theirs."""
    return sum(NUMBER * width * min(width, size) for width in widths.values())


def block_size(widths: Mapping[str, int], limit: int) -> int:
    """The larger block whose matrices take at most ``limit`` bytes, else the smaller one."""
    return next((size for size in BLOCKS if gram_bytes(widths, size) <= limit), BLOCKS[-1])


class Collector:
    """Counts what ``add`` is given; ``size`` is that of the blocks of Gram matrices, 0 for ranges alone.

    ``wanted``: the weights whose inputs get a Gram matrix; None: all.
    """

    def __init__(self, size: int = 0, allocate: Allocate = torch.zeros, wanted: Collection[str] | None = None) -> None:
        self._size, self._allocate, self._wanted = size, allocate, wanted
        self._sums: dict[str, _Sums] = {}
        self._last: _Sums | None = None

    def add(self, weight: str, inputs: torch.Tensor) -> None:
        """Count one call of the Linear with this weight; inputs are [..., in]. Empty ones are passed over."""
        if not inputs.numel() or not inputs.is_floating_point():
            return
        sums, size = self._sums.get(weight), self._size if self._wanted is None or weight in self._wanted else 0
        if sums is None and self._last is not None and self._last.saw(inputs) and self._last.size >= size:
            self._sums[weight] = self._last
            return
        if sums is not None and sums.saw(inputs):
            return
        if sums is None or sums.owner != weight:  # it shared a set until now
            sums = self._sums[weight] = _Sums(weight, inputs.shape[-1], size, self._allocate)
        sums.add(inputs)
        self._last = sums

    def ranges(self) -> dict[str, Range]:
        """Of every Linear whose inputs were finite."""
        return {weight: sums.range for weight, sums in self._sums.items() if sums.is_finite}

    def sets(self) -> dict[str, str]:
        """Linear -> its set of inputs, of those that have a Gram matrix and finite inputs."""
        names: dict[int, str] = {}
        return {
            weight: names.setdefault(id(sums), str(len(names)))
            for weight, sums in self._sums.items()
            if sums.counted and sums.is_finite
        }

    def parts(self) -> list[tuple[TensorInfo, Callable[[], torch.Tensor]]]:
        """What a ``Calibration`` reads, and how each of it is made."""
        found = {name: self._sums[weight] for weight, name in self.sets().items()}
        return [part for name, sums in found.items() for part in sums.parts(name)]


class _Sums:
    """One set of inputs; ``owner`` is the first Linear that was given them."""

    def __init__(self, owner: str, width: int, size: int, allocate: Allocate) -> None:
        self.owner, self.size, self.counted = owner, size, 0
        self._width, self._tokens = width, 0
        self._amax, self._squares = torch.zeros(()), torch.zeros((), dtype=torch.float64)
        self._gram = allocate((width, min(width, size))) if size else None
        self._aside: list[torch.Tensor] = []
        self._place, self._seen_aside, self._stride = 0, 0, 1
        self._seen: weakref.ref[torch.Tensor] | None = None

    def saw(self, inputs: torch.Tensor) -> bool:
        """Whether this very tensor was counted last."""
        return self._seen is not None and self._seen() is inputs

    def add(self, inputs: torch.Tensor) -> None:
        """Count the inputs of one call."""
        self._seen = weakref.ref(inputs)
        rows = inputs.detach().reshape(-1, self._width)
        self._amax = torch.maximum(self._amax.to(rows.device), rows.abs().amax().float())
        norm = torch.linalg.vector_norm(rows, dtype=torch.float32)
        norm = norm if norm.is_cuda else norm.cpu()  # Apple's GPUs know no float64; on CUDA nobody waits
        self._squares = self._squares.to(norm.device) + norm.double().square()
        self._tokens += len(rows)
        if self._gram is not None and inputs.ndim > 2 and inputs.shape[-2] > 1:  # one token is a modulation
            self._count(rows, self._gram)

    def _count(self, rows: torch.Tensor, gram: torch.Tensor) -> None:
        numbers = torch.arange(len(rows)) + self._place
        self._place += len(rows)
        aside = numbers % ASIDE == ASIDE - 1
        self._keep(rows, aside.nonzero()[:, 0])
        counted = (~aside).nonzero()[:, 0]
        counted = counted[:: max(1, math.ceil(len(counted) / MOST_TOKENS))]
        self.counted += len(counted)
        exact = rows[counted.to(rows.device)].to(torch.float32)
        with full_fp32():
            for columns, block in gram_blocks(gram):
                part = exact[:, columns]
                if part.device == block.device:
                    block.addmm_(part.t(), part)
                else:
                    block.add_((part.t() @ part).to(block.device))

    def _keep(self, rows: torch.Tensor, aside: torch.Tensor) -> None:
        """Keep every ``stride``-th of the tokens aside; of too many every second one goes."""
        numbers = torch.arange(len(aside)) + self._seen_aside
        self._seen_aside += len(aside)
        wanted = aside[numbers % self._stride == 0]
        if len(wanted):
            self._aside.append(rows[wanted.to(rows.device)].to("cpu"))
        while sum(map(len, self._aside)) > MOST_ASIDE:
            self._aside = [torch.cat(self._aside)[::2]]
            self._stride *= 2

    @property
    def is_finite(self) -> bool:
        """Whether every number was finite."""
        return math.isfinite(self._amax.item()) and math.isfinite(self._squares.item())

    @property
    def range(self) -> Range:
        """Of all tokens, those kept aside too."""
        rms = math.sqrt(self._squares.item() / (self._tokens * self._width))
        return Range(self._amax.item(), rms, self._tokens)

    def parts(self, name: str) -> Iterator[tuple[TensorInfo, Callable[[], torch.Tensor]]]:
        """The Gram matrix over the tokens in it, and the tokens kept aside, in the dtype they came in."""
        gram = torch.zeros(self._width, 0) if self._gram is None else self._gram
        held = torch.cat(self._aside) if self._aside else torch.zeros(0, self._width)
        yield TensorInfo(f"{name}.{GRAM}", gram.dtype, tuple(gram.shape)), lambda: gram / max(1, self.counted)
        yield TensorInfo(f"{name}.{HELD}", held.dtype, tuple(held.shape)), lambda: held
