"""What a LoRA does to a model, in a few numbers that survive re-saving: another dtype, other names, other factors.

Each module gives the Frobenius norm of its delta and u' delta v for a few fixed sign vectors u and v. They come from
the factors, through r x r Gram matrices; no delta of a LoRA is built. Modules have no names here: they are told apart
by their sizes and numbers, so neither prefixes nor the order of keys count.

Two fingerprints match when each module of the one has one in the other that is the same within 1 %. Rounding factors
to bf16 moves them by 0.2 %; 5 % of noise on the factors moves them by 7 %. What changes the modules themselves gives
another fingerprint: q, k and v joined into one, fewer modules, a rank that cuts something off.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from einops import rearrange

from ..engine.adapters import BLOCK, LORA, NOT_READ, delta_rows, needs_weight, scale_of
from ..engine.dense import DeltaRows, Parts, as_rows, take
from ..engine.gemm import full_fp32
from ..engine.lineage import Sketch
from ..engine.low_rank import lora_factors
from ..engine.plan import Adapter

VERSION = 1  # raised when the numbers change
SIGNS = 2  # sign vectors on each side: a module has SIGNS * SIGNS projections
TOLERANCE = 1e-2
FAINT = 1e-3  # of the strongest module: below it a difference counts as if the module were that strong
DIGITS = 5
FACTORS = ("up", "down", "mid")  # of a plain LoRA
Shape = tuple[int, int]
Mark = tuple[float, ...]  # the norm, then the projections


@dataclass(frozen=True)
class Fingerprint:
    """``marks``: shape of the delta [rows, columns] -> a mark for each module that changes anything, weakest first."""

    marks: Mapping[Shape, tuple[Mark, ...]]

    def __len__(self) -> int:
        return sum(map(len, self.marks.values()))

    def matches(self, other: Fingerprint, tolerance: float = TOLERANCE) -> bool:
        """Whether both are of one LoRA. One that changes nothing matches nothing."""
        counts, others = ({shape: len(found) for shape, found in each.marks.items()} for each in (self, other))
        if not counts or counts != others:
            return False
        faint = FAINT * max(found[-1][0] for found in self.marks.values())
        return all(_same(found, other.marks[shape], faint, tolerance) for shape, found in self.marks.items())

    def sketch(self) -> Sketch:
        """The same in a few numbers a shape, for records: the norm of all its modules and the sums of projections."""
        return tuple((*map(float, (*shape, len(found))), *_sums(found)) for shape, found in self.marks.items())

    def to_json(self) -> dict[str, Any]:
        """As plain data (a few dozen bytes a module); ``from_json`` reads it back."""
        shapes = {f"{rows}x{columns}": [list(mark) for mark in found] for (rows, columns), found in self.marks.items()}
        return {"version": VERSION, "shapes": shapes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fingerprint:
        """What ``to_json`` made. Raises KeyError, TypeError or ValueError for anything else, and for other versions."""
        if data["version"] != VERSION:
            raise ValueError(f"a fingerprint of version {data['version']}")
        if not isinstance(data["shapes"], Mapping):
            raise ValueError("its shapes are no mapping")
        return cls({_shape(name): tuple(map(_mark, found)) for name, found in data["shapes"].items()})


def make_fingerprint(modules: Iterable[tuple[Adapter, Parts]]) -> Fingerprint:
    """The fingerprint of adapters and their tensors as the file stores them; each is read once and let go."""
    marks: dict[Shape, list[Mark]] = {}
    with full_fp32():
        for adapter, parts in modules:
            for shape, mark in _marks(adapter, parts):
                if 0 < mark[0] < math.inf:
                    marks.setdefault(shape, []).append(mark)
    return Fingerprint({shape: tuple(sorted(found)) for shape, found in sorted(marks.items())})


# --- one module


def _marks(adapter: Adapter, parts: Parts) -> Iterator[tuple[Shape, Mark]]:
    """A mark of the delta; where that depends on the base's weights, of the product and of each other part."""
    done: tuple[str, ...] = NOT_READ
    if adapter.kind == LORA:
        yield _of_product(*lora_factors(parts), scale_of(adapter))
        done += FACTORS
    elif not needs_weight(adapter):
        weight = as_rows(torch.empty(adapter.delta_shape, device="meta"))
        yield _of_rows(delta_rows(adapter, parts, weight), (weight.shape[0], weight.shape[1]))
        done = tuple(parts)
    for rows in (as_rows(tensor) for part, tensor in parts.items() if part not in done):
        yield _of_rows(lambda index, rows=rows: take(rows, index), (rows.shape[0], rows.shape[1]))  # type: ignore[misc]


