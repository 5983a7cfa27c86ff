"""What rounding to 4 bits takes from LoRAs, and the repair: they are driven until they arrive.

To the nearest of so few codes a weight with many numbers near zero can lose a quarter of a LoRA of 1 %. What the codes
lack is measured along all LoRAs together, so that LoRAs that are alike do not each make up for it, and both ways: where
only losses were made good, chance would make weak LoRAs stronger. weight + sum of a * delta is rounded again with the
better factors a, at most twice. Nothing random is added: 75 % kept become 98 % at the same weight error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from .blueprint import Fate
from .codes import Format
from .feedback import CHUNK, Guide
from .fuse import add_rows
from .gemm import Workspace, full_fp32
from .rows import Put, RowBlocks, gathered, quantize_blocks, row_ranges
from .terms import AnyTerm, Term, is_as_trained

Found = TypeVar("Found")
ENOUGH = 0.98  # of a LoRA; as much too much is too much
ROUNDS = 2
STEPS = 256  # of a factor: every memory mode finds the same one
FARTHEST = 2.0  # of a factor from 1; alike in both directions, so that chance favours none
ALIKE = 1e-3  # of the Gram matrix of deltas of length 1: directions with less are those of no LoRA


class Gains:
    """What a rounded weight lacks along each delta, from all of its rows; blocks of rows come in any order.

    ``held``: inputs [tokens, in] whose outputs are compared instead of the weights.
    """

    def __init__(self, terms: Sequence[AnyTerm], workspace: Workspace, held: torch.Tensor | None = None) -> None:
        self._terms, self._workspace, self._held = terms, workspace, held
        self._sums: list[torch.Tensor] = []

    def add(self, rows: slice, base: torch.Tensor, stored: torch.Tensor) -> None:
        """Count the rows ``rows``: what the sum starts from there, and what a loader reads; [rows, in]."""
        shape = (len(stored), len(self._terms) + 1, stored.shape[1])
        each = self._workspace.take(shape, base.device, slot="deltas and error").zero_()
        *deltas, error = each.unbind(1)
        error.copy_(stored).sub_(base)
        for term, delta in zip(self._terms, deltas, strict=True):
            error.sub_(add_rows(delta, rows, [term]))
        with full_fp32():
            each = each if self._held is None else each @ self._held.t()
            self._sums.append((each @ each.mT).double().sum(0))

    def missing(self) -> list[float]:
        """How much larger each factor should be for the error to have no part along any delta; 0 where that is little.

        All are 0 where every LoRA is there in full, and where numbers are too large to tell.
        """
        products = torch.stack(self._sums).sum(0)[:-1].to("cpu")
        gram, aligned = products[:, :-1], products[:, -1]
        energy = gram.diagonal()
        if not torch.isfinite(products).all() or not (aligned.abs() > (1.0 - ENOUGH) * energy).any():
            return [0.0] * len(aligned)
        size = torch.where(energy > 0, energy, 1.0).sqrt()
        solved = torch.linalg.pinv(gram / torch.outer(size, size), rtol=ALIKE, hermitian=True) @ (aligned / size)
        return [round(-each * STEPS) / STEPS for each in (solved / size).tolist()]


def loose(fate: Fate) -> list[int]:
    """The numbers of the fate's patches whose LoRAs are driven; none where its codes are fine enough."""
    if fate.format is None or not fate.format.coarse:
        return []
    return [number for number, (layer, _) in enumerate(fate.patches) if not is_as_trained(layer)]


def arrived(
    terms: Sequence[AnyTerm],
    numbers: Sequence[int],
    workspace: Workspace,
    attempt: Callable[[Sequence[AnyTerm], Gains], Found],
    held: torch.Tensor | None = None,
) -> tuple[Sequence[AnyTerm], Found, float]:
    """(terms with which LoRAs arrive, what ``attempt`` gave with them, the factor that is farthest from 1).

    ``numbers`` are those of the terms that may be driven. ``attempt`` rounds with terms and adds all rows to ``Gains``;
    its last call is the one that counts. ``held``: see ``Gains``.
    """
    factors = dict.fromkeys(numbers, 1.0)
    for left in range(ROUNDS, -1, -1):
        gains = Gains([terms[number] for number in numbers], workspace, held)
        wanted = [driven(term, factors.get(number, 1.0)) for number, term in enumerate(terms)]
        found = attempt(wanted, gains)
        pairs = zip(factors.items(), gains.missing(), strict=True)
        better = {number: min(1 + FARTHEST, max(1 - FARTHEST, factor + more)) for (number, factor), more in pairs}
        if not left or better == factors:
            break
        factors = better
    return wanted, found, max(factors.values(), key=lambda factor: abs(factor - 1.0))


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
    guide: Guide | None = None,
) -> tuple[torch.Tensor, float]:
    """Round a sum to ``out``, or block by block to ``put``; (its scale, how far LoRAs were driven).

    ``terms`` are those of the fate's patches, ``sum_of`` the sum with such terms (see ``quantize_blocks``), ``read``
    what it starts from. ``guide``: its inputs are known.
    """

    def attempt(wanted: Sequence[AnyTerm], gains: Gains | None) -> torch.Tensor:
        def encode(rows: slice, block: torch.Tensor, scale: torch.Tensor) -> object:
            block = block if guide is None else guide.feedback.adjust(block, scale, workspace)
            codes = format.encode(block, scale, None if out is None else out[rows])
            if gains is None:
                return None if put is None else put(rows, codes)
            for part in row_ranges(block.shape):
                place = slice(rows.start + part.start, rows.start + part.stop)
                stored = format.decode(codes[part], scale[part] if scale.ndim else scale)
                gains.add(place, read(place).flatten(start_dim=1), stored)
            return None

        blocks, amax = sum_of(wanted)
        blocks = blocks if guide is None else gathered(blocks, fate.info.shape, CHUNK)
        return quantize_blocks(blocks, format, fate.info, encode, amax)

    numbers = loose(fate)
    if not numbers:
        return attempt(terms, None), 1.0
    held = None if guide is None else guide.held
    wanted, scale, factor = arrived(terms, numbers, workspace, attempt, held)
    return (scale if put is None else attempt(wanted, None)), factor
