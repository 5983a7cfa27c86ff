"""Singular values and vectors of a sum of products, through the small core between the QR factors of its factors.

up down = Qu (Ru Rd^T) Qd^T exactly, so an SVD of the core, ranks x ranks, is that of the whole. All in float64. Cores
larger than ``EXACT`` get their vectors from a randomised SVD on the factors; their values are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..gemm import Product
from .deltas import Delta, Pair, Shape
from .ranks import Spectrum

EXACT = 1024  # ranks of the largest core that is decomposed as it is, and the smaller side of the largest full matrix
FULL_VALUES = 256  # of a larger full matrix: of how many values its spectrum is
ROUNDS, OVER = 4, 16  # of the randomised SVD: power iterations, and directions beyond the wanted rank
ZERO = 1e-9  # of the largest value; what is smaller is what rounding made of nothing
STEADY = 1e3  # most |R^-1| of columns of length 1 that a Gram matrix is trusted with: Q is off by eps times its square
Apply = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Svd:
    """left [rows, k] * values [k] @ right [k, columns], all float64; the signs are those that ``right`` decides."""

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor

    def first(self, rank: int) -> Svd:
        """The largest ``rank`` of them."""
        return Svd(self.left[:, :rank], self.values[:rank], self.right[:rank])

    @property
    def support(self) -> Svd:
        """Those that are more than rounding."""
        return self.first(int((self.values > ZERO * self.values[:1]).sum()))


def joined(delta: Delta) -> Pair:
    """All products of a delta as one, their scales in up: up [rows, r], down [r, columns] in float64."""
    rows, columns = delta.size
    ups = [product.up.to(torch.float64) * product.scale for product in delta.products]
    downs = [product.down.to(torch.float64) for product in delta.products]
    if not ups:
        return torch.zeros(rows, 0, dtype=torch.float64), torch.zeros(0, columns, dtype=torch.float64)
    return torch.cat(ups, 1), torch.cat(downs, 0)


def decompose(delta: Delta) -> Svd:
    """The SVD of a sum of products with a core of any size."""
    return _of_factors(*joined(delta))


def spectrum(delta: Delta) -> Spectrum:
    """The singular values of a delta of any kind; of a large full matrix the first ones."""
    if not delta.is_low_rank:
        smaller = min(delta.size)
        return shrunk(delta, smaller if smaller <= EXACT else FULL_VALUES)[0]
    up, down = joined(delta)
    if max(_core_size(up, down)) <= EXACT:
        values = torch.linalg.svdvals(factored(up).r @ factored(down.T).r.T)
    else:
        values = _values_of_grams(up, down)
    energy = float(values.square().sum())
    return Spectrum(delta.size, values[values > ZERO * values[:1]], energy)


def truncated(delta: Delta, rank: int) -> Delta:
    """The nearest delta of ``rank`` (Eckart and Young), or of the rank it has: one product, sqrt(values) on each side.

    Above a core of ``EXACT``, and for larger full matrices, within what ``ROUNDS`` power iterations give.
    """
    if not delta.is_low_rank:
        found = _matrix_svd(_matrix(delta), rank)
    else:
        up, down = joined(delta)
        if max(_core_size(up, down)) <= EXACT:
            found = _of_factors(up, down)
        else:
            found = _randomised(lambda x: up @ (down @ x), lambda x: down.T @ (up.T @ x), up, down.shape[1], rank)
    return _as_delta(delta.shape, found.first(rank))


def _core_size(up: torch.Tensor, down: torch.Tensor) -> tuple[int, int]:
    return min(up.shape), min(down.shape)


def _of_factors(up: torch.Tensor, down: torch.Tensor) -> Svd:
    rows, columns = factored(up), factored(down.T)
    left, values, right = torch.linalg.svd(rows.r @ columns.r.T, full_matrices=False)
    return _signed(rows.turned(left), values, columns.turned(right.T).T)


@dataclass(frozen=True, eq=False)
class Factored:
    """Q R of a matrix; ``r`` [min(rows, columns), columns], ``turned`` gives Q @ small, Q is never formed."""

    r: torch.Tensor
    turned: Apply


def factored(matrix: torch.Tensor) -> Factored:
    """QR of a float64 matrix: from its Gram matrix by Cholesky, by Householder where that would lose digits."""
    steady = _cholesky(matrix)
    if steady is not None:
        return Factored(steady, lambda small: matrix @ torch.linalg.solve_triangular(steady, small, upper=True))
    packed, tau = torch.geqrf(matrix)
    return Factored(packed[: min(packed.shape)].triu(), lambda small: _turned(packed, tau, small))


def _cholesky(matrix: torch.Tensor) -> torch.Tensor | None:
    """R with R^T R = matrix^T matrix, columns at one length meanwhile; None where they are close to dependent.

    Rounding E of the Gram matrix leaves Q^T Q - I = R^-T E R^-1: only the whole of R^-1 bounds that, no diagonal does.
    """
    if not 0 < matrix.shape[1] <= matrix.shape[0]:
        return None
    gram = matrix.T @ matrix
    lengths = gram.diagonal().sqrt()
    if not bool((lengths > 0).all()):
        return None
    r, fault = torch.linalg.cholesky_ex(gram / lengths / lengths[:, None], upper=True)
    if fault:
        return None
    inverse = torch.linalg.solve_triangular(r, torch.eye(len(r), dtype=r.dtype), upper=True)
    return r * lengths if float(inverse.norm()) < STEADY else None  # NaN is not


def _turned(packed: torch.Tensor, tau: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
    """Q @ small of what geqrf gives."""
    tall = torch.nn.functional.pad(small, (0, 0, 0, packed.shape[0] - small.shape[0]))
    reflectors = packed[:, : len(tau)].contiguous()
    turned: torch.Tensor = torch.ormqr(reflectors, tau, tall)
    return turned


def _signed(left: torch.Tensor, values: torch.Tensor, right: torch.Tensor) -> Svd:
    """An SVD leaves the sign of each pair open: the one that makes the cubes of ``right`` sum up to more than 0."""
    sign = torch.where((right.square() * right).sum(1) < 0, -1.0, 1.0).to(right.dtype)
    return Svd(left * sign, values, right * sign[:, None])


def _values_of_grams(up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Singular values from two Gram matrices: good to 1e-8 of the largest, many times faster than an SVD."""
    size, vectors = torch.linalg.eigh(down @ down.T)
    root = vectors * size.clamp(min=0).sqrt()
    squares: torch.Tensor = torch.linalg.eigvalsh(root.T @ (up.T @ up) @ root)
    return squares.clamp(min=0).sqrt().flip(0)[: min(len(up), down.shape[1])]


