"""The formats side by side on one plan: bytes, weight error, what is left of the LoRAs, output error, time.

Outputs need inputs, which a file does not have: they are made up as layers have them. A few directions hold most of
their energy, some channels are 20 times as loud; those that judge are of other steps than those that are counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from ...engine.bake import BakeReport, bake
from ...engine.blueprint import blueprint
from ...engine.calibration import Calibration, Origin, Range
from ...engine.finish import Finish
from ...engine.formats import FORMATS
from ...engine.json_demo import FormatJSON
from ...engine.plan import Plan
from ...engine.quantize import AUTO, is_quantizable
from ...engine.tensors import InMemory, Nowhere, Over, TensorInfo

HEAD = ("format", "bytes/weight", "weight error", "LoRAs kept", "output error", "by its inputs", "CPU s/10^9")
DIRECTIONS, LOUD, TOKENS, HELD = 64, 6, 2048, 128
FLOOR = 0.7  # rms of what lies in no direction, beside a strong one
BLOCK = 1024  # of the Gram matrix


def made_up_inputs(width: int, tokens: int = TOKENS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(inputs that are counted, inputs that judge), fp32 [tokens, width]: of eight steps the even and the odd ones."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(DIRECTIONS, width, generator=generator) / DIRECTIONS**0.5
    loud, strong = torch.randperm(width, generator=generator)[:LOUD], torch.linspace(2, 0.2, DIRECTIONS)

    def of_steps(first: int) -> Tensor:
        parts = []
        for step in range(first, 8, 2):
            hidden = torch.randn(tokens // 4, DIRECTIONS, generator=generator) * strong
            part = hidden @ mixing * (1 + step / 16)
            part += FLOOR * torch.randn(part.shape, generator=generator)
            part[:, loud] *= 20
            parts.append(part)
        return torch.cat(parts)

    return of_steps(0), of_steps(1)


def gram_of(inputs: Tensor, size: int = BLOCK) -> Tensor:
    """The mean of x x^T in blocks of ``size`` columns below each other, fp32 [width, size]."""
    width = inputs.shape[1]
    gram = torch.zeros(width, min(size, width))
    for first in range(0, width, size):
        part = inputs[:, first : first + size]
        gram[first : first + size, : part.shape[1]] = part.t() @ part / len(inputs)
    return gram


class MadeUp(InMemory):
    """Inputs for weights of these widths, a set for each width; ``counted`` False: nothing but what judges."""

    label = "made-up inputs"

    def __init__(self, widths: set[int], counted: bool = True) -> None:
        self._values: dict[str, Tensor] = {}
        for width in sorted(widths):
            seen, held = made_up_inputs(width)
            gram = gram_of(seen)
            self._values[f"{width}.gram"] = gram if counted else torch.zeros_like(gram)
            self._values[f"{width}.held"] = held[:: len(held) // HELD]
        self.tensors = {name: TensorInfo(name, each.dtype, tuple(each.shape)) for name, each in self._values.items()}

    def read(self, name: str) -> Tensor:
        """One of them."""
        return self._values[name]


class Part(Over):
    """Some of a source's tensors."""

    def __init__(self, source: Any, names: Sequence[str]) -> None:
        self.source, self.label = source, source.label
        self.tensors = {name: source.tensors[name] for name in names}

    def read(self, name: str) -> Tensor:
        """One tensor in its stored dtype."""
        tensor: Tensor = self.source.read(name)
        return tensor


@dataclass(frozen=True)
class FormatRow:
    """One format: ``bytes`` a weight, errors as shares of the rms, the least gain of a LoRA, CPU seconds per 10^9
    weights; ``calibrated``: with what is known of the inputs. A gain of None: no LoRA is on these weights."""

    format: str
    bytes: float
    weight_error: float
    gain: float | None
    output_error: float
    calibrated_output_error: float
    seconds: float
    calibrated_seconds: float

    def to_json(self) -> FormatJSON:
        """The row as plain data."""
        return cast(FormatJSON, asdict(self))


def cells(row: FormatJSON) -> tuple[str, ...]:
    """A row under ``HEAD``."""
    errors = (f"{error:.2%}" for error in (row["output_error"], row["calibrated_output_error"]))
    kept = "-" if row["gain"] is None else f"{row['gain']:.0%}"
    return row["format"], f"{row['bytes']:.2f}", f"{row['weight_error']:.2%}", kept, *errors, f"{row['seconds']:.0f}"


def compare_formats(plan: Plan, most: int) -> list[FormatRow]:
    """Every format on the first weights with LoRAs that all of them take, ``most`` numbers at most but one weight.

    None where there is no such weight.
    """
    part = part_of_plan(plan, most)
    if not part.base.source.tensors:
        return []
    widths = {info.shape[1] for info in part.base.source.tensors.values()}
    plain, known = MadeUp(widths, counted=False), MadeUp(widths)
    return [_row(part, name, plain, known) for name in FORMATS]


def part_of_plan(plan: Plan, most: int) -> Plan:
    """The plan on those weights alone."""
    source, work = plan.base.source, plan.by_weight()
    formats, family = FORMATS.values(), plan.base.family
    infos = [
        info
        for name, info in source.tensors.items()
        if name in work and all(is_quantizable(info, family, (AUTO,), None, each) for each in formats)
    ]
    names, numbers = list[str](), 0
    for info in infos:
        numbers += math.prod(info.shape)
        if names and numbers > most:
            break
        names.append(info.name)
    kept = set(names)
    layers = (replace(each, patches=tuple(p for p in each.patches if p.target.weight in kept)) for each in plan.layers)
    return replace(plan, base=replace(plan.base, source=Part(source, names)), layers=tuple(layers))


def _row(plan: Plan, name: str, plain: MadeUp, known: MadeUp) -> FormatRow:
    infos = plan.base.source.tensors
    numbers = sum(math.prod(info.shape) for info in infos.values())
    nbytes = blueprint(plan, Finish(name)).nbytes
    weights, seconds = _baked(plan, Finish(name))
    nearest, _ = _baked(plan, Finish(name, calibration=_calibration(infos, plain)))
    guided, longer = _baked(plan, Finish(name, calibration=_calibration(infos, known)))
    gain = min((each for each in weights.gains if each is not None), default=None)
    errors = (each.relative_error or 0.0 for each in (weights, nearest, guided))
    weight, output, calibrated = errors
    return FormatRow(
        name, nbytes / numbers, weight, gain, output, calibrated, seconds / numbers * 1e9, longer / numbers * 1e9
    )


def _baked(plan: Plan, finish: Finish) -> tuple[BakeReport, float]:
    """(what a bake that keeps nothing measured, its CPU time)."""
    started = time.process_time()
    report = bake(plan, finish, Nowhere())
    return report, time.process_time() - started


def _calibration(infos: Mapping[str, TensorInfo], source: MadeUp) -> Calibration:
    ranges, sets = dict.fromkeys(infos, Range(1.0, 1.0, TOKENS)), {n: str(info.shape[1]) for n, info in infos.items()}
    return Calibration(source.label, "", ranges, sets, Origin(), source)
