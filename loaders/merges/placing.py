"""A delta brought from the rows of its file to the rows of a module that is written."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...engine.dense import Index
from ...engine.gemm import Product
from ...engine.merge.deltas import Delta, Shape
from ...engine.plan import Patch
from ...engine.terms import Dense, row_order
from ...engine.texts.say import refuse
from ..names.outgoing import Unit

NOWHERE = -1


def order_of(patch: Patch, unit: Unit, rows: int, target_rows: bool = False) -> torch.Tensor | None:
    """Which row of an adapter's delta goes to each row of a unit, ``NOWHERE`` for none; None: to none of them.

    ``rows`` are those of the weight; ``target_rows``: the delta has the rows of its target already.
    """
    first, count = (0, rows) if patch.target.slice is None else patch.target.slice[1:]
    turned = None if target_rows else row_order(patch.target, count, torch.device("cpu"))
    numbers = torch.full((rows,), NOWHERE)
    numbers[first : first + count] = torch.arange(count) if turned is None else turned
    pieces = [
        numbers[piece.start : piece.start + piece.length]
        if piece.weight == patch.target.weight
        else torch.full((piece.length,), NOWHERE)
        for piece in unit.view
    ]
    order = torch.cat(pieces)
    return order if bool((order != NOWHERE).any()) else None


def keeps_all(order: torch.Tensor, rows: int) -> bool:
    """Whether all ``rows`` of a delta stay where they are."""
    return len(order) == rows and torch.equal(order, torch.arange(rows))


def placed(delta: Delta, order: torch.Tensor | None, shape: Shape) -> Delta:
    """The delta on a module of ``shape``: row i is row ``order[i]`` of the delta, or nothing. None: as they are."""
    if order is None or keeps_all(order, delta.size[0]):
        return replace(delta, shape=shape)
    if delta.replaces is not None:
        raise refuse("LF502.part_set", rows=delta.size[0], all=shape[0])
    products = tuple(_turned(product, order) for product in delta.products)
    return Delta(shape, products, tuple(_reordered(each, order) for each in delta.dense))


def _turned(product: Product, order: torch.Tensor) -> Product:
    nothing = product.up.new_zeros(1, product.up.shape[1])
    return replace(product, up=torch.cat([product.up, nothing])[order])  # NOWHERE is the last row


def _reordered(dense: Dense, order: torch.Tensor) -> Dense:
    def make(rows: Index) -> torch.Tensor:
        wanted = order[rows]
        return dense.make(wanted.clamp(min=0)) * (wanted != NOWHERE)[:, None]

    return replace(dense, make=make, height=len(order))
