"""An error budget: the worst quantized weights stay in high precision until the whole is close enough.

Error is rms of rounding over rms of the exact weights, of all weights together. A weight is the worse, the more squared
error each byte that keeping it costs would take away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from .bake import bake_all
from .blueprint import Blueprint, Fate
from .gain import Measure
from .job import BakeRequest
from .json_bake import CostJSON, SizeJSON
from .memory import AUTO
from .progress import Progress
from .tensors import Nowhere
from .texts.say import refuse

MARGIN = 0.98  # of the budget: what is kept is rounded too, by less than is worked out here
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # step of the dtype relative to the number, at most


@dataclass(frozen=True)
class Cost:
    """What a budget did: the error without it, the weights it kept in high precision, and the bytes that costs."""

    max_error: float
    error_without: float
    kept: tuple[str, ...] = ()
    extra_bytes: int = 0

    def to_json(self) -> CostJSON:
        """Plain data."""
        return cast(CostJSON, {**vars(self), "kept": list(self.kept)})


def hold_budgets(
    blueprints: Sequence[Blueprint],
    on_step: Progress | None = None,
    device: torch.device | None = None,
    memory: str = AUTO,
    mmap: bool | None = None,
) -> list[tuple[Blueprint, Cost | None]]:
    """Each blueprint (all on one base) as its error budget wants it, with the cost; one pass measures all of them."""
    asked = [each for each in blueprints if each.finish.max_error is not None]
    requests = [BakeRequest(each, Nowhere()) for each in asked]
    reports = iter(bake_all(requests, on_step, device, memory, mmap) if requests else ())
    return [
        (each, None) if each.finish.max_error is None else within(each, next(reports).measures) for each in blueprints
    ]


def within(wanted: Blueprint, measures: Mapping[str, Measure]) -> tuple[Blueprint, Cost]:
    """(the blueprint that holds its ``max_error``, the cost), from the measures of a bake of ``wanted``.

    Raises FoundryError LF204 when keeping every weight would not be enough.
    """
    max_error, format = wanted.finish.max_error or 0.0, wanted.finish.format
    signal = sum(measured.signal for measured in measures.values())
    noise = {name: measured.noise for name, measured in measures.items()}
    before = _error(noise, signal)
    kept: list[str] = []
    for fate in _worst_first(wanted, measures):
        if _error(noise, signal) <= max_error * (MARGIN if kept else 1):
            break
        name = fate.info.name
        noise[name] = _rounding(fate.dtype) * measures[name].signal
        kept.append(name)
    values = {"wanted": f"{max_error:g}", "format": format, "before": f"{before:.2%}"}
    if _error(noise, signal) > max_error:
        raise refuse("LF204.out_of_reach", **values, error=f"{_error(noise, signal):.2g}")
    if len(kept) >= len(wanted.quantized):
        raise refuse("LF204.all_kept", **values)
    extra = sum(_extra_bytes(wanted.fates[name]) for name in kept)
    return wanted.keeping(frozenset(kept)), Cost(max_error, before, tuple(kept), extra)


def size_json(wanted: Blueprint, cost: Cost | None) -> SizeJSON:
    """What the base and the result of ``wanted`` weigh, ``cost`` being what its error budget kept."""
    held = wanted.keeping(frozenset(cost.kept)) if cost is not None and cost.kept else wanted
    return {"before": sum(info.nbytes for info in wanted.plan.base.source.tensors.values()), "after": held.nbytes}


def _worst_first(wanted: Blueprint, measures: Mapping[str, Measure]) -> list[Fate]:
    """The quantized weights, those first whose error is the largest for each byte that keeping them costs."""
    fates = [wanted.fates[name] for name in wanted.quantized if name in measures]
    return sorted(fates, key=lambda fate: -measures[fate.info.name].noise / max(1, _extra_bytes(fate)))


def _extra_bytes(fate: Fate) -> int:
    return math.prod(fate.info.shape) * fate.dtype.itemsize - fate.result.nbytes


def _rounding(dtype: torch.dtype) -> float:
    """Squared relative rounding error of a kept weight: a step is spread evenly, its square is a twelfth."""
    return ROUNDING.get(dtype, 0.0) ** 2 / 12


def _error(noise: Mapping[str, float], signal: float) -> float:
    return float((sum(noise.values()) / signal) ** 0.5) if signal > 0 else 0.0
