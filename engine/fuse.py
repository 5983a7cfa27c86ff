"""Base weight + the sum of all LoRA deltas, added in fp32 by one GEMM over the concatenated ranks.

delta = strength * (alpha / rank) * up @ down, with up [out, rank] and down [rank, in * kh * kw].
Results in bf16 come from bf16 matrix units where gemm.py says they are as good; all else from fp32 row blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import torch

from . import gemm
from .errors import FoundryError
from .gemm import Product
from .gemm import Workspace as Workspace
from .plan import FUSE, MATCH_TRAINING, Layer, Patch

TRAINING_DTYPE = torch.bfloat16
WHOLE = slice(None)
BLOCK = 3 << 18  # elements of a row block: 3 MB of fp32


@dataclass(frozen=True)
class Term:
    """One delta and where it lands, or all deltas of one place: their sum.

    ``products`` are as stored; ``up`` [rows, ranks] and ``down`` [ranks, columns] are fp32 and carry the scale in up.
    """

    products: tuple[Product, ...]
    rows: slice = field(default_factory=lambda: WHOLE)
    columns: slice = field(default_factory=lambda: WHOLE)

    @property
    def place(self) -> tuple[int | None, int | None, int | None, int | None]:
        """Where in the weight the delta lands; terms with one place share a GEMM."""
        return (self.rows.start, self.rows.stop, self.columns.start, self.columns.stop)

    @property
    def span(self) -> tuple[int, int]:
        """First row touched, and the row after the last."""
        first = self.rows.start or 0
        return first, first + self.products[0].up.shape[0]

    @cached_property
    def up(self) -> torch.Tensor:
        """All scaled ups side by side, in fp32."""
        return torch.cat([product.scaled_up() for product in self.products], 1)

    @cached_property
    def down(self) -> torch.Tensor:
        """All downs below each other, in fp32."""
        return torch.cat([product.down.to(torch.float32) for product in self.products], 0)


def swap_scale_shift(rows: torch.Tensor) -> torch.Tensor:
    """Diffusers stores adaLN as (shift, scale), ComfyUI as (scale, shift): swap the two halves of dim 0."""
    shift, scale = rows.chunk(2, dim=0)
    return torch.cat([scale, shift], dim=0)


TRANSFORMS = {"swap_scale_shift": swap_scale_shift}


def read_factors(layer: Layer, patch: Patch) -> tuple[torch.Tensor, torch.Tensor]:
    """(up [out, rank], down [rank, in * kh * kw]) in the file's dtype, with the target's transform applied to up."""
    if layer.factors is None:
        raise FoundryError("plan", f"{layer.lora.name}: this plan was made without its file.", fix="Plan it again.")
    parts = dict(patch.adapter.parts)
    up = layer.factors.read(parts["up"]).flatten(start_dim=1)
    down = layer.factors.read(parts["down"]).flatten(start_dim=1)
    if patch.target.transform is not None:
        up = TRANSFORMS[patch.target.transform](up)
    return up, down


def placement(patch: Patch) -> tuple[slice, slice]:
    """Rows and columns of the flattened target that the patch touches."""
    if patch.target.slice is None:
        return WHOLE, WHOLE
    dim, start, length = patch.target.slice
    part = slice(start, start + length)
    return (part, WHOLE) if dim == 0 else (WHOLE, part)


def effective_scale(layer: Layer, patch: Patch) -> float:
    """strength * alpha / rank; the general (lora_A / lora_B) trainer of ``match training`` ignores alpha."""
    trained_without_alpha = is_as_trained(layer) and ".lora_B" in dict(patch.adapter.parts)["up"]
    return layer.strength * (1.0 if trained_without_alpha else patch.adapter.scale)


def make_term(layer: Layer, patch: Patch, device: torch.device | None = None) -> Term:
    """The patch as a term, its factors on ``device`` in the file's dtype."""
    up, down = (factor.to(device) for factor in read_factors(layer, patch))
    return Term((Product(up, down, effective_scale(layer, patch)),), *placement(patch))


