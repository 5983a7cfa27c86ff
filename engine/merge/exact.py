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

SAMPLE = 16  # rows of a dense delta that tell it from another one


def exact(parts: Sequence[Part]) -> Delta:
    """sum of weight * delta, in an order that depends on the numbers alone: neither listing nor scale splits count.

    A weight that one LoRA replaces is replaced by its value plus what the others add; two that replace the same weight
    raise FoundryError LF502.
    """
    weighted = [part.weighted for part in parts]
    replaces = [each.replaces for each in weighted if each.replaces is not None]
    if len(replaces) > 1:
        raise refuse("LF502.two_sets", shape=list(weighted[0].shape))
    products = sorted((product for each in weighted for product in each.products), key=_content)
    dense = sorted((each for delta in weighted for each in delta.dense), key=_sample)
    return replace(
        weighted[0], products=tuple(products), dense=tuple(dense), replaces=replaces[0] if replaces else None
    )


def _content(product: Product) -> tuple[bytes, bytes]:
    return as_bytes(product.down), as_bytes(product.scaled_up()[:SAMPLE])


def _sample(dense: Dense) -> bytes:
    return as_bytes(dense.delta(slice(0, dense.height, max(1, dense.height // SAMPLE))))


def as_bytes(numbers: torch.Tensor) -> bytes:
    """Numbers as fp32 bytes: equal where the numbers are, in whatever dtype."""
    return bytes(numbers.to(torch.float32).contiguous().numpy().tobytes())
