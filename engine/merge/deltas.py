"""What one LoRA adds to one weight, as factors: nothing of full size is formed unless the adapter itself is one.

LoHa and LoKr are products of low rank too, without an SVD: the row-wise Khatri-Rao product of two ups times the
column-wise one of their downs, and kron(w1, a @ b) = kron(w1, a) @ kron(1, b).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from einops import rearrange

from .. import gemm
from ..adapters import BLOCK, LORA, MAGNITUDE, NOT_READ, SET, delta_rows, kind_of, needs_weight, scale_of
from ..dense import Index, Parts, as_rows, folded, matrix
from ..gemm import Product
from ..low_rank import lora_factors
from ..plan import Adapter
from ..tensors import TensorInfo
from ..terms import Dense, Term, named
from ..texts.say import refuse

Shape = tuple[int, ...]
Pair = tuple[torch.Tensor, torch.Tensor]  # up [rows, r], down [r, columns]


@dataclass(frozen=True, eq=False)
class Delta:
    """What is added to one weight: the sum of ``products`` and of ``dense``, which is made row by row when needed.

    ``shape`` is the weight's: (out, in), (out, in, kh, kw), or (n,) of a norm or a bias; everything else looks at it as
    [rows, columns], [out, in * kh * kw] and [n, 1]. ``replaces``, [rows, columns], takes the weight's place first.
    """

    shape: Shape
    products: tuple[Product, ...] = ()
    dense: tuple[Dense, ...] = ()
    replaces: torch.Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.shape[0], math.prod(self.shape[1:])

    @property
    def rank(self) -> int:
        """The ranks of all products together."""
        return sum(product.rank for product in self.products)

    @property
    def is_low_rank(self) -> bool:
        """Whether it is a sum of products and nothing else."""
        return not self.dense and self.replaces is None

    @property
    def terms(self) -> tuple[Term | Dense, ...]:
        """All but ``replaces``, as the engine's sums take it."""
        return (*((Term(self.products),) if self.products else ()), *self.dense)

    def times(self, weight: float) -> Delta:
        """The same, ``weight`` times as strong; what replaces a weight does so at any strength, as in the bake."""
        products = (replace(product, scale=product.scale * weight) for product in self.products)
        dense = (replace(each, strength=each.strength * weight) for each in self.dense)
        return replace(self, products=tuple(products), dense=tuple(dense))

    def rows(self, rows: slice) -> torch.Tensor:
        """Some rows without ``replaces``, in float64 [n, columns]."""
        total = torch.zeros(len(range(*rows.indices(self.size[0]))), self.size[1], dtype=torch.float64)
        with gemm.full_fp32():
            for term in self.terms:
                total += term.delta(rows, torch.float32)
        return total

    def blocks(self) -> Iterator[slice]:
        """All rows, as many at a time as are to be made together."""
        height, width = self.size
        step = max(1, BLOCK // max(1, width))
        return (slice(first, min(first + step, height)) for first in range(0, height, step))

    def part(self, first: int, count: int) -> Delta:
        """The rows ``first`` to ``first + count``, as the delta of a weight that has only these."""
        products = (replace(product, up=product.up[first : first + count]) for product in self.products)
        dense = (_shifted(each, slice(first, first + count)) for each in self.dense)
        replaces = None if self.replaces is None else self.replaces[first : first + count]
        return Delta((count, *self.shape[1:]), tuple(products), tuple(dense), replaces)

    def within(self, shape: Shape, first: int) -> Delta:
        """The delta of a larger weight of ``shape``, whose rows from ``first`` on this one changes."""
        before, after = first, shape[0] - first - self.size[0]
        products = (
            replace(product, up=torch.nn.functional.pad(product.up, (0, 0, before, after))) for product in self.products
        )
        if self.replaces is not None:
            raise refuse("LF502.part_set", rows=self.size[0], all=shape[0])
        return Delta(shape, tuple(products), tuple(_padded(each, shape[0], first) for each in self.dense))


def _shifted(dense: Dense, rows: slice) -> Dense:
    numbers = torch.arange(rows.start, rows.stop)
    return replace(dense, make=lambda index: dense.make(numbers[index]), height=len(numbers))


def _padded(dense: Dense, height: int, first: int) -> Dense:
    place = torch.full((height,), -1)
    place[first : first + dense.height] = torch.arange(dense.height)

    def make(index: Index) -> torch.Tensor:
        wanted = place[index]
        made = dense.make(wanted.clamp(min=0))
        return made * (wanted >= 0)[:, None]

    return replace(dense, make=make, height=height)


def delta_of(adapter: Adapter, parts: Parts, weight: torch.Tensor | None = None) -> Delta:
    """What an adapter adds at strength 1, its alpha counted.

    ``parts`` are the tensors of ``adapter.parts`` as stored; ``weight`` is the base weight, of the adapter's shape and
    of any dtype. Kinds that depend on it (DoRA, OFT, BOFT, GLoRA, a whole weight that is set) raise FoundryError LF502
    without one; with one they are the difference to it. A norm or bias that is set stays what it is.
    """
    kind_of(adapter)
    shape = adapter.delta_shape
    if adapter.kind == SET and len(shape) == 1:
        return Delta(shape, replaces=as_rows(parts["set"]))
    if needs_weight(adapter) and weight is None:
        raise refuse("LF502.base", module=adapter.module, kind=named(adapter))
    if (pair := _factors(adapter, parts)) is not None:
        return Delta(shape, (Product(*pair, scale_of(adapter)),))
    here = torch.empty(shape, device="meta") if weight is None else weight
    flat = as_rows(here)
    with gemm.full_fp32():
        return Delta(shape, dense=(Dense(delta_rows(adapter, parts, flat), flat.shape[0], 1.0),))


def full_delta(shape: Shape, rows: torch.Tensor) -> Delta:
    """The delta that is the matrix ``rows`` [rows, columns]."""
    return Delta(shape, dense=(Dense(lambda index: rows[index].to(torch.float32), rows.shape[0], 1.0),))


def rank_of(adapter: Adapter, tensors: Mapping[str, TensorInfo]) -> int | None:
    """The rank of what ``delta_of`` gives, from the header of the adapter's file alone; None where it is no product."""
    kind_of(adapter)
    stored = {part: tensors[name] for part, name in adapter.parts if part not in NOT_READ}
    pair = _factors(adapter, {part: torch.empty(each.shape, device="meta") for part, each in stored.items()})
    return None if pair is None else pair[1].shape[0]


def _factors(adapter: Adapter, parts: Parts) -> Pair | None:
    """Up and down without their scale; None where there are none, or where they are no smaller than what they make."""
    make = FACTORED.get(adapter.kind)
    if make is None or MAGNITUDE in dict(adapter.parts):
        return None
    pair, (rows, columns) = make(parts), (adapter.delta_shape[0], math.prod(adapter.delta_shape[1:]))
    if pair is not None and (pair[0].shape[0], pair[1].shape[1]) != (rows, columns):
        raise refuse(
            "LF304.size", rows=pair[0].shape[0], columns=pair[1].shape[1], weight_rows=rows, weight_columns=columns
        )
    return pair


def pays(rank: int, rows: int, columns: int) -> bool:
    """Whether factors of this rank hold fewer numbers than what they make."""
    return rank * (rows + columns) < rows * columns


def _lora(parts: Parts) -> Pair:
    return lora_factors(parts)


def _loha(parts: Parts) -> Pair | None:
    (up1, down1), (up2, down2) = (_half(parts, f"w{number}", f"t{number}") for number in "12")
    if not pays(up1.shape[1] * up2.shape[1], up1.shape[0], down1.shape[1]):
        return None
    up = rearrange(up1[:, :, None] * up2[:, None, :], "row one two -> row (one two)")
    return up, rearrange(down1[:, None, :] * down2[None, :, :], "one two column -> (one two) column")


def _lokr(parts: Parts) -> Pair | None:
    """The Kronecker product of two factors, each split where that is narrower than its identity."""
    (up1, down1), (up2, down2) = _narrowest(parts, "w1", ""), _narrowest(parts, "w2", "t2")
    rank, rows, columns = up1.shape[1] * up2.shape[1], up1.shape[0] * up2.shape[0], down1.shape[1] * down2.shape[1]
    return (_kron(up1, up2), _kron(down1, down2)) if pays(rank, rows, columns) else None


def _kron(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.kron(left.contiguous(), right.contiguous())


def _narrowest(parts: Parts, name: str, core: str) -> Pair:
    if name in parts:
        return _beside_one(matrix(parts[name]))
    up, down = _half(parts, name, core)
    return (up, down) if up.shape[1] <= min(up.shape[0], down.shape[1]) else _beside_one(up @ down)


def _beside_one(whole: torch.Tensor) -> Pair:
    """A matrix as a product of itself and the identity on its narrower side."""
    rows, columns = whole.shape
    one = torch.eye(min(rows, columns), device=whole.device)
    return (whole, one) if columns <= rows else (one, whole)


def _half(parts: Parts, name: str, core: str) -> Pair:
    """One split factor as up and down; with a core the outer one is stored as [r, out]."""
    outer, inner = matrix(parts[f"{name}_a"]), matrix(parts[f"{name}_b"])
    return (outer.T, folded(parts[core], inner)) if core in parts else (outer, inner)


FACTORED: Mapping[str, Callable[[Parts], Pair | None]] = {LORA: _lora, "loha": _loha, "lokr": _lokr}
