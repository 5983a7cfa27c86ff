"""Base weight + the sum of all LoRA deltas, added in fp32: one GEMM over the concatenated ranks, and dense deltas.

Results in bf16 come from bf16 matrix units where gemm.py says they are as good; all else from fp32 row blocks.

All layers of a stage see the same weight: the fuse stage the base, the stack stage the fused base. Only some kinds look
at it; for plain LoRAs the two stages are one sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import TypeGuard

import torch

from . import gemm
from .adapters import SET, needs_weight
from .dense import as_rows
from .gemm import Product, Workspace
from .plan import FUSE, Layer, Patch
from .terms import (
    WHOLE,
    AnyTerm,
    Term,
    canonical_key,
    effective_scale,
    is_as_trained,
    make_term,
    merge_terms,
    placement,
    read_factors,
    refuse_untrained,
)
from .texts.say import refuse

TRAINING_DTYPE = torch.bfloat16
BLOCK = 3 << 18  # elements of a row block: 3 MB of fp32
DEVICE_BLOCK = 1 << 24  # the same on a GPU, where only memory counts
LEAST_ROWS = 64  # of a block: with fewer, a product spends its time on arranging its second factor
Pairs = Sequence[tuple[Layer, Patch]]


def any_needs_weight(pairs: Pairs) -> bool:
    """Whether the delta of one of these depends on the values of the weight."""
    return any(needs_weight(patch.adapter) for _, patch in pairs)


def make_terms(weight: torch.Tensor | None, pairs: Pairs, device: torch.device | None = None) -> list[AnyTerm]:
    """One term for each pair, in order. ``weight`` is the whole base weight; None where no pair needs its values.

    Kinds of the stack stage that look at the weight get base + fuse stage, in fp32: a second weight in memory for as
    long as the terms live.
    """
    refuse_two_sets(pairs)
    if weight is None or not any_needs_weight(pairs):
        return [make_term(*pair, device) for pair in pairs]
    base = as_rows(weight.to(device))
    fuse = [pair for pair in pairs if pair[0].stage == FUSE]
    below = [make_term(*pair, device, base) for pair in fuse]
    on_top = [pair for pair in pairs if pair[0].stage != FUSE]
    fused = fused_weight(base, fuse, below, device) if fuse and any_needs_weight(on_top) else base
    ready = iter(below)
    return [next(ready) if pair[0].stage == FUSE else make_term(*pair, device, fused) for pair in pairs]


def refuse_two_sets(pairs: Pairs) -> None:
    """FoundryError LF304 where two adapters of one stage replace the same numbers."""
    sets = [pair for pair in pairs if pair[1].adapter.kind == SET]
    for (one, patch), (other, again) in combinations(sets, 2):
        if one.stage == other.stage and _overlap(patch, again):
            raise refuse("LF304.two_sets", one=one.lora.name, other=other.lora.name, weight=patch.target.weight)


def _overlap(one: Patch, other: Patch) -> bool:
    """Whether two targets share rows and columns."""
    for mine, theirs in zip(placement(one), placement(other), strict=True):
        if WHOLE not in (mine, theirs) and (mine.stop <= theirs.start or theirs.stop <= mine.start):
            return False
    return True


def add_as_trained(weight: torch.Tensor, layer: Layer, patch: Patch) -> None:
    """Add one delta in place the way the Lightning and general trainers do: product, scale and sum each in bf16.

    ``weight`` is [out, in * kh * kw] in bf16.
    """
    refuse_untrained(layer, patch)
    up, down = (factor.to(device=weight.device, dtype=TRAINING_DTYPE) for factor in read_factors(layer, patch))
    rows, columns = placement(patch)
    weight[rows, columns] = weight[rows, columns] + effective_scale(layer, patch) * torch.mm(up, down)


def start_and_terms(
    weight: torch.Tensor,
    pairs: Pairs,
    terms: Sequence[AnyTerm],
    device: torch.device | None = None,
) -> tuple[torch.Tensor, list[AnyTerm]]:
    """(what the fp32 sum starts from as [out, in * kh * kw], the terms that join it, one per place).

    ``match training`` layers are already in the start, in listed order; ``terms`` are those of ``pairs``.
    """
    start = as_rows(weight.to(device))
    trained = [pair for pair in pairs if is_as_trained(pair[0])]
    if trained:
        start = start.to(TRAINING_DTYPE, copy=True)
        for layer, patch in trained:
            add_as_trained(start, layer, patch)
    return start, joining(pairs, terms)


def joining(pairs: Pairs, terms: Sequence[AnyTerm]) -> list[AnyTerm]:
    """The terms that join the fp32 sum, in canonical order and one per place; ``terms`` are those of ``pairs``."""
    additive = [(pair, term) for pair, term in zip(pairs, terms, strict=True) if not is_as_trained(pair[0])]
    return merge_terms([term for _, term in sorted(additive, key=lambda each: canonical_key(each[0]))])


def row_blocks(tensor: torch.Tensor) -> Iterator[slice]:
    """Rows that are worked on together: few enough that their fp32 sum stays in the core's cache."""
    rows = tensor.shape[0]
    columns = max(1, tensor.numel() // max(1, rows))
    step = max(LEAST_ROWS, BLOCK // columns) if tensor.device.type == "cpu" else max(1, DEVICE_BLOCK // columns)
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))