def merge_terms(terms: Sequence[Term]) -> list[Term]:
    """Terms on the same rows and columns become one: ranks are concatenated, so their sum costs one GEMM."""
    places: dict[tuple[int | None, ...], list[Term]] = {}
    for term in terms:
        places.setdefault(term.place, []).append(term)
    return [
        Term(tuple(product for term in group for product in term.products), group[0].rows, group[0].columns)
        for group in places.values()
    ]


def add_as_trained(weight: torch.Tensor, layer: Layer, patch: Patch) -> None:
    """Add one delta in place the way the Lightning and general trainers do: product, scale and sum each in bf16.

    ``weight`` is [out, in * kh * kw] in bf16.
    """
    up, down = (factor.to(device=weight.device, dtype=TRAINING_DTYPE) for factor in read_factors(layer, patch))
    rows, columns = placement(patch)
    weight[rows, columns] = weight[rows, columns] + effective_scale(layer, patch) * torch.mm(up, down)


def is_as_trained(layer: Layer) -> bool:
    """Whether a layer is rounded the way training did instead of joining the one fp32 sum."""
    return layer.stage == FUSE and layer.rounding == MATCH_TRAINING


def canonical_key(pair: tuple[tuple[Layer, Patch], Term]) -> tuple[str, float, str]:
    """The order every additive sum is taken in, so that the order of listing changes not one bit."""
    (layer, patch), _ = pair
    return (*layer.order_key(), patch.adapter.module)


def start_and_terms(
    weight: torch.Tensor,
    pairs: Sequence[tuple[Layer, Patch]],
    terms: Sequence[Term],
    device: torch.device | None = None,
) -> tuple[torch.Tensor, list[Term]]:
    """(what the fp32 sum starts from as [out, in * kh * kw], the terms that join it, one per place).

    ``match training`` layers are already in the start, in listed order; ``terms[i]`` is ``make_term(*pairs[i])``.
    """
    start = weight.to(device).flatten(start_dim=1) if weight.ndim > 1 else weight.to(device)
    trained = [pair for pair in pairs if is_as_trained(pair[0])]
    if trained:
        start = start.to(TRAINING_DTYPE, copy=True)
        for layer, patch in trained:
            add_as_trained(start, layer, patch)
    additive = [(pair, term) for pair, term in zip(pairs, terms, strict=True) if not is_as_trained(pair[0])]
    return start, merge_terms([term for _, term in sorted(additive, key=canonical_key)])


