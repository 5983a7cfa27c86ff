"""What a device has found out about weights and nobody has looked at yet: the host waits for it once, at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch

from .blueprint import Fate


@dataclass(frozen=True)
class Found:
    """One weight: whether its numbers are finite, whether the sample moved, and the sums of its measure.

    ``sums`` are <e, e>, <exact, exact> and three for each LoRA, of sampled rows (see ``gain.measure_of``).
    """

    fate: Fate
    finite: bool
    moved: bool
    sums: tuple[float, ...]


class Unread:
    """One vector a weight: a number that is finite when all are, a number that is 0 where nothing moved, the sums."""

    def __init__(self) -> None:
        self._told: list[tuple[Fate, torch.Tensor]] = []

    def add(self, fate: Fate, told: torch.Tensor) -> None:
        """Keep an fp64 vector on the device."""
        self._told.append((fate, told))

    def read(self) -> Iterator[Found]:
        """All of them, in order; this is where the host waits."""
        told, self._told = self._told, []
        numbers = iter(_numbers([vector for _, vector in told]))
        for fate, vector in told:
            flag, moved, *sums = (next(numbers) for _ in range(len(vector)))
            yield Found(fate, abs(flag) < float("inf"), moved != 0, tuple(sums))


def _numbers(vectors: list[torch.Tensor]) -> list[float]:
    """All numbers of vectors on a device; one by one where it has no memory for a longer one."""
    if not vectors:
        return []
    with suppress(torch.OutOfMemoryError):
        return [float(number) for number in torch.cat(vectors).tolist()]
    return [float(number) for vector in vectors for number in vector.tolist()]
