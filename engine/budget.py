"""An error budget: the worst quantized weights stay in high precision until the whole is close enough.

Error is rms of rounding over rms of the exact weights, of all weights together. A weight is the worse, the more squared
error each byte that keeping it costs would take away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from .errors import FoundryError
from .finish import Finish, output_dtype, quantized_names
from .gain import Measure
from .plan import Plan

MARGIN = 0.98  # of the budget: what is kept is rounded too, by less than is worked out here
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # step of the dtype relative to the number, at most


@dataclass(frozen=True)
class Cost:
    """What a budget did: the error without it, the weights it kept in high precision, and the bytes that costs."""

    max_error: float
    error_without: float
    kept: tuple[str, ...] = ()
    extra_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "kept": list(self.kept)}


class Nowhere:
    """A sink that forgets what it gets: for a bake that only measures."""

    on_disk = True

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Nothing."""


def check_budget(max_error: float | None, finish: Finish) -> None:
    """FoundryError for a budget that is no share between 0 and 1, or that has nothing to work on."""
    if max_error is None:
        return
    if not 0 < max_error < 1:
        what = f"max_error is {max_error}, but it is a share of the weights' rms."
        raise FoundryError("usage", what, fix="Give a number such as 0.02, which is 2 %.")
    if finish.quantization is None:
        raise FoundryError("usage", "max_error needs a quantized format.", fix="Choose one, or leave max_error out.")


def within(plan: Plan, finish: Finish, max_error: float, measures: Mapping[str, Measure]) -> tuple[Finish, Cost]:
    """(the finish that holds the budget, its cost), from the measures of a bake with ``finish``.

    Raises FoundryError LF204 when keeping every weight would not be enough.
    """
    signal = sum(measured.signal for measured in measures.values())
    noise = {name: measured.noise for name, measured in measures.items()}
    before = _error(noise, signal)
    kept: list[str] = []
    extra = 0
    for name in _worst_first(plan, finish, measures):
        if _error(noise, signal) <= max_error * (MARGIN if kept else 1):
            break
        noise[name] = _rounding(plan, finish, name) * measures[name].signal
        kept.append(name)
        extra += _extra_bytes(plan, finish, name)
    if _error(noise, signal) > max_error:
        raise FoundryError(
            "LF204",
            f"max_error {max_error:g} cannot be held: with every layer in high precision the error is still "
            f"{_error(noise, signal):.2g}.",
            f"{finish.format} alone has {before:.2%}.",
            "Allow a larger error, or finish in fp32 without quantization.",
        )
    if len(kept) >= len(quantized_names(plan, finish)):
        raise FoundryError(
            "LF204",
            f"max_error {max_error:g} would keep every layer in high precision.",
            f"Nothing would be quantized; {finish.format} alone has {before:.2%}.",
            "Allow a larger error, or finish without quantization.",
        )
    return replace(finish, keep_names=frozenset(kept)), Cost(max_error, before, tuple(kept), extra)


def _worst_first(plan: Plan, finish: Finish, measures: Mapping[str, Measure]) -> list[str]:
    names = [name for name in quantized_names(plan, finish) if name in measures]
    return sorted(names, key=lambda name: -measures[name].noise / max(1, _extra_bytes(plan, finish, name)))


def _extra_bytes(plan: Plan, finish: Finish, name: str) -> int:
    info = plan.base.source.tensors[name]
    format = finish.quantization
    return (info.nbytes // info.dtype.itemsize) * (
        output_dtype(info, finish).itemsize - (format.dtype.itemsize if format else 0)
    )


def _rounding(plan: Plan, finish: Finish, name: str) -> float:
    """Squared relative rounding error of a kept weight: a step is spread evenly, its square is a twelfth."""
    dtype = output_dtype(plan.base.source.tensors[name], finish)
    return ROUNDING.get(dtype, 0.0) ** 2 / 12


def _error(noise: Mapping[str, float], signal: float) -> float:
    return float((sum(noise.values()) / signal) ** 0.5) if signal > 0 else 0.0
