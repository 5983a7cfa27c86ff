"""Inner products of two deltas on one weight, without making a delta where both are products of factors.

With a = u1 d1 and b = u2 d2, <a, b> = sum((u1^T u2) * (d1 d2^T)): matrices of rank x rank. Deltas that are no product
are made a few rows at a time.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from . import gemm
from .terms import AnyTerm, Term

CLASH_ROWS = 16  # of each weight, for the share of opposite signs
BLOCK = 1 << 20  # numbers of a delta that are made together
SIGMAS = 6.0  # further than this from what is left of an inner product when one delta is turned at random
STEADY = 3.0  # further than this from the scatter over the weights themselves: takes ten weights that agree
Gram = NDArray[np.float64]
RIDGE = 1e-6  # of a Gram matrix's mean eigenvalue; fp32 products know nothing below it


@dataclass(frozen=True)
class Sums:
    """Sums over the weights that two LoRAs, with deltas a and b, both change.

    ``chance`` is the variance <a, b> would have if a and b were turned at random, ``scatter`` the sum of <a, b>^2 by
    weight, ``reach`` that of |a| |b|. ``first_within`` is the part of <a, a> in the rows and columns that b's factors
    span, ``second_within`` the reverse. Of ``sampled`` numbers that neither leaves alone, ``clashes`` have opposite
    signs.
    """

    dot: float = 0.0
    first: float = 0.0
    second: float = 0.0
    chance: float = 0.0
    scatter: float = 0.0
    reach: float = 0.0
    first_within: float = 0.0
    second_within: float = 0.0
    clashes: int = 0
    sampled: int = 0
    weights: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*map(operator.add, astuple(self), astuple(other)))

    def swapped(self) -> Sums:
        """The same pair, seen from the other LoRA."""
        return replace(
            self, first=self.second, second=self.first, first_within=self.second_within, second_within=self.first_within
        )

    @property
    def coefficient(self) -> float:
        """<a, b> / <b, b>: the share of the second that is inside the first. 0 where the second does nothing."""
        return self.dot / self.second if self.second > 0 else 0.0

    @property
    def cosine(self) -> float:
        """<a, b> / |a| |b|; 0 where one of them does nothing."""
        size = math.sqrt(self.first) * math.sqrt(self.second)
        return self.dot / size if size > 0 else 0.0

    @property
    def expressed(self) -> float:
        """The share of <b, b> within what the first's factors span: 1 for an exact merge, near 0 for strangers."""
        return self.second_within / self.second if self.second > 0 else 0.0

    @property
    def energy_overlap(self) -> float:
        """1 where both put the same share of their energy into each weight, 0 where they share none."""
        size = math.sqrt(self.first) * math.sqrt(self.second)
        return self.reach / size if size > 0 else 0.0

    @property
    def clash(self) -> float:
        """The share of opposite signs; chance gives 0.5."""
        return self.clashes / self.sampled if self.sampled else 0.5

    @property
    def together(self) -> float:
        """|a + b| against what it would be if they were unrelated: below 1 where one takes away what the other adds."""
        apart = self.first + self.second
        return math.sqrt(max(0.0, apart + 2 * self.dot) / apart) if apart > 0 else 1.0

    @property
    def significant(self) -> bool:
        """Whether <a, b> is further from 0 than chance explains, and about as far in most weights.

        Unrelated LoRAs may share the few directions a model uses most: then it is far from 0, here up and there down.
        """
        return abs(self.dot) > max(SIGMAS * math.sqrt(self.chance), STEADY * math.sqrt(self.scatter)) > 0


class Side:
    """What one LoRA adds to one weight, cut into pieces of rows when another LoRA changes other rows."""

    def __init__(self, terms: Sequence[AnyTerm]) -> None:
        self.terms = terms
        self._pieces: dict[tuple[int, int], TermSum | None] = {}

    def piece(self, first: int, stop: int) -> TermSum | None:
        """Rows ``first`` to ``stop`` of the weight, which no term ends in between; None where nothing is added."""
        if (first, stop) not in self._pieces:
            here = [term for term in self.terms if term.span[0] <= first and stop <= term.span[1]]
            self._pieces[first, stop] = TermSum(here, first, stop - first) if here else None
        return self._pieces[first, stop]


