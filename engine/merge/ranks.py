"""Which rank every module gets: the singular values of all modules compete for the bytes.

A value sigma on a weight [rows, columns] brings sigma^2 and costs rows + columns numbers, so the best result of any
size takes the largest sigma^2 / (rows + columns) of the whole model. One rank everywhere comes on request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from ..texts.say import refuse

TRIES = 200  # steps after the first that does not fit, which are smaller or of smaller weights
Goal = Literal["rank", "energy", "error", "size"]
REFUSED: Mapping[str, str] = {
    "rank": "LF503.rank",
    "energy": "LF503.energy",
    "error": "LF503.error",
    "size": "LF503.size",
}
SizeOf = Callable[[Mapping[str, int]], int]  # ranks by module -> bytes of the whole file


@dataclass(frozen=True)
class Policy:
    """How far a merge is shrunk. ``goal`` and ``amount`` over the whole model:

    ``rank``: as many numbers as with this rank everywhere; ``energy``: this share of the squared norm is kept;
    ``error``: this relative error is allowed; ``size``: the file has at most this many bytes.
    ``uniform``: one rank everywhere. ``layers`` are ranks by module that are given as they are. ``clamp``: no number of
    a module's factors is larger than this quantile of all of them (by magnitude); None: none is touched.
    """

    goal: Goal
    amount: float
    uniform: bool = False
    layers: Mapping[str, int] = field(default_factory=dict)
    clamp: float | None = None

    def __post_init__(self) -> None:
        fits = {
            "rank": self.amount >= 1 and self.amount == int(self.amount) if math.isfinite(self.amount) else False,
            "energy": 0 < self.amount <= 1,
            "error": 0 <= self.amount < 1,
            "size": self.amount >= 1 and math.isfinite(self.amount),
        }
        if not fits[self.goal]:
            raise refuse(REFUSED[self.goal], amount=self.amount)
        if self.clamp is not None and not 0 < self.clamp < 1:
            raise refuse("LF503.clamp", amount=self.clamp)
        wrong = [(module, rank) for module, rank in self.layers.items() if rank < 1]
        if wrong:
            raise refuse("LF503.layer_rank", module=wrong[0][0], rank=wrong[0][1])


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular values of a module's sum, largest first (float64 [k]), and its squared norm ``energy``.

    ``energy`` is more than the sum of their squares where only the first values are known. ``size`` is (rows, columns).
    """

    size: tuple[int, int]
    values: torch.Tensor
    energy: float


def refuse_above(policy: Policy, shapes: Iterable[Sequence[int]]) -> None:
    """FoundryError LF503 for a rank that no weight of these shapes has, before anything is read."""
    most = max((min(shape[0], math.prod(shape[1:])) for shape in shapes if len(shape) > 1), default=0)
    if policy.goal == "rank" and policy.amount > most > 0:
        raise refuse("LF503.above_all", rank=int(policy.amount), most=most)


def choose(spectra: Mapping[str, Spectrum], policy: Policy, size_of: SizeOf | None = None) -> dict[str, int]:
    """The rank of every module: at most as many as it has values, 0 for one that is left out.

    ``size_of`` is asked for the goal ``size``. FoundryError LF503 for a size too small for anything, for the rank of a
    layer that is larger than the layer, and for a layer that is not there.
    """
    fixed = _given(spectra, policy.layers)
    free = {module: each for module, each in spectra.items() if module not in fixed}
    steps = _everywhere(free) if policy.uniform else _best_first(free)
    if policy.goal == "size":
        if size_of is None:
            raise ValueError("the goal size needs size_of")
        return _within(steps, free, fixed, int(policy.amount), size_of)
    return {**_ranks(steps[: _how_many(steps, spectra, fixed, policy)], free), **fixed}


def _given(spectra: Mapping[str, Spectrum], layers: Mapping[str, int]) -> dict[str, int]:
    for module, rank in layers.items():
        if module not in spectra:
            raise refuse("LF503.no_layer", module=module)
        if rank > min(spectra[module].size):
            rows, columns = spectra[module].size
            raise refuse("LF503.above", module=module, rank=rank, rows=rows, columns=columns)
    return {module: min(rank, len(spectra[module].values)) for module, rank in layers.items()}


Step = tuple[str, ...]  # modules that get one rank more


def _best_first(spectra: Mapping[str, Spectrum]) -> list[Step]:
    """One module a step, by what its next value brings for its cost."""
    worth = [
        (-(float(value) ** 2) / sum(each.size), module, number)
        for module, each in spectra.items()
        for number, value in enumerate(each.values)
    ]
    return [(module,) for _, module, _ in sorted(worth)]


def _everywhere(spectra: Mapping[str, Spectrum]) -> list[Step]:
    """All modules a step, as long as they have values."""
    most = max((len(each.values) for each in spectra.values()), default=0)
    return [tuple(name for name, each in spectra.items() if len(each.values) > rank) for rank in range(most)]


def _ranks(steps: Sequence[Step], spectra: Mapping[str, Spectrum]) -> dict[str, int]:
    ranks = dict.fromkeys(spectra, 0)
    for step in steps:
        for module in step:
            ranks[module] += 1
    return ranks


def _how_many(steps: Sequence[Step], spectra: Mapping[str, Spectrum], fixed: Mapping[str, int], policy: Policy) -> int:
    """How many steps a rank, an energy or an error takes."""
    if policy.goal == "rank":
        if policy.uniform:
            return int(policy.amount)
        free = (each for module, each in spectra.items() if module not in fixed)
        budget = sum(sum(each.size) * min(int(policy.amount), len(each.values)) for each in free)
        costs = torch.tensor([sum(sum(spectra[module].size) for module in step) for step in steps])
        return int((costs.cumsum(0) <= budget).sum())
    total = sum(each.energy for each in spectra.values())
    if policy.amount == (1.0 if policy.goal == "energy" else 0.0):
        return len(steps)
    wanted = total * (policy.amount if policy.goal == "energy" else 1 - policy.amount**2)
    kept = sum(float(spectra[module].values[:rank].square().sum()) for module, rank in fixed.items())
    gains = _gains(steps, spectra)
    reached = gains.cumsum(0) + kept
    return min(len(steps), int((reached < wanted * (1 - 1e-12)).sum()) + int(kept < wanted))


def _gains(steps: Sequence[Step], spectra: Mapping[str, Spectrum]) -> torch.Tensor:
    """What each step adds to the kept squared norm."""
    rank = dict.fromkeys(spectra, 0)
    gains = []
    for step in steps:
        gains.append(sum(float(spectra[module].values[rank[module]]) ** 2 for module in step))
        for module in step:
            rank[module] += 1
    return torch.tensor(gains, dtype=torch.float64)


def _within(
    steps: Sequence[Step], free: Mapping[str, Spectrum], fixed: Mapping[str, int], size: int, size_of: SizeOf
) -> dict[str, int]:
    """The most steps whose file is no larger than ``size``, then smaller ones that still fit."""

    def ranks(count: int) -> dict[str, int]:
        return {**_ranks(steps[:count], free), **fixed}

    low, high = 0, len(steps)
    if size_of(ranks(0)) > size or (steps and size_of(ranks(1)) > size):
        raise refuse("LF503.too_small", size=size, least=size_of(ranks(min(1, len(steps)))))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size_of(ranks(middle)) <= size else (low, middle - 1)
    found = ranks(low)
    for step in steps[low : low + TRIES]:
        more = {**found, **{module: found[module] + 1 for module in step}}
        found = more if size_of(more) <= size else found
    return found
