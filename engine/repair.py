"""What rounding to 4 bits takes from a LoRA, and the repair: it is driven until it arrives.

To the nearest of so few codes a weight with many numbers near zero can lose a quarter of a LoRA of 1 %. The gain g is
measured on the codes, and weight + a * delta is rounded with a += 1 - g, at most twice and only where g is too small.
Nothing random is added: 75 % kept become 98 % at the same weight error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from .blueprint import Fate
from .codes import Format
from .fuse import add_rows
from .gemm import Workspace
from .rows import Put, RowBlocks, quantize_blocks
from .terms import AnyTerm, Term, is_as_trained

ENOUGH = 0.98  # of a LoRA
ROUNDS = 2
STEPS = 256  # of a factor: every memory mode finds the same one


class Gains:
    """The gain of each term in one weight, from all of its rows; blocks of rows come in any order."""

    def __init__(self, terms: Sequence[AnyTerm], workspace: Workspace) -> None:
        self._terms, self._workspace = terms, workspace
        self._sums: list[torch.Tensor] = []

    def add(self, rows: slice, base: torch.Tensor, stored: torch.Tensor) -> None:
        """Count the rows ``rows``: what the sum starts from there, and what a loader reads; [rows, in]."""
        take, device = self._workspace.take, base.device
        deltas = take((len(self._terms), *stored.shape), device, slot="all deltas").zero_()
        error = take(stored.shape, device, slot="lost").copy_(stored).sub_(base)
        for term, delta in zip(self._terms, deltas, strict=True):
            error.sub_(add_rows(delta, rows, [term]))
        aligned = torch.stack([torch.linalg.vecdot(error, delta).double().sum() for delta in deltas])
        energy = torch.stack([torch.linalg.vecdot(delta, delta).double().sum() for delta in deltas])
        self._sums.append(torch.stack([aligned, energy]))

    def values(self) -> list[float]:
        """1 for a LoRA that is there in full, or that has nothing here."""
        aligned, energy = torch.stack(self._sums).sum(0).tolist()
        return [1.0 + a / e if e > 0 else 1.0 for a, e in zip(aligned, energy, strict=True)]


def settled(terms: Sequence[AnyTerm], attempt: Callable[[Sequence[AnyTerm]], list[float]]) -> list[float]:
    """The factor each term is driven by; ``attempt`` rounds with terms and tells what the codes have of each.

    The last attempt was the one with these factors.
    """
    factors = [1.0] * len(terms)
    for left in range(ROUNDS, -1, -1):
        gains = attempt([driven(term, factor) for term, factor in zip(terms, factors, strict=True)])
        more = [round((1.0 - gain) * STEPS) / STEPS if gain < ENOUGH else 0.0 for gain in gains]
        if not left or not any(more):
            break
        factors = [factor + step for factor, step in zip(factors, more, strict=True)]
    return factors


def driven(term: AnyTerm, factor: float) -> AnyTerm:
    """The term times a factor."""
    if factor == 1.0:
        return term
    if isinstance(term, Term):
        return replace(term, products=tuple(replace(each, scale=each.scale * factor) for each in term.products))
    return replace(term, strength=term.strength * factor)


def quantized(
    fate: Fate,
    format: Format,
    terms: Sequence[AnyTerm],
    sum_of: Callable[[Sequence[AnyTerm]], tuple[RowBlocks, torch.Tensor | None]],
    read: Callable[[slice], torch.Tensor],
    workspace: Workspace,
    out: torch.Tensor | None = None,
    put: Put | None = None,
) -> tuple[torch.Tensor, float]:
    """Round a sum to ``out``, or block by block to ``put``; (its scale, the largest factor a LoRA was driven by).

    ``terms`` are those of the fate's patches, ``sum_of`` the sum with such terms (see ``quantize_blocks``), ``read``
    what it starts from.
    """

    def attempt(wanted: Sequence[AnyTerm], gains: Gains | None, put: Put | None) -> torch.Tensor:
        def encode(rows: slice, block: torch.Tensor, scale: torch.Tensor) -> None:
            codes = format.encode(block, scale, None if out is None else out[rows])
            if gains is not None:
                gains.add(rows, read(rows).flatten(start_dim=1), format.decode(codes, scale))
            if put is not None:
                put(rows, codes)

        blocks, amax = sum_of(wanted)
        return quantize_blocks(blocks, format, fate.info.name, encode, amax)

    loose = [number for number, (layer, _) in enumerate(fate.patches) if not is_as_trained(layer)]
    if not format.coarse or not loose:
        return attempt(terms, None, put), 1.0
    found: list[tuple[Sequence[AnyTerm], torch.Tensor]] = []

    def told(some: Sequence[AnyTerm]) -> list[float]:
        changed = dict(zip(loose, some, strict=True))
        gains = Gains([terms[number] for number in loose], workspace)
        wanted = [changed.get(number, term) for number, term in enumerate(terms)]
        found.append((wanted, attempt(wanted, gains, None)))
        return gains.values()

    factors = settled([terms[number] for number in loose], told)
    wanted, scale = found[-1]
    return (scale if put is None else attempt(wanted, None, put)), max(factors)
