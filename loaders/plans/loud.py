"""LF305 out of what was measured of a LoRA on a base.

It is kept by both files, so that a check of a workflow tells it at any strength without reading a weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.plan import MATCH_TRAINING, Base, Layer
from ...engine.texts.say import say_of
from ..bases.checkpoint import open_checkpoint
from ..disk.header import read_header, shown
from ..disk.process import PROCESS
from ..disk.source import file_state, states_of
from ..disk.store import Store, key_of
from ..loras.file import LoRAFile, open_lora
from ..remote.beside import CONFIG_FILE

LOUD = 1 / 3  # most LoRAs change a weight by 0.5% to 10%
USUAL = 0.03  # what a strength is named for
SPREAD = 32  # of what is looked at, the first so many lie evenly in the model
FAINT = 0.1  # of the upper quartile of rms: a weight that is near zero before it is trained drowns in anything
ANOTHER = 1.0  # of a layer that is replaced: it has little in common with the one before it
FARTHEST = 1e75  # strengths beyond it are told as this one: a workflow may hold any number, and squares must be finite
STORE = Store("loud", most=1000, seal=1)  # by a base and a LoRA: some 6 kB


@dataclass(frozen=True)
class Measured:
    """What a LoRA does to a weight, or to some rows of it: mean square of the change, how many numbers it has, and the
    rms of the weight. ``replaces``: the layer is another one.
    """

    module: str
    mean_square: float
    numbers: int
    rms: float
    replaces: bool = False

    @property
    def ratio(self) -> float:
        """rms of the change over rms of the weight, which is not 0."""
        return math.sqrt(self.mean_square) / self.rms


def told(name: str, strength: float, measured: Sequence[Measured]) -> tuple[Finding, ...]:
    """LF305 for a LoRA of which this was measured at this strength: over a third of its weights, or other layers."""
    added = [each for each in measured if not each.replaces]
    found = (_drowned(name, strength, added), _another(name, [each for each in measured if each.replaces]))
    return tuple(finding for finding in found if finding is not None)


def _drowned(name: str, strength: float, looked_at: Sequence[Measured]) -> Finding | None:
    measured = [each for each in looked_at if each.rms > 0]
    if not measured:
        return None
    size = torch.tensor([each.rms for each in measured], dtype=torch.float64)
    floor = FAINT * float(size.quantile(0.75))
    solid = [each for each in measured if each.rms >= floor]
    even = [each for each in looked_at[:SPREAD] if each.rms > 0] or measured
    added = sum(each.mean_square * each.numbers for each in even)
    held = sum(each.rms * each.rms * each.numbers for each in even)
    total, worst = math.sqrt(added / held), max(solid, key=lambda each: each.ratio)
    loud = [each for each in solid if each.ratio > LOUD]
    if total <= LOUD and not loud:
        return None
    wanted = strength * USUAL / (total if total > LOUD else worst.ratio)
    values = {"total": _share(total), "loud": len(loud), "layers": len(measured), "module": shown(worst.module)}
    values |= {"most": _share(worst.ratio), "strength": f"{wanted:.2g}", "now": f"{strength:g}"}
    return say_of(name, "LF305.loud", **values)


def _another(name: str, replaced: Sequence[Measured]) -> Finding | None:
    """LF305 for whole layers that are as far from those before them as any other numbers would be."""
    far = [each for each in replaced if each.rms > 0 and each.ratio > ANOTHER]
    if not far:
        return None
    worst = max(far, key=lambda each: each.ratio)
    values = {"count": len(far), "module": shown(worst.module), "most": _share(worst.ratio)}
    return say_of(name, "LF305.replaced", **values)


def _share(ratio: float) -> str:
    return f"{ratio:.0%}" if ratio < 10 else f"{ratio:.3g} times"


# --- kept


def keep(base: Base, layer: Layer, measured: Sequence[Measured]) -> None:
    """Write down what was measured of a layer, where it is the same for every strength and no row has block weights."""
    square, lora = layer.strength * layer.strength, layer.factors  # ** raises OverflowError
    plain = not layer.blocks and layer.rounding != MATCH_TRAINING and (base.dequantized or not base.quantized)
    if not plain or not isinstance(lora, LoRAFile) or lora.path is None or not 0 < square < math.inf:
        return
    one = [replace(each, mean_square=each.mean_square / square) for each in measured]
    files = states_of(base.source)
    key = _key(files, base.dequantized, _digest(lora))
    if files and all(math.isfinite(each.mean_square) for each in one) and STORE.get(key) is None:
        STORE.put(key, [asdict(each) for each in one])


def kept(base: Path, lora: Path) -> list[Measured] | None:
    """What was measured of two files, at strength 1; None where no check or bake has. Headers and alphas are read.

    Raises FoundryError for a file that cannot be used.
    """
    files, dequantized = _stored_as(base)
    found = STORE.get(_key([file_state(file, file.parent) for file in files], dequantized, _read_as(lora)))
    try:
        return None if found is None else [Measured(**each) for each in found]
    except TypeError:  # of another version
        return None


def known_loudness(base: Path, lora: Path) -> Callable[[str, float], tuple[Finding, ...]]:
    """LF305 of a LoRA file on a base file, by its name and strength: where it was measured before, else nothing."""
    try:
        measured = kept(base, lora) or []
    except FoundryError:  # whether it can be used is not asked here
        measured = []
    return partial(_told_at, measured)


def _told_at(measured: Sequence[Measured], name: str, strength: float) -> tuple[Finding, ...]:
    strength = math.copysign(min(abs(strength), FARTHEST), strength)
    square = strength * strength
    return told(name, strength, [replace(each, mean_square=each.mean_square * square) for each in measured])


def _key(files: list[Any], dequantized: bool, read_as: str) -> str:
    """By the state of a base's files, and by what a LoRA is read as."""
    return key_of("loud", files, dequantized, read_as)


def _stored_as(base: Path) -> tuple[tuple[Path, ...], bool]:
    """The files of a base, and whether its weights are codes."""
    header = read_header(base) if base.is_file() else None
    state = (header.size, header.mtime_ns) if header else None
    known: tuple[tuple[Path, ...], bool] | None = PROCESS.files.get("stored as", base, state) if header else None
    if known is None:
        stored = open_checkpoint(base)
        known = stored.files, stored.quantized is not None
        if header:
            PROCESS.files.put(known, "stored as", base, state)
    return known


def _digest(lora: LoRAFile) -> str:
    return key_of(lora.info.sha256, repr(lora.adapters))


def _read_as(path: Path) -> str:
    """The same of a file, which others beside it have a say in; a page asks after every edit."""
    header = read_header(path)
    state = header.size, header.mtime_ns, *(_changed(each) for each in (path.with_name(CONFIG_FILE), path.parent))
    known: str | None = PROCESS.files.get("read as", path, state)
    return known or PROCESS.files.put(_digest(open_lora(path)), "read as", path, state)


def _changed(path: Path) -> int:
    """When a file or a folder was last changed; 0 for one that is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
