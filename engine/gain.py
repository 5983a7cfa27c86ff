"""How good a bake is, on a sample of rows: its relative error, and how much of each LoRA survived.

gain = <stored - base, delta> / <delta, delta>.

With e = stored - exact, the gain of one LoRA is 1 + <e, d> / <d, d>. Rounding alone moves it by about
sqrt(sum e^2 d^2) / sum d^2, which shrinks with the number of weights: that is the tolerance a bake is held to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .errors import FoundryError
from .fuse import Term

SAMPLE_ROWS = 64  # of a large weight
WHOLE_WEIGHT = 1 << 20  # weights up to this size are compared whole
SIGMAS = 6.0
SLACK = 0.01


@dataclass
class GainMeter:
    """Sums over the sampled rows: of each weight, and for each layer in its slot."""

    noise: dict[str, float] = field(default_factory=dict)  # by weight: sum of squared errors, and of exact values
    signal: dict[str, float] = field(default_factory=dict)
    aligned: dict[int, float] = field(default_factory=dict)
    energy: dict[int, float] = field(default_factory=dict)
    spread: dict[int, float] = field(default_factory=dict)

    def measure(
        self,
        weight: torch.Tensor,
        stored: torch.Tensor,
        terms: Sequence[tuple[int, Term]],
        scale: torch.Tensor | None = None,
        name: str = "weight",
    ) -> None:
        """Compare ``stored`` with weight + the numbered terms on about 64 rows; both are [out, in, ...]."""
        step = 1 if weight.numel() <= WHOLE_WEIGHT else max(1, weight.shape[0] // SAMPLE_ROWS)
        rows = torch.arange(0, weight.shape[0], step, device=weight.device)
        base = weight.flatten(start_dim=1)[rows].to(torch.float64)
        deltas = [(index, delta_rows(term, rows, base)) for index, term in terms]
        exact = base + sum(delta for _, delta in deltas)
        error = read_rows(stored, rows, scale) - exact
        share = weight.shape[0] / max(1, len(rows))
        self.noise[name], self.signal[name] = (float(x.square().sum()) * share for x in (error, exact))
        for index, delta in deltas:
            self._add(self.aligned, index, (error * delta).sum())
            self._add(self.energy, index, (delta * delta).sum())
            self._add(self.spread, index, (error * delta).square().sum())

    @staticmethod
    def _add(slot: dict[int, float], index: int, value: torch.Tensor) -> None:
        slot[index] = slot.get(index, 0.0) + float(value)

    def gain(self, index: int) -> float | None:
        """Gain of one layer, or None when nothing of it was sampled, or so little that rounding drowns the number."""
        energy = self.energy.get(index, 0.0)
        return 1.0 + self.aligned[index] / energy if energy > 0 and self.tolerance(index) < 1.0 else None

    def relative_error(self) -> float | None:
        """rms of the rounding error over rms of the exact weights, of all weights together."""
        signal = sum(self.signal.values())
        return math.sqrt(sum(self.noise.values()) / signal) if signal > 0 else None

    def worst(self, count: int = 5) -> dict[str, float]:
        """The weights with the largest relative error, worst first."""
        errors = {name: math.sqrt(self.noise[name] / signal) for name, signal in self.signal.items() if signal > 0}
        return dict(sorted(errors.items(), key=lambda item: -item[1])[:count])

    def tolerance(self, index: int) -> float:
        """How far from 1 rounding alone may move this gain."""
        energy = self.energy.get(index, 0.0)
        return SLACK + SIGMAS * math.sqrt(self.spread[index]) / energy if energy > 0 else math.inf

    def require(self, index: int, name: str) -> None:
        """FoundryError LF203 when a layer kept less or more of itself than rounding explains."""
        gain = self.gain(index)
        if gain is not None and abs(gain - 1.0) > self.tolerance(index):
            raise FoundryError(
                "LF203",
                f"{name} kept {gain:.1%} of its effect; rounding explains 100% +- {self.tolerance(index):.1%}.",
                "The result would not be the model you asked for, so it was not kept.",
                "Please report this with the recipe; finishing without quantization should work.",
            )


def read_rows(stored: torch.Tensor, rows: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Rows of a stored weight in fp64, as a loader reads them: codes times scale where there is one."""
    flat = stored.flatten(start_dim=1)
    flat = flat.view(torch.uint8)[rows].view(stored.dtype) if stored.dtype.itemsize == 1 else flat[rows]
    return flat.to(torch.float32).mul(1.0 if scale is None else scale).to(torch.float64)


def delta_rows(term: Term, rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One delta on the sampled rows of the whole weight, zero outside the slice it lands on (fp64)."""
    start = term.rows.start or 0
    stop = term.rows.stop if term.rows.stop is not None else start + term.up.shape[0]
    inside = (rows >= start) & (rows < stop)
    delta = torch.zeros_like(like)
    part = term.up[rows[inside] - start].to(torch.float64) @ term.down.to(torch.float64)
    delta[inside.nonzero()[:, 0], term.columns] = part
    return delta
