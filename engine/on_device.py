"""One weight's result on a GPU: sum, scale, codes, and what its measure is made of.

The host reads nothing of it, but where LoRAs are driven (see repair.py): there it waits for what the codes lack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import torch

from . import kernels
from .alike import Sums
from .blueprint import Fate
from .codes import Format, whole_scale
from .dense import as_rows
from .fuse import Pairs, add_rows, joining, largest, start_and_terms
from .gain import sampled_rows, sampled_sums
from .gemm import Workspace, full_fp32
from .repair import Gains, arrived, loose
from .terms import AnyTerm, Term, canonical_key

LOOKED_AT = 1 << 24  # numbers of all LoRAs in a block whose gains are looked at
BLOCK = 1 << 24  # numbers worked on together where a scale does not need all of a weight


def make_result(
    fate: Fate, weight: torch.Tensor, pairs: Pairs, terms: Sequence[AnyTerm], out: torch.Tensor, most: int,
    workspace: Workspace,
) -> tuple[torch.Tensor | None, torch.Tensor, float]:  # fmt: skip
    """Fill ``out`` with weight + deltas as ``fate`` wants it; (scale, vector for ``Unread``, how far LoRAs are driven).

    ``pairs`` are those of the fate, ``terms`` theirs, all on the weight's device. At most about ``most`` numbers are
    worked on at once; the sum of a weight with one scale is held whole where that allows it, else made twice.
    """
    start, merged = start_and_terms(weight, pairs, terms, weight.device)
    flat, driven, rows = as_rows(out), 1.0, sampled_rows(fate.info.shape)
    term = kernels.suited(start, merged, len(pairs), fate.format, flat)
    if term and (made := kernels.make(Sums(start, term.products), fate.format, flat[None], rows)):
        return (None if made[0] is None else made[0][0]), made[1][0], 1.0
    if fate.format is None:
        scale, flag = None, _round(start, merged, flat, most, workspace)
    elif numbers := loose(fate):
        scale, flag, driven = _driven(fate.format, start, pairs, terms, numbers, flat, most, workspace)
    else:
        scale, flag = _quantize(start, merged, fate.format, flat, most, workspace)
    every = slice(None, None, rows.step)
    base, stored = as_rows(weight)[every], flat[every]
    moved = (stored != base).any().double() if stored.dtype == base.dtype else _one(weight.device)
    if fate.format is not None and scale is not None:
        stored = fate.format.decode(stored, scale[every] if scale.ndim else scale)
    sums = _sums(fate, base, stored, rows, pairs, terms, merged, workspace)
    return scale, torch.cat([flag.double().view(1), moved.view(1), *sums]), driven


def _round(
    start: torch.Tensor, merged: Sequence[AnyTerm], out: torch.Tensor, most: int, workspace: Workspace
) -> torch.Tensor:
    """Write the sum, rounded once; a number that is finite when all of it is."""
    if merged:
        for rows, block in _blocks(start, merged, min(most, BLOCK), workspace):
            out[rows].copy_(block)
    else:
        out.copy_(start)
    return out.sum(dtype=torch.float32)


def _driven(
    format: Format, start: torch.Tensor, pairs: Pairs, terms: Sequence[AnyTerm], numbers: Sequence[int],
    out: torch.Tensor, most: int, workspace: Workspace,
) -> tuple[torch.Tensor, torch.Tensor, float]:  # fmt: skip
    """``_quantize`` with the LoRAs of these numbers driven until they arrive, and how far."""

    def attempt(wanted: Sequence[AnyTerm], gains: Gains) -> tuple[torch.Tensor, torch.Tensor]:
        scale, flag = _quantize(start, joining(pairs, wanted), format, out, most, workspace)
        step = max(1, LOOKED_AT // ((len(numbers) + 3) * start.shape[1]))
        for first in range(0, len(start), step):
            rows = slice(first, min(first + step, len(start)))
            gains.add(rows, start[rows], format.decode(out[rows], scale[rows]))
        return scale, flag

    _, found, factor = arrived(terms, numbers, workspace, attempt)
    return *found, factor


def _quantize(
    start: torch.Tensor, merged: Sequence[AnyTerm], format: Format, out: torch.Tensor, most: int, workspace: Workspace
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the codes; (scale as it is worked with, a number that is finite when the sum is)."""
    amax, blocks = None, _blocks(start, merged, min(most, BLOCK), workspace)
    if not format.row_scaled and start.numel() <= most:
        ((rows, block),) = _blocks(start, merged, most, workspace)
        amax, blocks = largest(block), iter(((rows, block),))
    elif not format.row_scaled:
        amax = torch.stack([largest(block) for _, block in _blocks(start, merged, most, workspace)]).amax()
        blocks = _blocks(start, merged, most, workspace)
    found = []
    for rows, block in blocks:
        prepared = format.prepare(block)
        found.append(format.scales(prepared, amax))
        format.encode(prepared, found[-1], out=out[rows])
    scale = whole_scale(found)
    return scale, scale.sum() if amax is None else amax