class TermSum:
    """The sum of some terms on ``height`` rows: a product of factors, or where there is none, rows made when needed."""

    def __init__(self, terms: Sequence[AnyTerm], first: int, height: int) -> None:
        self._terms = [(term, first - term.span[0]) for term in terms]
        self.height = height

    @cached_property
    def factors(self) -> Factors | None:
        """The factors with their scale; None where one of the terms is no product."""
        terms = [(term, offset) for term, offset in self._terms if isinstance(term, Term)]
        if len(terms) < len(self._terms):
            return None
        ups = [p.scaled_up()[offset : offset + self.height] for term, offset in terms for p in term.products]
        downs = [product.down.to(torch.float32) for term, _ in terms for product in term.products]
        return Factors(ups[0], downs[0]) if len(ups) == 1 else Factors(torch.cat(ups, 1), torch.cat(downs, 0))

    def rows(self, rows: slice) -> torch.Tensor:
        """Some rows of the delta in fp32 [n, columns]."""
        if self.factors is not None:
            return self.factors.up[rows] @ self.factors.down
        parts = [(term, slice(rows.start + offset, rows.stop + offset, rows.step)) for term, offset in self._terms]
        return torch.stack([term.delta(part, torch.float32) for term, part in parts]).sum(0)


@dataclass(frozen=True, eq=False)
class Factors:
    """``up`` [rows, ranks] @ ``down`` [ranks, columns], both fp32."""

    up: torch.Tensor
    down: torch.Tensor

    @cached_property
    def grams(self) -> tuple[Gram, Gram]:
        """up^T up and down down^T."""
        return self.products(self)

    def products(self, other: Factors) -> tuple[Gram, Gram]:
        """up^T other.up and down other.down^T, [ranks, other ranks] in float64."""
        return (self.up.T @ other.up).double().numpy(), (self.down @ other.down.T).double().numpy()


def compare(first: Side, second: Side) -> Sums:
    """The sums of one weight that two LoRAs change, over the rows that both do."""
    edges = sorted({edge for side in (first, second) for term in side.terms for edge in term.span})
    with gemm.full_fp32():
        found = (_pieces(first.piece(*span), second.piece(*span)) for span in pairwise(edges))
        sums = sum(found, Sums())
        return replace(sums, scatter=sums.dot**2, weights=1)


def _pieces(a: TermSum | None, b: TermSum | None) -> Sums:
    if a is None or b is None:
        return Sums()
    mine, theirs = (each.rows(sample_of(a.height)) for each in (a, b))
    clashes, sampled = opposite(mine, theirs)
    sums = _by_factors(a.factors, b.factors) if a.factors and b.factors else _by_rows(a, b, mine.shape[1])
    size = sums.first * sums.second
    chance = size / (a.height * mine.shape[1])
    return replace(sums, chance=chance, reach=math.sqrt(size), clashes=clashes, sampled=sampled)


def sample_of(height: int) -> slice:
    """The rows of a weight, or of a part of one, whose signs are compared."""
    return slice(0, height, max(1, height // CLASH_ROWS))


def opposite(mine: torch.Tensor, theirs: torch.Tensor) -> tuple[int, int]:
    """(how many numbers have opposite signs, of how many that neither leaves alone)."""
    both = (mine != 0) & (theirs != 0)
    return int((both & (mine.signbit() != theirs.signbit())).sum()), int(both.sum())


def _by_factors(a: Factors, b: Factors) -> Sums:
    ups, downs = a.products(b)
    first, second = (float((each.grams[0] * each.grams[1]).sum()) for each in (a, b))
    first_within = float((_projected(b.grams[0], ups.T) * _projected(b.grams[1], downs.T)).sum())
    second_within = float((_projected(a.grams[0], ups) * _projected(a.grams[1], downs)).sum())
    return Sums(float((ups * downs).sum()), first, second, first_within=first_within, second_within=second_within)


def _projected(gram: Gram, cross: Gram) -> Gram:
    """cross^T gram^-1 cross: the Gram matrix of vectors projected on the span of those that ``gram`` is of."""
    mean = gram.diagonal().mean()
    if not mean > 0:
        return np.zeros((cross.shape[1], cross.shape[1]))
    spanned: Gram = cross.T @ np.linalg.solve(gram + RIDGE * mean * np.eye(len(gram)), cross)
    return spanned


def _by_rows(a: TermSum, b: TermSum, columns: int) -> Sums:
    """A full matrix spans everything, which says nothing: what one has within the other is its part along it."""
    dot = first = second = 0.0
    step = max(1, BLOCK // columns)
    for start in range(0, a.height, step):
        rows = slice(start, min(start + step, a.height))
        mine, theirs = a.rows(rows).double(), b.rows(rows).double()
        dot += float((mine * theirs).sum())
        first += float(mine.square().sum())
        second += float(theirs.square().sum())
    first_within, second_within = (dot * dot / size if size > 0 else 0.0 for size in (second, first))
    return Sums(dot, first, second, first_within=first_within, second_within=second_within)
