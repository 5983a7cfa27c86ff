"""A merged module as a file holds it: scales folded into ``up``, ranks in an order their numbers decide, one dtype."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch

from .. import gemm
from ..gemm import Product
from ..texts.say import refuse
from .deltas import Delta, Shape, full_delta

# What rounding both factors costs at most, relative: those of a shrunk merge, and those that come in another dtype.
ROUNDED_WITHIN = {torch.float32: 1e-6, torch.float16: 3.5e-4, torch.bfloat16: 2.8e-3}
# What an exact merge may lose unless more is allowed. Rounding the up of bf16 factors costs 1.65e-3 of their norm, so
# that bf16 holds where at least 56 % of the energy keeps its bits (see ``fold_side``).
EXACT_WITHIN = {**ROUNDED_WITHIN, torch.bfloat16: 1.1e-3}


@dataclass(frozen=True, eq=False)
class Stored:
    """One module of the result. Either ``up`` and ``down`` with ``alpha``, or ``diff``, or ``replaces`` (a ``set``).

    ``up`` is [rows, rank] ([rows, rank, 1, 1] for a convolution), ``down`` [rank, in] ([rank, in, kh, kw]), the others
    have the weight's ``shape``. The delta is alpha / rank * up @ down. ``lost`` is the squared norm of what the dtype
    took away.
    """

    shape: Shape
    up: torch.Tensor | None = None
    down: torch.Tensor | None = None
    alpha: float = 0.0
    diff: torch.Tensor | None = None
    replaces: torch.Tensor | None = None
    lost: float = 0.0

    @property
    def rank(self) -> int | None:
        """The rank of the factors; None where it is no product."""
        return None if self.down is None else self.down.shape[0]

    def delta(self) -> Delta:
        """The same as a delta to be measured."""
        if self.up is not None and self.down is not None and self.down.shape[0]:
            rank = self.down.shape[0]
            return Delta(self.shape, (Product(self.up.flatten(1), self.down.flatten(1), self.alpha / rank),))
        if self.diff is not None:
            return full_delta(self.shape, self.diff.reshape(self.shape[0], -1))
        return Delta(self.shape, replaces=self.replaces)


def fold(delta: Delta, dtype: torch.dtype, in_order: bool = False) -> Stored:
    """A merged delta in ``dtype`` (float32, float16, bfloat16). Anything dense makes it a full difference.

    Ranks are sorted by their numbers unless they are ``in_order``. Raises FoundryError LF503 for numbers that the dtype
    cannot hold.
    """
    if not delta.is_low_rank:
        return _fits(_whole(delta, dtype))
    return fold_side(Side(delta.shape, delta.products), dtype, in_order)


class Side:
    """Products side by side, in fp32: ``up`` [rows, ranks] with their scales in it, ``down`` [ranks, columns].

    Both lie in ``workspace`` and are good until the next side is made in it.
    """

    def __init__(self, shape: Shape, products: Sequence[Product], workspace: gemm.Workspace | None = None) -> None:
        self.shape, self.products, self.workspace = shape, products, workspace or gemm.Workspace()
        ranks = [product.rank for product in products]
        self.ends = list(accumulate(ranks, initial=0))
        self.up = self.take((shape[0], self.ends[-1]), "up")
        self.down = self.take((self.ends[-1], math.prod(shape[1:])), "down")
        for product, first, stop in self:
            _times(self.up[:, first:stop].copy_(product.up), product.scale)
            self.down[first:stop] = product.down

    def __iter__(self) -> Iterator[tuple[Product, int, int]]:
        return ((product, *ends) for product, ends in zip(self.products, pairwise(self.ends), strict=True))

    def take(self, shape: Sequence[int], slot: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Memory of the workspace."""
        return self.workspace.take(shape, torch.device("cpu"), dtype, slot)

    def sorted(self, dtype: torch.dtype, common: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(up / common, down) in the order of the ranks, in memory of their own."""
        order = torch.tensor(self.order, dtype=torch.long)
        if dtype == torch.float32:
            return _divided(self.up.index_select(1, order), common), self.down.index_select(0, order)
        up = self.take(self.up.shape, "sorted up")
        torch.index_select(self.up, 1, order, out=up)  # before the cast: torch gathers fp32 five times as fast
        up = up if common == 1.0 else up.div_(common)
        return up.to(dtype), self._downs(dtype).index_select(0, order)

    def _downs(self, dtype: torch.dtype) -> torch.Tensor:
        """All downs below each other in ``dtype``."""
        if any(product.down.dtype != dtype for product in self.products):
            return self.down.to(dtype)
        found = self.take(self.down.shape, "downs", dtype)
        return torch.cat([product.down for product in self.products], out=found)

    @cached_property
    def grams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """up^T up and down down^T in float64, from fp32 products."""
        with gemm.full_fp32():
            return (self.up.T @ self.up).double(), (self.down @ self.down.T).double()

    @cached_property
    def order(self) -> list[int]:
        """The ranks sorted by their numbers; those alike in a few are told apart by all."""
        beginnings = torch.cat([self.down[:, :8], self.up[:8].T], 1).numpy()
        keys = [each.tobytes() for each in beginnings]
        if len(set(keys)) < len(keys):
            keys = [each.tobytes() for each in torch.cat([self.down, self.up.T], 1).numpy()]
        return sorted(range(len(keys)), key=keys.__getitem__)


def fold_side(side: Side, dtype: torch.dtype, in_order: bool = False) -> Stored:
    """Products as a file holds them: scales in ``up``, alpha the rank.

    In 16 bits a scale that the strongest share up to powers of two goes into alpha, so that they keep every bit.
    """
    if dtype not in EXACT_WITHIN:
        raise ValueError(f"a LoRA is not stored in {dtype}")
    rows, rank = side.shape[0], side.ends[-1]
    common = 1.0 if dtype == torch.float32 else _common(side)
    lost = _lost(side, dtype, common)
    up, down = (_divided(side.up, common).to(dtype), side.down.to(dtype)) if in_order else side.sorted(dtype, common)
    ones = (1,) * (len(side.shape) - 2)
    shaped = up.reshape(rows, rank, *ones), down.reshape(rank, *side.shape[1:])
    return _fits(Stored(side.shape, *shaped, alpha=common * rank, lost=lost))


def _divided(up: torch.Tensor, common: float) -> torch.Tensor:
    return up if common == 1.0 else up / common


def _fits(stored: Stored) -> Stored:
    if not math.isfinite(stored.lost):
        kept = next(each for each in (stored.up, stored.diff, stored.replaces) if each is not None)
        raise refuse("LF503.range", dtype=str(kept.dtype).removeprefix("torch."))
    return stored


def _whole(delta: Delta, dtype: torch.dtype) -> Stored:
    whole, lost = torch.empty(delta.size, dtype=dtype), 0.0
    for rows in delta.blocks():
        total = delta.rows(rows)
        if delta.replaces is not None:
            total += delta.replaces[rows]
        whole[rows] = total
        lost += float((whole[rows].double() - total).square_().sum())
    whole = whole.reshape(delta.shape)
    if delta.replaces is not None:
        return Stored(delta.shape, replaces=whole, lost=lost)
    return Stored(delta.shape, diff=whole, lost=lost)


def _common(side: Side) -> float:
    """The number from 1 to 2 that, times powers of two, is the scale of the products with the most energy together.

    Energies within 9 % count as equal, so that rounding decides nothing; of those it is the smallest number.
    """
    mantissas = [2 * abs(math.frexp(product.scale)[0]) for product in side.products]
    if len({*mantissas} - {0.0}) <= 1:
        return max(mantissas, default=0.0) or 1.0
    ranks = [mantissa for mantissa, (_, first, stop) in zip(mantissas, side, strict=True) for _ in range(first, stop)]
    owner, energies = torch.tensor(ranks, dtype=torch.float64), side.grams[0] * side.grams[1]
    size: dict[float, int] = {}
    for mantissa in {*mantissas} - {0.0}:
        mine = owner == mantissa  # all their ranks together, in how many products they may come
        energy = float(energies[mine][:, mine].sum())
        size[mantissa] = math.floor(8 * math.log2(energy)) if 0 < energy < math.inf else -(1 << 20)
    return min(size, key=lambda mantissa: (-size[mantissa], mantissa), default=1.0)


def _lost(side: Side, dtype: torch.dtype, common: float) -> float:
    """|stored - side|^2, from the differences of the factors: nothing cancels. What keeps its bits is not cast."""
    rounded = [(product, slice(*ends)) for product, *ends in side if not _is_kept(product, dtype, common)]
    left = _roundings(side, rounded, dtype, common)
    with gemm.full_fp32():
        if all(product.down.dtype == dtype for product in side.products):
            numbers = [rank for _, ranks in rounded for rank in range(ranks.start, ranks.stop)]
            return float((_gram(left) * side.grams[1][numbers][:, numbers]).sum()) if rounded else 0.0
        up, down = _divided(side.up, common).to(dtype).to(torch.float32), side.down.to(dtype).to(torch.float32)
        outer = torch.cat([left, up * common], 1)
        inner = torch.cat([*(side.down[ranks] for _, ranks in rounded), down - side.down])
        return float((_gram(outer) * _gram(inner.T)).sum())


def _gram(tall: torch.Tensor) -> torch.Tensor:
    return (tall.T @ tall).double()


def _is_kept(product: Product, dtype: torch.dtype, common: float) -> bool:
    """Whether an up keeps every bit: its scale is a power of two, and fp16 alone has too few of those."""
    power = abs(math.frexp(product.scale / common)[0]) == 0.5
    return power and dtype != torch.float16 and dtype in (product.up.dtype, torch.float32)


def _roundings(side: Side, rounded: Sequence[tuple[Product, slice]], dtype: torch.dtype, common: float) -> torch.Tensor:
    """stored - meant of the ups of these products, side by side in fp32, without the rounding of this difference."""
    sizes = [product.rank for product, _ in rounded]
    left = side.take((side.shape[0], sum(sizes)), "roundings")
    for (product, ranks), out in zip(rounded, torch.split(left, sizes, 1), strict=True):
        stored = side.take(out.shape, "rounded", dtype).copy_(_divided(side.up[:, ranks], common))
        ratio = product.scale / common
        if dtype == torch.float32:
            out.copy_(product.up.double().mul_(-product.scale).add_(stored))
        elif abs(math.frexp(ratio)[0]) == 0.5:
            _times(out.copy_(stored).sub_(product.up.to(torch.float32) * ratio), common)
        else:
            _times(out.copy_(stored), common).sub_(side.up[:, ranks])
    return left


def _times(numbers: torch.Tensor, factor: float) -> torch.Tensor:
    return numbers if factor == 1.0 else numbers.mul_(factor)