def fused_blocks(
    start: torch.Tensor, terms: Sequence[AnyTerm], workspace: Workspace
) -> Iterator[tuple[slice, torch.Tensor]]:
    """(rows, start + all terms there in fp32), block by block; the block is overwritten by the next one."""
    for rows in row_blocks(start):
        block = workspace.take(start[rows].shape, start.device, slot="block")
        fused_rows(start[rows], rows.start, terms, block)
        yield rows, block


def fused_rows(weight_rows: torch.Tensor, first_row: int, terms: Sequence[AnyTerm], out: torch.Tensor) -> None:
    """fp32 ``out`` = a weight's rows from ``first_row`` on, [rows, in * kh * kw], + what each term has there."""
    add_rows(out.copy_(weight_rows), slice(first_row, first_row + weight_rows.shape[0]), terms)


def add_rows(block: torch.Tensor, rows: slice, terms: Sequence[AnyTerm]) -> torch.Tensor:
    """Add to the fp32 ``block``, the rows ``rows`` of a weight, what each term has there."""
    for term in terms:
        offset, end = term.span
        first, stop = max(rows.start, offset), min(rows.stop, end)
        if first < stop:
            part = block[first - rows.start : stop - rows.start, term.place.columns]
            term.add_to(part, slice(first - offset, stop - offset))
    return block


def fused_weight(
    weight: torch.Tensor,
    pairs: Pairs,
    terms: Sequence[AnyTerm],
    device: torch.device | None = None,
    workspace: Workspace | None = None,
) -> torch.Tensor:
    """weight + all deltas in fp32, of the weight's shape; ``weight`` itself is never changed.

    The result is fresh memory, or with a ``workspace`` a buffer that its next user overwrites.
    """
    start, merged = start_and_terms(weight, pairs, terms, device)
    return total(start, merged, workspace or Workspace()).reshape(weight.shape)


def total(start: torch.Tensor, terms: Sequence[AnyTerm], workspace: Workspace) -> torch.Tensor:
    """start + all terms in fp32, in workspace memory."""
    whole = workspace.take(start.shape, start.device)
    for rows in row_blocks(start):
        fused_rows(start[rows], rows.start, terms, whole[rows])
    return whole


def fused_cast(
    weight: torch.Tensor,
    pairs: Pairs,
    terms: Sequence[AnyTerm],
    out: torch.Tensor,
    workspace: Workspace,
) -> None:
    """weight + all deltas, rounded once into ``out``: the weight's shape, any dtype, where the maths runs."""
    start, merged = start_and_terms(weight, pairs, terms, out.device)
    flat = out.view(start.shape)
    if out.dtype != gemm.BF16 or not gemm.suits(start) or not low_rank(merged):
        _cast_blocks(start, merged, flat, workspace)
        return
    for rows, products in row_segments(start.shape[0], merged):
        joined = gemm.exact_products(start[rows], products, workspace) if products else None
        if joined is None:
            _cast_blocks(start[rows], [Term(products)] if products else [], flat[rows], workspace)
        else:
            joined.add_to(start[rows], flat[rows])


def _cast_blocks(start: torch.Tensor, terms: Sequence[AnyTerm], out: torch.Tensor, workspace: Workspace) -> None:
    if not terms:
        out.copy_(start)
        return
    for rows, block in fused_blocks(start, terms, workspace):
        out[rows] = block


def low_rank(terms: Sequence[AnyTerm]) -> TypeGuard[Sequence[Term]]:
    """Whether there are only products, on whole rows: what bf16 matrix units can do."""
    return all(isinstance(term, Term) and term.place.columns == WHOLE for term in terms)


def row_segments(rows: int, terms: Sequence[Term]) -> Iterator[tuple[slice, tuple[Product, ...]]]:
    """A weight of ``rows`` rows cut where terms begin and end: each part with all products there."""
    cuts = sorted({0, rows, *(edge for term in terms for edge in term.span)})
    for first, stop in pairwise(cuts):
        here = [term for term in terms if term.span[0] <= first and stop <= term.span[1]]
        yield (
            slice(first, stop),
            tuple(
                Product(product.up[first - term.span[0] : stop - term.span[0]], product.down, product.scale)
                for term in here
                for product in term.products
            ),
        )


def largest(tensor: torch.Tensor) -> torch.Tensor:
    """max |tensor| as an fp32 scalar; NaN stays NaN."""
    if tensor.is_cuda:  # in one launch
        amax: torch.Tensor = torch.linalg.vector_norm(tensor, torch.inf)
        return amax.to(torch.float32)
    low, high = torch.aminmax(tensor)
    return torch.maximum(low.abs(), high.abs()).to(torch.float32)


def largest_of_rows(tensor: torch.Tensor) -> torch.Tensor:
    """max |row| of an fp32 tensor [rows, in]; NaN stays NaN."""
    if tensor.is_cuda:  # in one launch
        amax: torch.Tensor = torch.linalg.vector_norm(tensor, torch.inf, dim=1)
        return amax
    return tensor.abs().amax(dim=1)
