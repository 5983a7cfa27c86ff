"""What a merge kept: error to the live stack, norm, and the share of every input, from r x r Gram matrices.

With factors, <u1 d1, u2 d2> = sum((u1^T u2) * (d1 d2^T)); no sum of deltas is ever formed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from .. import gemm
from ..gemm import Product
from .deltas import Delta
from .exact import exact, in_order
from .fold import Side, Stored, fold, fold_side
from .parts import Part

FINE = 0.03  # relative errors below this are worked out in float64: fp32 Gram matrices are blind below 3e-4


@dataclass(frozen=True, eq=False)
class Sums:
    """Inner products over some modules: of the inputs at their weights with each other and with the merged delta.

    ``gram`` [inputs, inputs] and ``cross`` [inputs] in float64; ``merged`` and ``difference`` are squared norms: of the
    merged delta, and of what it is off the stack. Where a LoRA replaces a weight, it is not known what that changes:
    ``set_size`` and ``set_difference`` are the squared norms of what replaces it, and of what is off that.
    """

    gram: torch.Tensor
    cross: torch.Tensor
    merged: float = 0.0
    difference: float = 0.0
    set_size: float = 0.0
    set_difference: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.gram + other.gram,
            self.cross + other.cross,
            self.merged + other.merged,
            self.difference + other.difference,
            self.set_size + other.set_size,
            self.set_difference + other.set_difference,
        )

    @property
    def stack(self) -> float:
        """The squared norm of the live stack: of the plain weighted sum."""
        return max(0.0, float(self.gram.sum()))

    @property
    def error(self) -> float:
        """|merged - stack| / |stack|; where the stack cancels to nothing, against its largest input."""
        largest = float(self.gram.diagonal().max()) if len(self.gram) else 0.0
        return max(
            _relative(self.difference, max(self.stack, 1e-12 * largest)),
            _relative(self.set_difference, self.set_size),
        )

    @property
    def norm_ratio(self) -> float:
        """|merged| / |stack|; 1 where both are nothing."""
        return math.sqrt(self.merged / self.stack) if self.stack > 0 else 1.0

    @property
    def shares(self) -> tuple[float | None, ...]:
        """How much of each input, at its weight, is in the result: least squares merged ~ sum of share * input.

        1 for each in an exact merge; None for an input that adds nothing.
        """
        size = self.gram.diagonal().sqrt()
        scale = torch.where(size > 0, 1 / size, 0.0)
        normal = self.gram * scale[:, None] * scale[None, :]
        found = torch.linalg.pinv(normal, rtol=1e-9, hermitian=True) @ (self.cross * scale) * scale
        return tuple(float(share) if norm > 0 else None for share, norm in zip(found, size, strict=True))


@dataclass(frozen=True, eq=False)
class Proof:
    """What a merge kept, in all and by module. ``names`` are the inputs, in the order of every list."""

    names: tuple[str, ...]
    total: Sums
    modules: Mapping[str, Sums] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str], modules: Mapping[str, Sums]) -> Proof:
        """The proof over modules that were measured one by one."""
        return cls(tuple(names), sum(modules.values(), nothing(len(names))), dict(modules))

    def to_json(self) -> dict[str, object]:
        """``error``, ``norm_ratio``, ``shares`` by name, the worst layer, and the error of every layer."""
        errors = {name: sums.error for name, sums in self.modules.items()}
        worst = max(errors, key=errors.__getitem__, default=None)
        return {
            "error": self.total.error,
            "norm_ratio": self.total.norm_ratio,
            "shares": [{"name": n, "share": s} for n, s in zip(self.names, self.total.shares, strict=True)],
            "worst": None if worst is None else {"module": worst, "error": errors[worst]},
            "layers": errors,
        }


def _relative(lost: float, of: float) -> float:
    """sqrt(lost / of) of two squared norms."""
    return math.sqrt(lost / of) if of > 0 else (math.inf if lost > 0 else 0.0)


def nothing(inputs: int) -> Sums:
    """The sums over no module."""
    return Sums(torch.zeros(inputs, inputs, dtype=torch.float64), torch.zeros(inputs, dtype=torch.float64))


def exactly(
    parts: Sequence[Part | None], dtype: torch.dtype, workspace: gemm.Workspace | None = None
) -> tuple[Stored, Sums]:
    """The exact merge of one module as it is stored, and its sums: only the dtype can have lost something."""
    deltas = [None if part is None else part.weighted for part in parts]
    there = [delta for delta in deltas if delta is not None]
    if not all(delta.is_low_rank for delta in there):
        stored = fold(exact([part for part in parts if part is not None]), dtype)
        return stored, measure(parts, stored)
    owned = in_order(deltas)
    side = Side(there[0].shape, [product for _, product in owned], workspace)
    stored = fold_side(side, dtype)
    gram = by_owner(side.grams[0] * side.grams[1], owned, len(parts))
    return stored, Sums(gram, gram.sum(0), max(0.0, float(gram.sum())), stored.lost)


def measure(parts: Sequence[Part | None], stored: Stored) -> Sums:
    """The sums of one module: its inputs (None: adds nothing) against what is stored of their merge."""
    deltas = [None if part is None else part.weighted for part in parts]
    if stored.replaces is not None:
        return _off_set(parts, stored.replaces)
    found = _against(deltas, stored.delta(), torch.float32)
    if found.difference < FINE**2 * found.stack:
        found = _against(deltas, stored.delta(), torch.float64)
    return found


def _off_set(parts: Sequence[Part | None], stored: torch.Tensor) -> Sums:
    want, none = exact([part for part in parts if part is not None]), nothing(len(parts))
    size = lost = 0.0
    for rows in want.blocks():
        total = want.rows(rows) if want.replaces is None else want.rows(rows) + want.replaces[rows]
        size += float(total.square().sum())
        lost += float((stored.reshape(want.size)[rows] - total).square_().sum())
    return Sums(none.gram, none.cross, set_size=size, set_difference=lost)


def _against(deltas: Sequence[Delta | None], merged: Delta, dtype: torch.dtype) -> Sums:
    gram = inner_products([*deltas, merged], dtype)
    sign = torch.ones(len(gram), dtype=gram.dtype)
    sign[-1] = -1
    return Sums(gram[:-1, :-1], gram[-1, :-1], float(gram[-1, -1]), max(0.0, float(sign @ gram @ sign)))


def inner_products(deltas: Sequence[Delta | None], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """<a, b> of all pairs of deltas on one weight, float64 [n, n]; None adds nothing. Products are in ``dtype``."""
    there = [delta for delta in deltas if delta is not None]
    with gemm.full_fp32():
        if all(delta.is_low_rank for delta in there):
            return _by_factors(deltas, dtype)
        return _by_rows(deltas, there[0])


def _by_factors(deltas: Sequence[Delta | None], dtype: torch.dtype) -> torch.Tensor:
    owned = [(n, product) for n, delta in enumerate(deltas) if delta is not None for product in delta.products]
    if not owned:
        return torch.zeros(len(deltas), len(deltas), dtype=torch.float64)
    up = torch.cat([product.up.to(dtype) * product.scale for _, product in owned], 1)
    down = torch.cat([product.down.to(dtype) for _, product in owned])
    return by_owner((up.T @ up).double() * (down @ down.T).double(), owned, len(deltas))


def by_owner(products: torch.Tensor, owned: Sequence[tuple[int, Product]], count: int) -> torch.Tensor:
    """Inner products of ranks summed up to those of ``count`` deltas; ``owned`` says whose the ranks are, in order."""
    numbers = [whose for whose, product in owned for _ in range(product.rank)]
    owner = torch.nn.functional.one_hot(torch.tensor(numbers, dtype=torch.long), count).double()
    gram = owner.T @ products @ owner
    return (gram + gram.T) / 2


def _by_rows(deltas: Sequence[Delta | None], shape_of: Delta) -> torch.Tensor:
    gram = torch.zeros(len(deltas), len(deltas), dtype=torch.float64)
    for rows in shape_of.blocks():
        made = {number: delta.rows(rows).flatten() for number, delta in enumerate(deltas) if delta is not None}
        for one, mine in made.items():
            for other, theirs in made.items():
                if one <= other:
                    gram[one, other] += mine @ theirs
    return gram.triu() + gram.triu(1).T
