"""LF305: a LoRA that drowns the weights it goes on, measured before a bake: rms of its change over rms of the weight.

Changes come from r x r Gram matrices (``loras/energy.py``), the rms of a weight from some of its rows; both are kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from ...engine.adapters import MAGNITUDE, RESHAPE, scale_of
from ...engine.findings import Finding
from ...engine.pipeline import reader_of
from ...engine.plan import Base, Layer, Patch, Plan
from ...engine.progress import Progress
from ...engine.tensors import Reader, TensorInfo
from ...engine.terms import effective_scale
from ...engine.texts.say import say_of
from ...validator.overlap import spread
from ..disk.header import shown
from ..disk.source import states_of
from ..disk.store import Store, key_of
from ..loras.energy import energies
from ..loras.file import LoRAFile
from ..loras.matching import stored_base

LOUD = 1 / 3  # most LoRAs change a weight by 0.5% to 10%
USUAL = 0.03  # what a strength is named for
SPREAD, LOUDEST = 32, 16  # weights that are looked at: spread over the model, and those that are changed most
FAINT = 0.1  # of the upper quartile of rms: a weight that is near zero before it is trained drowns in anything
BLOCKS, ROWS = 4, 16  # of each weight: runs of rows, and rows in each
STORE = Store("rms", most=200, seal=1)  # by the files of a base


@dataclass(frozen=True)
class Change:
    """What a LoRA does to a weight, or to some rows of it: mean square of the change, and how many numbers it has."""

    module: str
    weight: str
    mean_square: float
    numbers: int


def loudness(plan: Plan, on_step: Progress | None = None) -> tuple[Finding, ...]:
    """A warning for each LoRA whose change is over a third of the weights in all, or of single ones.

    DoRAs, rotations and what replaces a weight are left out: what they do depends on the weight; so is a LoRA on the
    inputs that it gives a weight, which are zeros without it. Takes seconds for a large LoRA the first time.

    Raises FoundryError for a file that cannot be read.
    """
    base = stored_base(plan.base)
    changes = [list(_changes(base, layer)) for layer in plan.layers]
    looked_at = [_sample(each) for each in changes]
    weights = list(dict.fromkeys(change.weight for each in looked_at for change in each))
    rms = _rms(base, weights, on_step) if weights else {}
    findings = (_judged(layer, each, rms) for layer, each in zip(plan.layers, looked_at, strict=True))
    return tuple(finding for finding in findings if finding is not None)


def _changes(base: Base, layer: Layer) -> Iterator[Change]:
    if not layer.strength or not isinstance(layer.factors, LoRAFile):
        return
    known = energies(layer.factors)
    for patch in layer.patches:
        energy, shape = known.get(patch.adapter), patch.adapter.delta_shape
        if energy is not None and len(shape) > 1 and not {MAGNITUDE, RESHAPE} & {*dict(patch.adapter.parts)}:
            scale = _strength(layer, patch)
            square = scale * scale * energy / math.prod(shape)
            rows = shape[0] if patch.target.part is None else patch.target.part[2]
            if square > 0 and patch.target.weight in base.source.tensors:
                yield Change(patch.adapter.module, patch.target.weight, square, rows * math.prod(shape[1:]))


def _strength(layer: Layer, patch: Patch) -> float:
    """What the delta as filed is multiplied by: a trainer that is matched may know no alpha."""
    filed = scale_of(patch.adapter)
    return effective_scale(layer, patch) / filed if filed else 0.0


def _sample(changes: Sequence[Change]) -> list[Change]:
    """Some that lie evenly in the model, then those that change most."""
    places = [str(number) for number in range(len(changes))]
    even = [changes[int(place)] for place in spread(places, SPREAD)]
    most = sorted(changes, key=lambda change: -change.mean_square)[:LOUDEST]
    return [*even, *(change for change in most if change not in even)]


def _judged(layer: Layer, changes: Sequence[Change], rms: dict[str, float]) -> Finding | None:
    measured = [change for change in changes if rms[change.weight] > 0]
    if not measured:
        return None
    size = torch.tensor([rms[change.weight] for change in measured], dtype=torch.float64)
    floor = FAINT * float(size.quantile(0.75))
    ratios = {change: math.sqrt(change.mean_square) / rms[change.weight] for change in measured}
    solid = [change for change in measured if rms[change.weight] >= floor]
    even = [change for change in changes[:SPREAD] if rms[change.weight] > 0] or measured
    added = sum(change.mean_square * change.numbers for change in even)
    held = sum(rms[change.weight] ** 2 * change.numbers for change in even)
    total, worst = math.sqrt(added / held), max(solid, key=lambda change: ratios[change])
    loud = [change for change in solid if ratios[change] > LOUD]
    if total <= LOUD and not loud:
        return None
    strength = layer.strength * USUAL / (total if total > LOUD else ratios[worst])
    values = {"total": _share(total), "loud": len(loud), "layers": len(measured), "module": shown(worst.module)}
    values |= {"most": _share(ratios[worst]), "strength": f"{strength:.2g}", "now": f"{layer.strength:g}"}
    return say_of(layer.lora.name, "LF305.loud", **values)


def _share(ratio: float) -> str:
    return f"{ratio:.0%}" if ratio < 10 else f"{ratio:.3g} times"


# --- the weights


def _rms(base: Base, weights: Collection[str], on_step: Progress | None) -> dict[str, float]:
    """The rms of each weight, kept by the files of the base."""
    files = states_of(base.source)
    key = key_of("rms", files, base.dequantized) if files else ""
    stored = STORE.get(key) if key else None
    known = dict(stored) if isinstance(stored, dict) else {}
    missing = [weight for weight in weights if weight not in known]
    with reader_of(base.source, None) as reader:
        for done, weight in enumerate(missing):
            if on_step is not None:
                on_step(done, len(missing))
            known[weight] = _rms_of(reader, base.source.tensors[weight])
    if missing and key:
        STORE.put(key, known)
    return known


def _rms_of(reader: Reader, info: TensorInfo) -> float:
    height = info.shape[0]
    runs = range(0, height, max(ROWS, -(-height // BLOCKS)))
    rows = [reader.read_rows(info.name, first, min(first + ROWS, height)).double() for first in runs]
    return math.sqrt(sum(float(each.square().sum()) for each in rows) / max(1, sum(each.numel() for each in rows)))
