"""What the formulas of all kinds of adapters share: parts, rows of a delta, and the kinds that are one tensor.

A weight is looked at as [rows, columns]: [out, in * kh * kw], a bias [n, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from einops import einsum, rearrange

from .texts.say import refuse

Parts = Mapping[str, torch.Tensor]  # part -> tensor as the file stores it
Index = slice | torch.Tensor  # some rows: a slice, or their numbers
DeltaRows = Callable[[Index], torch.Tensor]  # these rows of a delta: fp32 [n, columns]
Make = Callable[[Parts, float, torch.Tensor], DeltaRows]  # parts, scale (or limit), weight [rows, columns] of any dtype


def as_rows(tensor: torch.Tensor) -> torch.Tensor:
    """A weight or a part as [rows, columns]; a vector has one column."""
    return rearrange(tensor, "out ... -> out (...)" if tensor.ndim > 1 else "... -> (...) 1")


def take(tensor: torch.Tensor, rows: Index) -> torch.Tensor:
    """Some rows of a tensor of any dtype, in fp32 and in their own memory; fp8 knows no indexing, its bytes do."""
    if tensor.itemsize == 1 and isinstance(rows, torch.Tensor):
        return tensor.view(torch.uint8)[rows].view(tensor.dtype).to(torch.float32)
    return tensor[rows].to(torch.float32, copy=True)


def matrix(part: torch.Tensor) -> torch.Tensor:
    """A small part in fp32 as [rows, columns]."""
    return as_rows(part).to(torch.float32)


def folded(core: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Core [r, r', kh, kw] times inner [r', in] over r': [r, in * kh * kw]."""
    require(core.ndim > 2 and core.shape[1] == inner.shape[0], core, inner)
    product = einsum(core.to(torch.float32), matrix(inner), "up down ..., down column -> up column ...")
    return rearrange(product, "up column ... -> up (column ...)")


def joined(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two factors, or an error where they have no product."""
    require(left.shape[1] == right.shape[0], left, right)
    return left, right


def fit(rows: int, columns: int, weight: torch.Tensor) -> None:
    """FoundryError LF304 for a delta of other rows or columns than the weight has."""
    if (rows, columns) != tuple(weight.shape):
        height, width = weight.shape[:2]
        raise refuse("LF304.size", rows=rows, columns=columns, weight_rows=height, weight_columns=width)


def require(fits: bool, one: torch.Tensor, other: torch.Tensor) -> None:
    """FoundryError LF304 for two parts, or a part and a weight, whose shapes contradict each other."""
    if not fits:
        raise refuse("LF304.shapes", one=list(one.shape), other=list(other.shape))


def difference(parts: Parts, scale: float, weight: torch.Tensor) -> DeltaRows:
    """scale * diff: of a weight, a norm, a bias."""
    stored = as_rows(parts["diff"])
    fit(stored.shape[0], stored.shape[1], weight)
    return lambda rows: take(stored, rows).mul_(scale)


def replacement(parts: Parts, scale: float, weight: torch.Tensor) -> DeltaRows:
    """set - W: afterwards the weight is what the file holds."""
    stored = as_rows(parts["set"])
    fit(stored.shape[0], stored.shape[1], weight)
    return lambda rows: take(stored, rows).sub_(weight[rows])
