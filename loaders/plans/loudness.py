"""LF305: a LoRA that drowns the weights it goes on, measured before a bake: rms of its change over rms of the weight.

Changes come from r x r Gram matrices (``loras/energy.py``), the rms of a weight from some of its rows; both are kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from ...engine.adapters import MAGNITUDE, RESHAPE, SET, needs_all_rows, needs_weight, scale_of
from ...engine.dense import as_rows
from ...engine.findings import Finding
from ...engine.pipeline import reader_of
from ...engine.plan import Base, Layer, Patch, Plan
from ...engine.progress import Progress
from ...engine.tensors import Reader, TensorInfo, expect_rows
from ...engine.terms import Dense, effective_scale, make_term, patch_strength
from ...validator.overlap import spread
from ..disk.source import states_of
from ..disk.store import Store, key_of
from ..loras.energy import energies
from ..loras.file import LoRAFile
from ..loras.matching import stored_base
from .loud import SPREAD, Measured, keep, told

LOUDEST = 16  # weights that are looked at beside those that are spread over the model: those that are changed most
BLOCKS, ROWS, FEW = 4, 16, 4  # of each weight: runs of rows, and rows in each; of one that a server sends
WHOLE = 8  # weights that are read whole, of a LoRA whose changes depend on them
STORE = Store("rms", most=200, seal=1)  # by the files of a base


@dataclass(frozen=True)
class Change:
    """What a LoRA does to a weight, or to some rows of it: mean square of the change, and how many numbers it has."""

    module: str
    weight: str
    mean_square: float
    numbers: int
    replaces: bool = False


def loudness(plan: Plan, on_step: Progress | None = None) -> tuple[Finding, ...]:
    """A warning for each LoRA whose change is over a third of the weights in all, or of single ones.

    What depends on the weight (DoRAs, rotations, GLoRA) is worked out on a few; a layer that is replaced is told of
    where the new one has nothing of the old. Left out is a LoRA on the inputs that it gives a weight, which are zeros
    without it. Takes seconds for a large LoRA the first time.

    Raises FoundryError for a file that cannot be read.
    """
    base = stored_base(plan.base)
    looked_at = [_sample([*changes_of(base, layer)]) for layer in plan.layers]
    dependent = [_dependent(base, layer) for layer in plan.layers]
    looked_at = [[*each, *more] for each, more in zip(looked_at, dependent, strict=True)]
    weights = list(dict.fromkeys(change.weight for each in looked_at for change in each))
    rms = _rms(base, weights, on_step) if weights else {}
    findings: list[Finding] = []
    for layer, changes in zip(plan.layers, looked_at, strict=True):
        measured = [_measured(change, rms) for change in changes]
        keep(base, layer, measured)
        findings += told(layer.lora.name, layer.strength, measured)
    return tuple(findings)


def _measured(change: Change, rms: Mapping[str, float]) -> Measured:
    return Measured(change.module, change.mean_square, change.numbers, rms[change.weight], change.replaces)


def changes_of(base: Base, layer: Layer) -> Iterator[Change]:
    """What a LoRA adds to each weight, where that does not depend on the weight."""
    if not layer.strength or not isinstance(layer.factors, LoRAFile):
        return
    known = energies(layer.factors)
    for patch in layer.patches:
        energy, shape = known.get(patch.adapter), patch.adapter.delta_shape
        if energy is not None and len(shape) > 1 and not {MAGNITUDE, RESHAPE} & {*dict(patch.adapter.parts)}:
            scale = _strength(layer, patch)
            square = scale * scale * energy / math.prod(shape)
            info = base.source.tensors.get(patch.target.weight)
            if square > 0 and info is not None:
                rows = shape[0] if patch.target.part is None else min(patch.target.part[2], info.shape[0])
                yield Change(patch.adapter.module, patch.target.weight, square, rows * math.prod(shape[1:]))


def _dependent(base: Base, layer: Layer) -> list[Change]:
    """The changes that depend on the weight, of some that lie evenly in the model; kept by both files."""
    if not layer.strength or not isinstance(layer.factors, LoRAFile):
        return []
    found = [patch for patch in layer.patches if _is_dependent(base, layer.factors, patch)]
    chosen = [found[int(place)] for place in spread([str(number) for number in range(len(found))], WHOLE)]
    if not chosen:
        return []
    files = states_of(base.source)
    key = key_of("turned", files, base.dequantized, layer.lora.sha256, repr(chosen)) if files else ""
    squares = STORE.get(key) if key else None
    if not isinstance(squares, list) or len(squares) != len(chosen):
        with reader_of(base.source, None) as reader:
            squares = [_mean_square(layer, patch, reader.read(patch.target.weight)) for patch in chosen]
        if key:
            STORE.put(key, squares)
    return [_change(base, layer, patch, square) for patch, square in zip(chosen, squares, strict=True) if square > 0]


def _is_dependent(base: Base, lora: LoRAFile, patch: Patch) -> bool:
    info, adapter = base.source.tensors.get(patch.target.weight), patch.adapter
    whole = info is not None and len(info.shape) > 1 and RESHAPE not in dict(adapter.parts) and needs_weight(adapter)
    return whole and (patch.target.part is None or needs_all_rows(adapter, lora.tensors) is None)


def _mean_square(layer: Layer, patch: Patch, weight: torch.Tensor) -> float:
    """Mean square of what a patch changes at strength 1, over some of its rows."""
    term = make_term(layer, patch, None, as_rows(weight))
    if not isinstance(term, Dense):
        return 0.0
    return float(term.make(torch.tensor(_some_rows(term.height))).double().square().mean())


def _change(base: Base, layer: Layer, patch: Patch, square: float) -> Change:
    shape = base.source.tensors[patch.target.weight].shape
    rows = shape[0] if patch.target.slice is None else patch.target.slice[2]
    strength = patch_strength(layer, patch)
    square *= strength * strength
    replaces = patch.adapter.kind == SET
    return Change(patch.adapter.module, patch.target.weight, square, rows * math.prod(shape[1:]), replaces)


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


# --- the weights


def _rms(base: Base, weights: Collection[str], on_step: Progress | None) -> dict[str, float]:
    """The rms of each weight, kept by the files of the base."""
    files = states_of(base.source)
    key = key_of("finite rms", files, base.dequantized) if files else ""
    stored = STORE.get(key) if key else None
    known = dict(stored) if isinstance(stored, dict) else {}
    missing = [weight for weight in weights if weight not in known]
    run = ROWS if base.source.files or not base.source.on_disk else FEW
    with reader_of(base.source, None) as reader:
        expect_rows(reader, (each for weight in missing for each in _runs_of(base.source.tensors[weight], run)))
        for done, weight in enumerate(missing):
            if on_step is not None:
                on_step(done, len(missing))
            known[weight] = _rms_of(reader, base.source.tensors[weight], run)
    if missing and key:
        STORE.put(key, known)
    return known


def _rms_of(reader: Reader, info: TensorInfo, run: int) -> float:
    """0, as of a weight of zeros, where its numbers are not finite: nothing is compared with it."""
    rows = [reader.read_rows(*each).double() for each in _runs_of(info, run)]
    square = sum(float(each.square().sum()) for each in rows) / max(1, sum(each.numel() for each in rows))
    return math.sqrt(square) if math.isfinite(square) else 0.0


def _runs_of(info: TensorInfo, run: int) -> list[tuple[str, int, int]]:
    height = info.shape[0]
    return [(info.name, at, min(at + run, height)) for at in _runs(height)]


def _runs(height: int) -> range:
    """The first row of each run that is looked at."""
    return range(0, height, max(ROWS, -(-height // BLOCKS)))


def _some_rows(height: int) -> list[int]:
    return [row for first in _runs(height) for row in range(first, min(first + ROWS, height))]