def _blocks(
    start: torch.Tensor, merged: Sequence[AnyTerm], most: int, workspace: Workspace
) -> Iterator[tuple[slice, torch.Tensor]]:
    """(rows, the fp32 sum there) in blocks of at most ``most`` numbers; a block is overwritten by the next one."""
    height, columns = start.shape
    step = max(1, most // max(1, columns))
    for first in range(0, height, step):
        rows = slice(first, min(first + step, height))
        block = workspace.take((rows.stop - first, columns), start.device).copy_(start[rows])
        yield rows, add_rows(block, rows, merged)


def _sums(
    fate: Fate, base: torch.Tensor, stored: torch.Tensor, rows: range, pairs: Pairs, terms: Sequence[AnyTerm],
    merged: Sequence[AnyTerm], workspace: Workspace,
) -> Sequence[torch.Tensor]:  # fmt: skip
    """<e, e>, <exact, exact>, and for each LoRA in canonical order <e, d>, <d, d> and <ed, ed>, of sampled rows."""
    term = merged[0] if len(merged) == 1 else None
    if isinstance(term, Term) and term.place.is_whole and len(term.products) == len(pairs):
        return _sums_of_products(base, stored, rows, term, workspace)
    ordered = sorted(zip(pairs, terms, strict=True), key=lambda each: canonical_key(each[0]))
    return (sampled_sums(base, stored, rows, [term for _, term in ordered], workspace),)


def _sums_of_products(
    base: torch.Tensor, stored: torch.Tensor, rows: range, term: Term, workspace: Workspace
) -> Sequence[torch.Tensor]:
    """The same for products on the whole weight: all deltas in one multiplication, all squares in one sum."""
    count, shape, device = len(term.products), base.shape, base.device
    each = workspace.take((2 + 2 * count, base.numel()), device, torch.float64, "products")
    error, exact, deltas, both = each[:1], each[1:2], each[2 : 2 + count], each[2 + count :]
    up = term.up[rows.start :: rows.step] * _mask(tuple(product.rank for product in term.products), device)[:, None]
    with full_fp32():
        deltas.copy_(torch.mm(up.flatten(0, 1), term.down).view(deltas.shape))
    torch.sum(deltas, 0, keepdim=True, out=exact).view(shape).add_(base)
    torch.sub(stored, exact.view(shape), out=error.view(shape))
    torch.mul(deltas, error, out=both)
    squares = torch.linalg.vector_norm(each, dim=1).square_()
    ours = torch.stack([both.sum(1), *squares[2:].view(2, count)], 1)
    return squares[:2], ours.flatten()


@cache
def _one(device: torch.device) -> torch.Tensor:
    return torch.ones((), dtype=torch.float64, device=device)


@cache
def _mask(ranks: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """[products, ranks]: 1 where a rank belongs to a product."""
    mask = torch.zeros(len(ranks), sum(ranks), device=device)
    at = 0
    for number, rank in enumerate(ranks):
        mask[number, at : at + rank] = 1.0
        at += rank
    return mask
