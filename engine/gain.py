"""How good a bake is, on a sample of rows: its relative error, and how much of each LoRA survived.

gain = <stored - base, delta> / <delta, delta>.

With e = stored - exact, the gain of one LoRA is 1 + <e, d> / <d, d>. Rounding alone moves it by about
sqrt(sum e^2 d^2) / sum d^2, which shrinks with the number of weights: that is the tolerance a bake is held to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .gemm import Workspace
from .terms import AnyTerm
from .texts.say import refuse

WHOLE_WEIGHT = 1 << 18  # weights up to this size are compared whole
SAMPLE, LEAST_ROWS = 1 << 16, 32  # numbers, and rows, of a larger one
SIGMAS = 6.0
SLACK = 0.01


@dataclass(frozen=True)
class Share:
    """One LoRA in one weight: <e, d>, <d, d> and <e^2, d^2> (of all rows, from a sample)."""

    aligned: float = 0.0
    energy: float = 0.0
    spread: float = 0.0

    def __add__(self, other: Share) -> Share:
        return Share(self.aligned + other.aligned, self.energy + other.energy, self.spread + other.spread)

    @property
    def gain(self) -> float:
        """1 for a LoRA that is there in full; NaN where nothing of it was sampled."""
        return 1.0 + self.aligned / self.energy if self.energy > 0 else math.nan

    @property
    def tolerance(self) -> float:
        """How far from 1 rounding alone may move the gain."""
        return SLACK + SIGMAS * math.sqrt(self.spread) / self.energy if self.energy > 0 else math.inf


@dataclass(frozen=True)
class Measure:
    """One weight: squared error and squared exact values (of all rows, from a sample), and each LoRA's share in it.

    ``driven``: of the factors by which LoRAs were driven to arrive whole the one farthest from 1, see ``repair``.
    ``by_outputs``: error and shares are those of outputs, see ``outputs.py``.
    """

    noise: float
    signal: float
    shares: tuple[Share, ...] = ()
    driven: float = 1.0
    by_outputs: bool = False

    @property
    def error(self) -> float | None:
        """rms of the rounding error over rms of the exact weight."""
        return math.sqrt(self.noise / self.signal) if self.signal > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; what is as usual is left out."""
        usual = {"driven": 1.0, "by_outputs": False}
        return {key: value for key, value in asdict(self).items() if key not in usual or value != usual[key]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measure:
        """The measure ``to_json`` wrote."""
        shares = tuple(Share(**share) for share in data["shares"])
        return cls(data["noise"], data["signal"], shares, data.get("driven", 1.0), data.get("by_outputs", False))


def sampled_rows(shape: Sequence[int]) -> range:
    """The rows of a weight that are compared: all of a small one, else 32 or more, spread evenly."""
    rows, size = (shape[0] if shape else 1), math.prod(shape)
    wanted = rows if size <= WHOLE_WEIGHT else max(LEAST_ROWS, SAMPLE * rows // size)
    return range(0, rows, max(1, rows // max(1, wanted)))


def measure(
    base: torch.Tensor,
    stored: torch.Tensor,
    rows: range,
    shape: Sequence[int],
    terms: Sequence[AnyTerm],
    workspace: Workspace | None = None,
) -> Measure:
    """Compare rows of a result with base + terms.

    ``base`` and ``stored`` are [len(rows), in * kh * kw], the rows ``rows`` of a weight of ``shape``; ``stored`` as a
    loader reads it. What is worked with lies in the ``workspace``.
    """
    sums = sampled_sums(base, stored, rows, terms, workspace or Workspace())
    return measure_of(sums.tolist(), whole_of(shape, rows))


def sampled_sums(
    base: torch.Tensor, stored: torch.Tensor, rows: range, terms: Sequence[AnyTerm], workspace: Workspace
) -> torch.Tensor:
    """What ``measure_of`` takes, as an fp64 vector where the weights are."""
    device = base.device
    dtype = torch.float64 if rows.step == 1 else torch.float32  # a sample is off by 0.1% anyway
    exact = workspace.take(base.shape, device, dtype, "exact").copy_(base)
    deltas = workspace.take((len(terms), *base.shape), device, dtype, "deltas")
    for term, delta in zip(terms, deltas, strict=True):
        write_delta(term, rows, delta, workspace)
        exact += delta
    return _compare(exact, stored, deltas, workspace)


def whole_of(shape: Sequence[int], rows: range) -> float:
    """How many rows of a weight one of the sampled stands for."""
    return (shape[0] if shape else 1) / max(1, len(rows))


def compared(
    exact: torch.Tensor,
    stored: torch.Tensor,
    deltas: Iterable[torch.Tensor],
    whole: float = 1.0,
    workspace: Workspace | None = None,
) -> Measure:
    """Rows of a result against what they should be, and the share of each delta; all of one shape and on one device.

    ``whole``: how many rows of the weight one of these stands for. The difference is taken in the dtype of ``exact``.
    """
    return measure_of(_compare(exact, stored, deltas, workspace or Workspace()).tolist(), whole)


def _compare(
    exact: torch.Tensor, stored: torch.Tensor, deltas: Iterable[torch.Tensor], workspace: Workspace
) -> torch.Tensor:
    error = workspace.take(exact.shape, exact.device, exact.dtype, "error").copy_(stored).sub_(exact)
    signal = _squares(_wide(exact, "delta", workspace))
    wide = _wide(error, "error", workspace)
    sums = [_squares(wide), signal]
    for delta in deltas:
        sums += _share(wide, _wide(delta, "delta", workspace), workspace)
    return torch.stack(sums)


def measure_of(sums: Sequence[float], whole: float) -> Measure:
    """The measure of <e, e>, <exact, exact> and, LoRA by LoRA, <e, d>, <d, d> and <ed, ed> of the sampled rows.

    ``whole``: how many rows of the weight one of the sample stands for; the spread of its sums grows as they do.
    """
    noise, signal, *rest = sums
    threes = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    shares = tuple(Share(aligned * whole, energy * whole, spread * whole**2) for aligned, energy, spread in threes)
    return Measure(noise * whole, signal * whole, shares)


def _share(error: torch.Tensor, delta: torch.Tensor, workspace: Workspace) -> list[torch.Tensor]:
    product = torch.mul(error, delta, out=workspace.take(delta.shape, delta.device, delta.dtype, "product"))
    return [error.dot(delta), _squares(delta), _squares(product)]


def _wide(values: torch.Tensor, slot: str, workspace: Workspace) -> torch.Tensor:
    """All values in fp64: in fp32 the square of 1e20 is Inf, and Inf / Inf no number."""
    return workspace.take(values.shape, values.device, torch.float64, slot).copy_(values).flatten()


def _squares(values: torch.Tensor) -> torch.Tensor:
    return values.dot(values)


@dataclass
class GainMeter:
    """The measures of all weights of a bake, and for each LoRA, by its number, the sums over its weights.

    ``held`` are the sums over quantized weights only: bf16 may swallow a weak LoRA, which is reported and no fault.
    """

    weights: dict[str, Measure] = field(default_factory=dict)
    layers: dict[int, Share] = field(default_factory=dict)
    held: dict[int, Share] = field(default_factory=dict)

    def add(self, name: str, measured: Measure, numbers: Sequence[int], quantized: bool = True) -> None:
        """Count a weight; ``numbers`` says which LoRA each of its shares belongs to."""
        self.weights[name] = measured
        for number, share in zip(numbers, measured.shares, strict=True):
            for sums in (self.layers, self.held) if quantized else (self.layers,):
                sums[number] = sums.get(number, Share()) + share

    def gain(self, number: int) -> float | None:
        """Gain of one LoRA, or None when nothing of it was sampled, or so little that rounding drowns the number."""
        share = self.layers.get(number, Share())
        return share.gain if share.tolerance < 1.0 else None

    def require(self, number: int, name: str) -> None:
        """FoundryError LF203 when quantized weights kept less or more of a LoRA than rounding explains."""
        share = self.held.get(number, Share())
        if share.tolerance < 1.0 and abs(share.gain - 1.0) > share.tolerance:
            raise refuse("LF203.gain", lora=name, kept=f"{share.gain:.1%}", tolerance=f"{share.tolerance:.1%}")

    def relative_error(self) -> float | None:
        """rms of the rounding error over rms of the exact weights, of all weights together."""
        signal = sum(measured.signal for measured in self.weights.values())
        return math.sqrt(sum(measured.noise for measured in self.weights.values()) / signal) if signal > 0 else None

    def errors(self) -> dict[str, float]:
        """Relative error of every weight, worst first."""
        known = {name: measured.error for name, measured in self.weights.items() if measured.error is not None}
        return dict(sorted(known.items(), key=lambda item: -item[1]))


def write_delta(term: AnyTerm, rows: range, out: torch.Tensor, workspace: Workspace) -> None:
    """Write one delta on the sampled rows of the whole weight into ``out``, zero outside the slice it lands on."""
    if term.place.is_whole:
        term.write(_numbers(rows, out.device), out, workspace)
        return
    start, stop = term.span
    first, last = (-((edge - rows.start) // -rows.step) for edge in (max(start, rows.start), min(stop, rows.stop)))
    inside = range(rows.start + first * rows.step - start, rows.start + last * rows.step - start, rows.step)
    out.zero_()[first:last, term.place.columns] = term.delta(_numbers(inside, out.device), out.dtype)


def _numbers(rows: range, device: torch.device) -> torch.Tensor:
    return torch.arange(rows.start, rows.stop, rows.step, device=device)
