"""``lineage weigh``: is a LoRA inside another one, or inside a checkpoint? Asked of the weights, told with numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...engine.errors import FoundryError
from ...engine.json_verbs import WeighedJSON
from ...engine.lineage import DECLARED, DERIVED, Contained
from ...engine.plan import FUSE, Base, Layer
from ...engine.progress import Progress
from ...engine.tensors import InMemory, TensorInfo
from ...engine.texts.say import refuse
from ...validator.containment import Containment, contained_share, contains, is_apart
from ...validator.overlap import Overlap, as_filed, overlap
from ...validator.stacks import Item
from ..bases.checkpoint import Checkpoint, is_lora, open_model
from ..bases.dequantize import DEQUANTIZE, Dequantized, opened
from ..bases.families import detect_base, family_of_names
from ..lineage.contents import contained_in
from ..lineage.provenance import lineage_of_lora
from ..loras.file import LoRAFile, open_lora
from ..names.lookup import BIAS, BaseNames, bare
from ..remote.fetching import at_hand
from ..remote.names import Where, label_of
from ..remote.objects import ANYTHING, Asking
from .planner import make_layer

CONTAINS, APART, UNKNOWN = "contains it", "does not contain it", "cannot be told"


def weigh(
    file: Where, lora: Where, original: Where | None = None, on_step: Progress | None = None, asking: Asking = ANYTHING
) -> WeighedJSON:
    """Whether ``file``, a LoRA or a checkpoint, has ``lora`` inside, as plain data with a sentence under ``says``.

    ``original`` is the checkpoint before the merge: needed for a checkpoint that does not say itself what is inside;
    for two LoRAs of different naming it says which modules are the same. What a merged or baked file records of itself
    counts before what its weights tell, which no small strength, no method and no DoRA can hide.
    Raises FoundryError for files that cannot be read or have nothing in common.
    """
    inner, name = _lora(lora, asking), label_of(file)
    if is_lora(file, asking):
        outer = _lora(file, asking)
        recorded = _recorded(lineage_of_lora(outer).contains, inner)
        return _with_record(recorded, name, "lora", inner, lambda: _weigh_lora(outer, inner, original, asking))
    recorded = _recorded(contained_in(open_model(file, asking)), inner)

    def measured() -> WeighedJSON:
        if original is None:
            raise refuse("weigh.original", file=name)
        return _weigh_checkpoint((file, original), inner, on_step, asking)

    return _with_record(recorded, name, "checkpoint", inner, measured)


def _lora(where: Where, asking: Asking) -> LoRAFile:
    file = at_hand(where, asking)
    return open_lora(file.path, file.name, file.notes)


# --- by its own record


def _recorded(inside: Sequence[Contained], lora: LoRAFile) -> Contained | None:
    """What a file says of this very LoRA, recognised by its contents; a strength of 0 is none."""
    known = Item(lora.info.name, "", 1.0, lineage_of_lora(lora)).ingredient
    sure = (each for each in inside if each.level in (DECLARED, DERIVED) and each.ingredient.strength != 0)
    return next((each for each in sure if each.ingredient.shares_contents(known)), None)


def _with_record(
    recorded: Contained | None, name: str, kind: str, lora: LoRAFile, measured: Callable[[], WeighedJSON]
) -> WeighedJSON:
    """What the weights tell, and before it what the file says of itself; then nothing has to be told by weights."""
    if recorded is None:
        return measured()
    try:
        told = measured()
    except FoundryError as error:
        told = _told(UNKNOWN, error.what, kind=kind)
    strength = recorded.ingredient.strength
    at = "" if strength is None else f" at a strength of {strength:g}"
    says = f"{name} contains {lora.label}{at}, by {recorded.source}. Its weights: {told['says']}"
    return {**told, "verdict": CONTAINS, "recorded": {"strength": strength, "source": recorded.source}, "says": says}


# --- in a checkpoint


def _weigh_checkpoint(
    models: tuple[Where, Where], lora: LoRAFile, on_step: Progress | None, asking: Asking
) -> WeighedJSON:
    """``models``: the one that may hold it, and the one before the merge."""
    file, original = models
    base = _base(original, asking)
    layer = _layer(base, lora)
    share = contained_share(_plain(file, asking), base.source, layer, on_step)
    where = f"{label_of(file)}, compared with {label_of(original)},"
    if share is None:
        return _told(UNKNOWN, f"{where} does not tell whether {lora.label} is inside: {_DROWNED}")
    if share.modules:
        often = f"in {share.modules} of {share.of} modules looked at"
        says = f"{where} contains {lora.label} at a strength of {share.coefficient:.2f} ({often})."
        return _told(CONTAINS, says, share)
    says = f"{where} does not contain {lora.label} ({share.coefficient:.2f} of it in {share.of} modules looked at)."
    return _told(APART, says, share)


_DROWNED = "they have too few weights in common, or it was changed in other ways so far that a LoRA drowns in that."


def _told(verdict: str, says: str, share: Containment | None = None, kind: str = "checkpoint") -> WeighedJSON:
    told: WeighedJSON = {"kind": kind, "verdict": verdict, "coefficient": None, "recorded": None, "says": says}
    if share is None:
        return told
    return {
        **told, "coefficient": share.coefficient, "modules": share.modules, "of": share.of, "spread": share.spread
    }  # fmt: skip


def _plain(where: Where, asking: Asking) -> Checkpoint | Dequantized:
    return opened(open_model(where, asking), DEQUANTIZE)


def _base(where: Where, asking: Asking) -> Base:
    source = _plain(where, asking)
    return Base(label_of(where), detect_base(source.tensors), source)


def _layer(base: Base, lora: LoRAFile) -> Layer:
    return make_layer(base, lora, FUSE, 1.0, BaseNames(base.source.tensors, base.family), allow_partial=True)


# --- in another LoRA


def _weigh_lora(outer: LoRAFile, inner: LoRAFile, original: Where | None, asking: Asking) -> WeighedJSON:
    base = _base(original, asking) if original else _common_base(outer, inner)
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
        "recorded": None,
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
        raise refuse("weigh.no_numbers", weight=name)


def _common_base(*loras: LoRAFile) -> Base:
    """The modules of one of the LoRAs as a base, so that the other's are found in any naming that the base's would be.

    The one with dots in its names is taken, for only these can be spelled otherwise; of equals, the one with more.
    """
    lora = max(loras, key=lambda each: (any("." in bare(module) for module in each.modules), len(each.modules)))
    family = lora.info.family or next((each.info.family for each in loras if each.info.family), None)
    infos = [TensorInfo(_weight(adapter.module), torch.bfloat16, adapter.delta_shape) for adapter in lora.adapters]
    return Base(lora.label, family_of_names(family), _Shapes(lora.label, {info.name: info for info in infos}))


def _weight(module: str) -> str:
    name = bare(module)
    return name if name.endswith(BIAS) else f"{name}.weight"