def _randomised(times: Apply, transposed: Apply, like: torch.Tensor, columns: int, rank: int) -> Svd:
    """The first ``rank`` triples of a matrix that is only multiplied with, ``columns`` wide; the seed is fixed."""
    random = torch.Generator().manual_seed(0)
    wide = min(rank + OVER, len(like), columns)
    sketch = torch.randn(columns, wide, generator=random, dtype=torch.float64).to(like.dtype)
    for _ in range(ROUNDS):
        sketch = torch.linalg.qr(transposed(torch.linalg.qr(times(sketch)).Q)).Q
    basis = torch.linalg.qr(times(sketch)).Q
    inner, values, right = torch.linalg.svd(transposed(basis).T.double(), full_matrices=False)
    return _signed(basis.double() @ inner, values, right).first(rank)


def _matrix(delta: Delta) -> torch.Tensor:
    """The whole delta: float64 where its SVD is exact, float32 where it is large."""
    whole = torch.empty(delta.size, dtype=torch.float64 if min(delta.size) <= EXACT else torch.float32)
    for rows in delta.blocks():
        whole[rows] = delta.rows(rows)
    return whole


def _matrix_svd(whole: torch.Tensor, rank: int) -> Svd:
    """The first ``rank`` triples, or all of a matrix small enough."""
    if min(whole.shape) <= EXACT:
        return _signed(*torch.linalg.svd(whole, full_matrices=False))
    return _randomised(lambda x: whole @ x, lambda x: whole.T @ x, whole, whole.shape[1], rank)


def shrunk(delta: Delta, rank: int) -> tuple[Spectrum, Delta]:
    """The first ``rank`` values of a delta that is a full matrix, and the delta they make, from one decomposition."""
    whole = _matrix(delta)
    energy = float(torch.linalg.vector_norm(whole, dtype=torch.float64)) ** 2
    found = _matrix_svd(whole, rank).first(rank).support
    return Spectrum(delta.size, found.values, energy), _as_delta(delta.shape, found)


def _as_delta(shape: Shape, found: Svd) -> Delta:
    root = found.values.sqrt()
    return Delta(shape, (Product(found.left * root, root[:, None] * found.right, 1.0),))


def clamped(delta: Delta, quantile: float | None) -> Delta:
    """The same with each product's numbers no larger than this quantile of their magnitudes; None: as it is."""
    if quantile is None:
        return delta
    return replace(delta, products=tuple(_clamped(product, quantile) for product in delta.products))


def _clamped(product: Product, quantile: float) -> Product:
    sizes = torch.cat([product.up.flatten(), product.down.flatten()]).abs()
    if not len(sizes):
        return product
    most = float(sizes.kthvalue(math.ceil(quantile * len(sizes))).values)
    return replace(product, up=product.up.clamp(-most, most), down=product.down.clamp(-most, most))


def padded(delta: Delta, rank: int) -> Delta:
    """The same with ranks of zeros, up to ``rank``."""
    more = rank - delta.rank
    if more <= 0:
        return delta
    rows, columns = delta.size
    zeros = Product(torch.zeros(rows, more), torch.zeros(more, columns), 1.0)
    return replace(delta, products=(*delta.products, zeros))
