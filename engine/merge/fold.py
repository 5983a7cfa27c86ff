"""A merged module as a file holds it: scales folded into ``up``, ranks in an order their numbers decide, one dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .. import gemm
from ..gemm import Product
from ..texts.say import refuse
from .deltas import Delta, Shape, full_delta
from .exact import as_bytes

# What an exact merge loses at most in each dtype, relative: rounding of every up, the down exact.
EXACT_WITHIN = {torch.float32: 1e-6, torch.float16: 2.2e-4, torch.bfloat16: 1.7e-3}


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

    Scales go into ``up`` and alpha is the rank. In 16 bits a scale that all share up to powers of two goes into alpha,
    so that such factors keep every bit. Ranks are sorted by their numbers unless they are ``in_order``. Raises
    FoundryError LF503 for numbers that the dtype cannot hold, LF502 for a sum that is not finite.
    """
    if dtype not in EXACT_WITHIN:
        raise ValueError(f"a LoRA is not stored in {dtype}")
    stored = _factors(delta, dtype, in_order) if delta.is_low_rank else _whole(delta, dtype)
    if not math.isfinite(stored.lost):
        raise refuse("LF503.range", dtype=str(dtype).removeprefix("torch."))
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


def _factors(delta: Delta, dtype: torch.dtype, in_order: bool) -> Stored:
    rows, rank = delta.size[0], delta.rank
    common = 1.0 if dtype == torch.float32 else _common(delta.products)
    ups = [product.up.to(torch.float64) * product.scale for product in delta.products]
    downs = [product.down.to(torch.float64) for product in delta.products]
    up, down = torch.cat(ups, 1), torch.cat(downs, 0)
    if not in_order:
        order = _by_content(up, down)
        up, down = up[:, order], down[order]
    kept_up, kept_down = (up / common).to(dtype), down.to(dtype)
    lost = _between(up, down, kept_up.double().mul_(common), kept_down.double())
    ones = (1,) * (len(delta.shape) - 2)
    shaped = kept_up.reshape(rows, rank, *ones), kept_down.reshape(rank, *delta.shape[1:])
    return Stored(delta.shape, *shaped, alpha=common * rank, lost=lost)


def _common(products: Sequence[Product]) -> float:
    """The number from 1 to 2 that, times powers of two, is the scale of the products with the most energy together."""
    energy: dict[float, float] = {}
    for product in products:
        up, down = (float(factor.to(torch.float32).square().sum()) for factor in (product.up, product.down))
        mantissa = 2 * abs(math.frexp(product.scale)[0])
        energy[mantissa] = energy.get(mantissa, 0.0) + product.scale**2 * up * down / max(1, product.rank)
    energy.pop(0.0, None)
    return min(energy, key=lambda mantissa: (-energy[mantissa], mantissa), default=1.0)


def _by_content(up: torch.Tensor, down: torch.Tensor) -> list[int]:
    """The order of the ranks by their numbers; those alike in a few are told apart by all."""
    beginnings = torch.cat([down[:, :8], up[:8].T], 1)
    keys = [as_bytes(beginning) for beginning in beginnings]
    if len(set(keys)) < len(keys):
        keys = [as_bytes(numbers) for numbers in torch.cat([down, up.T], 1)]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _between(up: torch.Tensor, down: torch.Tensor, kept_up: torch.Tensor, kept_down: torch.Tensor) -> float:
    """|up @ down - kept_up @ kept_down|^2, from the differences of the factors: nothing cancels."""
    with gemm.full_fp32():
        left, right = (up - kept_up).float(), (down - kept_down).float()
        if not right.any():
            return _energy(left, down.float()) if left.any() else 0.0
        return _energy(torch.cat([left, kept_up.float()], 1), torch.cat([down.float(), right], 0))


def _energy(up: torch.Tensor, down: torch.Tensor) -> float:
    return float(((up.T @ up).double() * (down @ down.T).double()).sum())
