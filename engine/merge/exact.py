"""The weighted sum itself: ranks side by side, nothing computed, nothing lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..gemm import Product
from ..terms import Dense
from ..texts.say import refuse
from .deltas import Delta
from .parts import Part

SAMPLE = 16  # rows of a dense delta, or ranks and numbers of a product, that tell it from another one


def exact(parts: Sequence[Part]) -> Delta:
    """sum of weight * delta, in an order that depends on the numbers alone: neither listing nor scale splits count.

    A weight that one LoRA replaces is replaced by its value plus what the others add; two that replace the same weight
    raise FoundryError LF502.
    """
    weighted = [part.weighted for part in parts]
    replaces = [each.replaces for each in weighted if each.replaces is not None]
    if len(replaces) > 1:
        raise refuse("LF502.two_sets", shape=list(weighted[0].shape))
    products = tuple(product for _, product in in_order(weighted))
    dense = sorted((each for delta in weighted for each in delta.dense), key=_sample)
    return replace(weighted[0], products=products, dense=tuple(dense), replaces=replaces[0] if replaces else None)


def in_order(deltas: Sequence[Delta | None]) -> list[tuple[int, Product]]:
    """Every product with the number of the delta it comes from, sorted by their numbers."""
    products = [(n, product) for n, delta in enumerate(deltas) if delta is not None for product in delta.products]
    return sorted(products, key=lambda each: _beginning(each[1]))


def _beginning(product: Product) -> tuple[bytes, bytes]:
    up, few = product.up[:SAMPLE, :SAMPLE].to(torch.float32) * product.scale, product.down[:SAMPLE, :SAMPLE]
    return few.to(torch.float32).numpy().tobytes(), up.numpy().tobytes()


def _sample(dense: Dense) -> bytes:
    rows = dense.delta(slice(0, dense.height, max(1, dense.height // SAMPLE)))
    return bytes(rows.numpy().tobytes())