def _of_product(up: torch.Tensor, down: torch.Tensor, scale: float) -> tuple[Shape, Mark]:
    """scale * up [rows, r] @ down [r, columns]: |up @ down|^2 is the sum over (up' up) * (down down')."""
    up, down = up.to(torch.float32), down.to(torch.float32)
    square = float(((up.mT @ up).double() * (down @ down.mT).double()).sum())
    left, right = _signs(up.shape[0], "rows") @ up, down @ _signs(down.shape[1], "columns").mT
    return (up.shape[0], down.shape[1]), _rounded(math.sqrt(max(square, 0.0)), left.double() @ right.double(), scale)


def _of_rows(make: DeltaRows, shape: Shape) -> tuple[Shape, Mark]:
    """The same for a delta that is made row by row, a block of rows at a time."""
    square, projections = 0.0, torch.zeros(SIGNS, SIGNS, dtype=torch.float64)
    left, right = _signs(shape[0], "rows"), _signs(shape[1], "columns")
    step = max(1, BLOCK // max(1, shape[1]))
    for first in range(0, shape[0], step):
        rows = slice(first, min(first + step, shape[0]))
        block = make(rows)
        square += float(block.double().square().sum())
        projections += (left[:, rows] @ (block @ right.mT)).double()
    return shape, _rounded(math.sqrt(square), projections, 1.0)


def _rounded(norm: float, projections: torch.Tensor, scale: float) -> Mark:
    numbers = [norm * abs(scale), *(projections * scale).flatten().tolist()]
    return tuple(float(f"{number:.{DIGITS}g}") for number in numbers)


@lru_cache(maxsize=64)
def _signs(length: int, side: str) -> torch.Tensor:
    """SIGNS rows of +1 and -1 (fp32), the same on every machine: bits of a hash, not of torch's random numbers."""
    count = -(-length // 8)
    stream = hashlib.shake_256(f"lora-foundry fingerprint {VERSION} {side} {length}".encode()).digest(SIGNS * count)
    stored = rearrange(np.frombuffer(stream, np.uint8), "(sign byte) -> sign byte", sign=SIGNS)
    bits = np.unpackbits(stored, axis=1, count=length, bitorder="little")
    return torch.from_numpy(bits).to(torch.float32).mul_(2).sub_(1)


def _sums(marks: tuple[Mark, ...]) -> Iterator[float]:
    norms, *projections = zip(*marks, strict=True)
    for number in (math.hypot(*norms), *map(math.fsum, projections)):
        yield float(f"{number:.{DIGITS}g}")


# --- comparing


def _same(ours: tuple[Mark, ...], theirs: tuple[Mark, ...], faint: float, tolerance: float) -> bool:
    """Whether modules of one shape are the same ones: sorted norms agree, and each has its like on the other side."""
    one, two = (torch.tensor(each, dtype=torch.float64) for each in (ours, theirs))
    if one.shape != two.shape or bool(((one[:, 0] - two[:, 0]).abs() > tolerance * one[:, 0].clamp(min=faint)).any()):
        return False
    # Norms that lie close together may change places when they are rounded: look for the nearest, not the next.
    apart = torch.cdist(one[:, 1:], two[:, 1:], compute_mode="donot_use_mm_for_euclid_dist") / SIGNS
    nearest = (apart.amin(dim).div(each[:, 0].clamp(min=faint)) for dim, each in ((1, one), (0, two)))
    return all(float(each.square().mean().sqrt()) <= tolerance for each in nearest)


def _shape(name: str) -> Shape:
    rows, columns = name.split("x")
    return int(rows), int(columns)


def _mark(numbers: Iterable[Any]) -> Mark:
    try:
        mark = tuple(map(float, numbers))
    except OverflowError as error:  # JSON knows larger numbers than a float does
        raise ValueError("a mark that is no number") from error
    if len(mark) != 1 + SIGNS * SIGNS or not all(map(math.isfinite, mark)):
        raise ValueError("a mark of another size")
    return mark