def row_blocks(tensor: torch.Tensor) -> Iterator[slice]:
    """Rows that are worked on together: few enough that their fp32 sum stays in the core's cache; all on a GPU."""
    rows, columns = tensor.shape[0], max(1, tensor[:1].numel())
    step = max(1, BLOCK // columns) if tensor.device.type == "cpu" else max(1, rows)
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def fused_blocks(
    start: torch.Tensor, terms: Sequence[Term], workspace: Workspace
) -> Iterator[tuple[slice, torch.Tensor]]:
    """(rows, start + all terms there in fp32), block by block; the block is overwritten by the next one."""
    for rows in row_blocks(start):
        block = workspace.take(start[rows].shape, start.device, slot="block")
        fused_rows(start[rows], rows.start, terms, block)
        yield rows, block


def fused_rows(weight_rows: torch.Tensor, first_row: int, terms: Sequence[Term], out: torch.Tensor) -> None:
    """fp32 ``out`` = a weight's rows from ``first_row`` on, [rows, in * kh * kw], + what each term has there."""
    add_rows(out.copy_(weight_rows), slice(first_row, first_row + weight_rows.shape[0]), terms)


def add_rows(block: torch.Tensor, rows: slice, terms: Sequence[Term]) -> torch.Tensor:
    """Add to the fp32 ``block``, the rows ``rows`` of a weight, what each term has there."""
    for term in terms:
        offset, end = term.span
        first, stop = max(rows.start, offset), min(rows.stop, end)
        if first < stop:
            part = block[first - rows.start : stop - rows.start, term.columns]
            with gemm.full_fp32():
                part.addmm_(term.up[first - offset : stop - offset], term.down)
    return block


def fused_weight(
    weight: torch.Tensor,
    pairs: Sequence[tuple[Layer, Patch]],
    terms: Sequence[Term],
    device: torch.device | None = None,
    workspace: Workspace | None = None,
) -> torch.Tensor:
    """weight + all deltas in fp32, of the weight's shape; ``weight`` itself is never changed.

    The result is fresh memory, or with a ``workspace`` a buffer that its next user overwrites.
    """
    start, merged = start_and_terms(weight, pairs, terms, device)
    return _total(start, merged, workspace or Workspace()).reshape(weight.shape)


def _total(start: torch.Tensor, terms: Sequence[Term], workspace: Workspace) -> torch.Tensor:
    total = workspace.take(start.shape, start.device)
    for rows in row_blocks(start):
        fused_rows(start[rows], rows.start, terms, total[rows])
    return total


def fused_cast(
    weight: torch.Tensor,
    pairs: Sequence[tuple[Layer, Patch]],
    terms: Sequence[Term],
    out: torch.Tensor,
    workspace: Workspace,
) -> None:
    """weight + all deltas, rounded once into ``out``: the weight's shape, any dtype, where the maths runs."""
    start, merged = start_and_terms(weight, pairs, terms, out.device)
    flat = out.view(start.shape)
    if out.dtype != gemm.BF16 or not gemm.suits(start) or not _whole_rows(merged):
        _cast_blocks(start, merged, flat, workspace)
        return
    for rows, products in row_segments(start.shape[0], merged):
        stack = gemm.exact_stack(start[rows], products, workspace) if products else None
        if stack is None:
            _cast_blocks(start[rows], [Term(products)] if products else [], flat[rows], workspace)
        else:
            stack.add_to(start[rows], flat[rows])


def _cast_blocks(start: torch.Tensor, terms: Sequence[Term], out: torch.Tensor, workspace: Workspace) -> None:
    if not terms:
        out.copy_(start)
        return
    for rows, block in fused_blocks(start, terms, workspace):
        out[rows] = block


def _whole_rows(terms: Sequence[Term]) -> bool:
    return all(term.columns == WHOLE for term in terms)


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


class FusedSum:
    """weight + all deltas in fp32 for quantizing, block by block and as often as needed: the GEMM is done once.

    What is held is the delta in bf16 (2 bytes a weight; the sum itself is never rounded), or, where bf16 products are
    slow or the delta too strong for them, the fp32 sum (4 bytes); with ``passes`` = 1 not even that.
    """

    def __init__(self, start: torch.Tensor, terms: Sequence[Term], workspace: Workspace, passes: int = 2) -> None:
        """``start`` and ``terms`` as ``start_and_terms`` gives them."""
        self._start, self._terms, self._workspace = start, terms, workspace
        self._delta = _weak_delta(start, terms, workspace) if terms else None
        again = terms and self._delta is None and passes > 1 and start.device.type == "cpu"
        self._sum = _total(start, terms, workspace) if again else None

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """(rows, the sum there in fp32); the block is the caller's to change until the next one."""
        if self._sum is None and self._delta is None:
            yield from fused_blocks(self._start, self._terms, self._workspace)
            return
        source = self._start if self._sum is None else self._sum
        for rows in row_blocks(source):
            block = self._take(source[rows], "block")
            yield rows, block if self._delta is None else block.add_(self._take(self._delta[rows], "piece"))

    def _take(self, rows: torch.Tensor, slot: str) -> torch.Tensor:
        return self._workspace.take(rows.shape, rows.device, slot=slot).copy_(rows)


def _weak_delta(start: torch.Tensor, terms: Sequence[Term], workspace: Workspace) -> torch.Tensor | None:
    """All deltas in bf16, or None where fp32 has to do it."""
    if not gemm.suits(start) or not _whole_rows(terms):
        return None
    delta = workspace.take(start.shape, start.device, gemm.BF16, "delta")
    for rows, products in row_segments(start.shape[0], terms):
        if products:
            gemm.rounded_stack(products, workspace).write_to(delta[rows])
        else:
            delta[rows] = 0
    return delta if gemm.is_weak(delta, start) else None
