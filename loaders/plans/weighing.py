"""``lineage weigh``: is a LoRA inside another one, or inside a checkpoint? Asked of the weights, told with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...engine.errors import FoundryError
from ...engine.plan import FUSE, Base, Layer
from ...engine.progress import Progress
from ...engine.tensors import InMemory, TensorInfo
from ...validator.containment import Containment, contained_share, contains, is_apart
from ...validator.overlap import Overlap, as_filed, overlap
from ..bases.checkpoint import Checkpoint, is_lora, open_checkpoint
from ..bases.dequantize import DEQUANTIZE, Dequantized, opened
from ..bases.families import detect_base
from ..loras.file import LoRAFile, open_lora
from ..names.lookup import BIAS, BaseNames, bare
from .planner import make_layer

CONTAINS, APART, UNKNOWN = "contains it", "does not contain it", "cannot be told"


def weigh(file: Path, lora: Path, original: Path | None = None, on_step: Progress | None = None) -> dict[str, Any]:
    """Whether ``file``, a LoRA or a checkpoint, has ``lora`` inside, as plain data with a sentence under ``says``.

    ``verdict`` is one of "contains it", "does not contain it" and "cannot be told"; ``coefficient`` is the strength it
    is inside with (None where nothing could be measured), ``modules`` of ``of`` have it. ``original`` is the checkpoint
    before the merge: needed for a checkpoint; for two LoRAs of different naming it says which modules are the same.
    Raises FoundryError for files that cannot be read or have nothing in common.
    """
    inner = open_lora(lora)
    if is_lora(file):
        return _weigh_lora(open_lora(file), inner, original)
    if original is None:
        raise FoundryError(
            "weigh",
            f"{file.name} is a checkpoint, and nothing says what it was before.",
            "What was merged into it only shows as a difference from the original.",
            "Give the checkpoint it was made from: --original FILE.",
        )
    return _weigh_checkpoint(file, inner, original, on_step)


# --- in a checkpoint


def _weigh_checkpoint(file: Path, lora: LoRAFile, original: Path, on_step: Progress | None) -> dict[str, Any]:
    base = _base(original)
    layer = _layer(base, lora)
    share = contained_share(_plain(file), base.source, layer, on_step)
    where = f"{file.name}, compared with {original.name},"
    if share is None:
        return _told(UNKNOWN, f"{where} does not tell whether {lora.label} is inside: {_DROWNED}")
    if share.modules:
        often = f"in {share.modules} of {share.of} modules looked at"
        says = f"{where} contains {lora.label} at a strength of {share.coefficient:.2f} ({often})."
        return _told(CONTAINS, says, share)
    says = f"{where} does not contain {lora.label} ({share.coefficient:.2f} of it in {share.of} modules looked at)."
    return _told(APART, says, share)


_DROWNED = "they have too few weights in common, or it was changed in other ways so far that a LoRA drowns in that."


def _told(verdict: str, says: str, share: Containment | None = None) -> dict[str, Any]:
    numbers = {} if share is None else {"modules": share.modules, "of": share.of, "spread": share.spread}
    coefficient = None if share is None else share.coefficient
    return {"kind": "checkpoint", "verdict": verdict, "coefficient": coefficient, **numbers, "says": says}


def _plain(path: Path) -> Checkpoint | Dequantized:
    return opened(open_checkpoint(path), DEQUANTIZE)


def _base(path: Path) -> Base:
    source = _plain(path)
    return Base(path.name, detect_base(source.tensors), source)


def _layer(base: Base, lora: LoRAFile) -> Layer:
    return make_layer(base, lora, FUSE, 1.0, BaseNames(base.source.tensors, base.family), allow_partial=True)


# --- in another LoRA


def _weigh_lora(outer: LoRAFile, inner: LoRAFile, original: Path | None) -> dict[str, Any]:
    base = _base(original) if original else _common_base(outer, inner)
    one = overlap(as_filed(_layer(base, outer)), as_filed(_layer(base, inner)))
    total = one.total
    apart = (is_apart(total) and one.left_out <= total.weights) or contains(total.swapped())
    verdict = CONTAINS if contains(total) else APART if apart else UNKNOWN
    return {
        "kind": "lora",
        "verdict": verdict,
        "coefficient": total.coefficient if total.weights else None,
        "cosine": total.cosine,
        "modules": total.weights,
        "of": len(inner.adapters),
        "left_out": one.left_out,
        "says": _lora_says(verdict, outer.label, inner.label, one),
    }


def _lora_says(verdict: str, outer: str, inner: str, one: Overlap) -> str:
    total = one.total
    numbers = f"{total.coefficient:.2f} of it over {total.weights} weights, cosine {total.cosine:.2f}"
    left = f" {one.left_out} weights were left out: their adapters depend on the base." if one.left_out else ""
    if verdict == CONTAINS:
        return f"{outer} contains {inner} at a strength of {total.coefficient:.2f} ({numbers}).{left}"
    if contains(total.swapped()):
        return f"{outer} does not contain {inner}; it is the other way round.{left}"
    if verdict == APART:
        return f"{outer} does not contain {inner} ({numbers}).{left}"
    return f"{outer} does not tell whether {inner} is inside ({numbers}): too few weights, or too weak a sign.{left}"


@dataclass
class _Shapes(InMemory):
    """A base that has names and shapes, and no numbers."""

    label: str
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)

    def read(self, name: str) -> torch.Tensor:
        """There is nothing to read: comparing two LoRAs needs no base."""
        raise FoundryError("weigh", f"'{name}' is only a name here.", fix="Give the base: --original FILE.")


def _common_base(*loras: LoRAFile) -> Base:
    """The modules of one of the LoRAs as a base, so that the other's are found in any naming that the base's would be.

    The one with dots in its names is taken, for only these can be spelled otherwise; of equals, the one with more.
    """
    lora = max(loras, key=lambda each: (any("." in bare(module) for module in each.modules), len(each.modules)))
    family = lora.info.family or next((each.info.family for each in loras if each.info.family), None)
    infos = [TensorInfo(_weight(adapter.module), torch.bfloat16, adapter.delta_shape) for adapter in lora.adapters]
    return Base(lora.label, family, _Shapes(lora.label, {info.name: info for info in infos}))


def _weight(module: str) -> str:
    name = bare(module)
    return name if name.endswith(BIAS) else f"{name}.weight"
