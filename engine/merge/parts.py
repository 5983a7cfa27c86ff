"""One LoRA of a merge: what it changes, how strongly, and how its deltas are read, one module at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..texts.say import refuse
from .deltas import Delta, Shape


@dataclass(frozen=True)
class Spec:
    """What a LoRA has for one weight, known from the header: the weight's shape, and the rank of its factors.

    ``rank`` is None where it is no product of factors: a full difference, a norm, a bias.
    """

    shape: Shape
    rank: int | None


@dataclass(frozen=True, eq=False)
class Input:
    """One LoRA. ``modules`` name its weights the same way in all inputs of a merge; ``read`` gives one at strength 1.

    ``factors`` multiply the weight by module (block weights). ``whole`` marks a base LoRA or an accelerator: every
    method adds it as it is.
    """

    name: str
    weight: float
    modules: Mapping[str, Spec]
    read: Callable[[str], Delta] = field(repr=False)
    factors: Mapping[str, float] = field(default_factory=dict)
    whole: bool = False

    def strength(self, module: str) -> float:
        """The weight this module has in the merge; 0 where the LoRA does not change it."""
        return self.weight * self.factors.get(module, 1.0) if module in self.modules else 0.0


@dataclass(frozen=True, eq=False)
class Part:
    """What one LoRA brings to one module: its delta at strength 1, its weight there, and whether it stays whole."""

    delta: Delta
    weight: float = 1.0
    whole: bool = False

    @property
    def weighted(self) -> Delta:
        """The delta at its weight."""
        return self.delta.times(self.weight)


def modules_of(inputs: Sequence[Input]) -> dict[str, Shape]:
    """Every module that some LoRA changes at a weight other than 0, sorted by name, and its shape.

    Raises FoundryError LF502 for two shapes of one module, and where nothing is left to merge.
    """
    found: dict[str, tuple[str, Shape]] = {}
    for each in inputs:
        if not all(map(math.isfinite, (each.weight, *each.factors.values()))):
            raise refuse("LF502.weight", lora=each.name, weight=each.weight)
        for module, spec in each.modules.items():
            if each.strength(module) == 0.0:
                continue
            other, shape = found.setdefault(module, (each.name, spec.shape))
            if shape != spec.shape:
                values = {"one": other, "other": each.name, "one_shape": list(shape), "other_shape": list(spec.shape)}
                raise refuse("LF502.shapes", module=module, **values)
    if not found:
        raise refuse("LF502.nothing", loras=", ".join(each.name for each in inputs) or "no LoRA")
    return {module: found[module][1] for module in sorted(found)}


def read_parts(inputs: Sequence[Input], module: str) -> list[Part | None]:
    """What each input brings to a module, None where it brings nothing. FoundryError LF502 names what is not finite."""
    parts: list[Part | None] = []
    for each in inputs:
        strength = each.strength(module)
        part = Part(each.read(module), strength, each.whole) if strength != 0.0 else None
        if part is not None and not _is_finite(part.delta):
            raise refuse("LF502.nan", lora=each.name, module=module)
        parts.append(part)
    return parts


def _is_finite(delta: Delta) -> bool:
    """By sums of the factors, or of the rows where there are none: NaN and Inf stay in them."""
    factors = [factor for product in delta.products for factor in (product.up, product.down)]
    stored = [*factors, *(() if delta.replaces is None else (delta.replaces,))]
    if not all(math.isfinite(_total(factor)) for factor in stored):
        return False
    return not delta.dense or all(math.isfinite(delta.rows(rows).sum()) for rows in delta.blocks())


def _total(factor: torch.Tensor) -> float:
    if factor.dtype == torch.bfloat16:
        return float(factor.sum())  # added up in fp32, five times as fast as when it is asked for
    return float(factor.to(torch.float32).sum() if factor.itemsize == 1 else factor.sum(dtype=torch.float32))
