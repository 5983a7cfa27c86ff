"""What is known of the inputs of a model's Linears: how large they were, and how they hang together. Frozen data.

Collected while the unquantized model samples (``collect.py``), kept in a file, used when its weights are rounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from .json_bake import RecipeLayerJSON
from .tensors import TensorSource
from .texts.say import refuse

RANGES, ROUNDING = "ranges", "ranges and rounding"
WHAT = (RANGES, ROUNDING)
GRAM, HELD = "gram", "held"  # what the tensors of a set of inputs are called, after its name and a dot
FINE = (0.03, 400.0)  # rms and amax of inputs that a host rounds well to fp8 without a scale: 3.8 % of the output
HEADROOM = 1.1  # over the largest input that was seen
LARGEST = 448.0  # of fp8 (e4m3)
SMALLEST = torch.finfo(torch.float32).tiny  # that a file's fp32 holds and a host may divide by
BLOCKS = (1024, 256)  # columns of a block of a Gram matrix: the larger one where there is memory for it
LEAST_HELD = 8  # tokens kept aside that judge a weight


@dataclass(frozen=True)
class Range:
    """Of all inputs of one Linear: the largest magnitude, the root mean square, how many tokens (rows)."""

    amax: float
    rms: float
    tokens: int

    @property
    def input_scale(self) -> float | None:
        """What inputs are divided by before a host rounds them to fp8; None where 1 does as well, as for zeros."""
        (least, most), scale = FINE, self.amax * HEADROOM / LARGEST
        return scale if (self.rms < least or self.amax > most) and scale >= SMALLEST else None


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs x of some Linears: ``gram`` fp32 [in, size], blocks of the mean of x x^T below each other (size 1024,
    256, or in where that is less), and ``held`` fp32 [tokens, in], inputs that are not in there."""

    gram: torch.Tensor
    held: torch.Tensor


@dataclass(frozen=True)
class Origin:
    """The model that sampled: its base, by name and fingerprint, and the LoRAs that were in it, as a recipe has them.

    Without a ``fingerprint`` the MODEL told neither; ``others`` are what was done to it that is no part of a recipe.
    """

    base: str = ""
    fingerprint: str = ""
    layers: tuple[RecipeLayerJSON, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranges by the name of a Linear's weight; ``sets`` are those that have more, by the set of inputs they share.

    ``identity`` (sha256, hex) stands for all numbers. ``source`` has the tensors ``SET.gram`` and ``SET.held``.
    """

    name: str
    identity: str
    ranges: Mapping[str, Range]
    sets: Mapping[str, str]
    origin: Origin
    source: TensorSource = field(repr=False)

    def inputs(self, weight: str) -> Inputs:
        """Of the Linear with this weight, which is in ``sets``. FoundryError LF205 for NaN or Inf."""
        found = self.sets[weight]
        gram, held = (self.source.read(f"{found}.{part}").to(torch.float32) for part in (GRAM, HELD))
        if not math.isfinite(gram.sum().item()) or not math.isfinite(held.sum().item()):
            raise refuse("LF205.damaged", calibration=self.name, weight=weight)
        return Inputs(gram, held)

    def covers(self, weight: str, columns: int) -> bool:
        """Whether a weight of so many columns is rounded by what is known of its inputs."""
        gram = self.source.tensors.get(f"{self.sets.get(weight)}.{GRAM}")
        return gram is not None and gram.shape[0] == columns
