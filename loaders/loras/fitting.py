"""Whether an adapter can go to a weight, by shapes alone, and how strongly it acts there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from ...engine.adapters import DIFF, SET
from ...engine.plan import Adapter, Patch
from ..names.dialects import BOFT_IN, LORA, OFT, OFT_IN
from .alphas import is_scaled

ROTATIONS = (OFT, "boft")  # they turn rows of any length
INPUT_ROTATIONS = (OFT_IN, BOFT_IN)  # they turn columns


def fits(adapter: Adapter, shape: tuple[int, ...]) -> bool:
    """Whether the delta of an adapter can be added to a weight of this shape, or to these rows of one.

    A 1x1 convolution and a linear weight hold the same numbers; factors of a convolution may be stored flat, as
    [out, in * kh * kw]; a rotation needs the rows only; with ``reshape`` the weight is widened to the delta's shape.
    """
    delta = adapter.delta_shape
    if adapter.kind in ROTATIONS:
        return delta[:1] == shape[:1]
    if adapter.kind in INPUT_ROTATIONS:
        return _turns(adapter, shape)
    if "reshape" in dict(adapter.parts):
        return len(delta) == len(shape) and all(wide >= size for wide, size in zip(delta, shape, strict=True))
    if _without_ones(delta) == _without_ones(shape):
        return True
    flat = len(delta) == 2 < len(shape) and not (adapter.kind == LORA and "magnitude" in dict(adapter.parts))
    return flat and delta == (shape[0], math.prod(shape[1:]))


def as_stored(adapter: Adapter, shape: tuple[int, ...]) -> Adapter:
    """The adapter in the shape of its weight, where one has as a vector what the other has as a table.

    Krea 2's modulation is 6 * width numbers in its own files, [6, width] in those of diffusers.
    """
    delta = adapter.delta_shape
    same = 1 in (len(delta), len(shape)) and len(delta) != len(shape) and math.prod(delta) == math.prod(shape)
    return replace(adapter, delta_shape=shape) if same and adapter.kind in (DIFF, SET) else adapter


def _turns(adapter: Adapter, shape: tuple[int, ...]) -> bool:
    """Whether a rotation of the inputs has as many columns; one block may serve all, and rows may be any."""
    rows, columns = adapter.delta_shape
    inputs = math.prod(shape[1:])
    shared = adapter.kind == OFT_IN and adapter.rank == 1 and inputs % columns == 0
    return len(shape) > 1 and (columns == inputs or shared) and rows in (1, shape[0])


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    kernel = shape[2:]
    return (*shape[:2], *(kernel if math.prod(kernel) != 1 else ()))


def effective_scales(patches: Iterable[Patch], strength: float) -> dict[str, float]:
    """Module -> strength * alpha / rank, for the patches that have a scale (a rotation's alpha is a limit)."""
    return {p.adapter.module: strength * p.adapter.scale for p in patches if is_scaled(p.adapter)}
