"""The tensor names of a LoRA file, sorted into the groups that make one adapter each; names alone are looked at.

Whatever belongs nowhere, and would change what the file's author made if it were left out, is one FoundryError LF304
that names the tensor.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ...engine.adapters import KINDS
from ...engine.errors import FoundryError
from ...engine.tensors import TensorInfo
from ...engine.texts.say import refuse
from ..bases.families import detect_base
from ..disk.header import SHOWN, quoted, shown
from ..names.dialects import (
    ALPHA,
    ATTACHED,
    BOFT_IN,
    DIFF,
    FROZEN,
    GLORA,
    LOHA,
    LOKR,
    LORA,
    NORM_SCALE,
    OFT,
    OFT_IN,
    SET,
    Part,
    split,
    whole,
)  # fmt: skip
from ..names.lookup import bare, flat, is_text_encoder

SCALED = (LORA, LOHA, LOKR, GLORA)  # kinds whose alpha is a scale
BUILT = (*SCALED, OFT, OFT_IN, BOFT_IN, DIFF, SET)  # kinds that are understood


class Names(NamedTuple):
    """The tensor names of a file, in file order: the ``parts`` of adapters, and those that are ``unused``."""

    parts: tuple[Part, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """The tensors of one adapter: part -> tensor name, the one alpha of its module among them.

    ``module`` is the tensor's own name where that is not the weight.
    """

    module: str
    kind: str
    adapter: str
    parts: dict[str, str] = field(default_factory=dict)


def sort_names(label: str, tensors: Mapping[str, TensorInfo]) -> Names:
    """Every tensor name taken apart. Raises FoundryError LF304 for a file that is no LoRA, or of an unknown kind."""
    split_names = {tensor: split(tensor) for tensor in tensors}
    parts = tuple(part for part in split_names.values() if part)
    if not any(part.kind for part in parts):
        raise _not_a_lora(label, tensors)
    foreign = [part for part in parts if part.kind and part.kind not in (*BUILT, ATTACHED)]
    if foreign:
        kinds = ", ".join(dict.fromkeys(part.kind for part in foreign))
        raise refuse("LF304.foreign", lora=label, kinds=kinds, tensors=quoted([part.name for part in foreign], 1))
    unused = [tensor for tensor, part in split_names.items() if part is None]
    adapted = {part.module for part in parts if part.kind not in ("", ATTACHED) and part.suffix.tensor == "weight"}
    free = [tensor for tensor in unused if not tensor.endswith(FROZEN)]
    trained = {tensor: part for tensor in free if (part := _trained_whole(tensor, tensors[tensor], adapted))}
    unused = [tensor for tensor in unused if tensor not in trained]
    beside = [tensor for tensor in free if tensor not in trained and not adapted.isdisjoint(_parents(tensor))]
    if beside:
        raise refuse("LF304.beside", lora=label, tensors=quoted(beside, 1))
    return Names((*parts, *trained.values()), tuple(unused))


def _trained_whole(tensor: str, info: TensorInfo, adapted: Container[str]) -> Part | None:
    """A layer that was trained whole, beside the adapters of others; the bias of a layer may be beside its adapter."""
    part = whole(tensor)
    if part is None or not info.dtype.is_floating_point or not info.shape or 0 in info.shape:
        return None
    layer, above = _parents(tensor)
    free = above not in adapted and (layer not in adapted or part.suffix.tensor != "weight")
    return part if free and not is_text_encoder(part.module) else None


def group_parts(label: str, parts: Iterable[Part]) -> list[Group]:
    """The groups of a file in file order. Raises FoundryError LF304 for a part that belongs to none, or to several."""
    modules: dict[str, list[Part]] = {}
    for part in _one_name(list(parts)):
        modules.setdefault(part.module, []).append(part)
    return [group for of_module in modules.values() for group in _of_module(label, of_module)]


def _one_name(parts: list[Part]) -> list[Part]:
    """Parts of one layer under one name: a script may write the factors' name flat, and half of the magnitude's not."""
    named: dict[str, dict[str, list[Part]]] = {}
    for part in parts:
        named.setdefault(flat(part.module), {}).setdefault(part.module, []).append(part)
    names: dict[str, str] = {}
    for modules in named.values():
        seen = [(part.part, part.suffix.tensor) for each in modules.values() for part in each]
        if len(modules) > 1 and len(set(seen)) == len(seen):
            first = max(modules, key=lambda module: sum(part.kind not in (ATTACHED, "") for part in modules[module]))
            names |= dict.fromkeys(modules, first)
    return [replace(part, module=names.get(part.module, part.module)) for part in parts]


def _of_module(label: str, parts: list[Part]) -> list[Group]:
    groups: dict[tuple[str, ...], Group] = {}
    for part in parts:
        if part.kind in (ATTACHED, "") and part.part != NORM_SCALE:
            continue
        single = part.kind in (DIFF, SET, "")  # each such tensor is an adapter of its own
        key = (part.name,) if single else (part.kind, part.dialect, part.adapter)
        empty = Group(part.target if single else part.module, part.kind or SET, part.adapter)
        groups.setdefault(key, empty).parts["set" if part.part == NORM_SCALE else part.part] = part.name
    found = _numbered(list(groups.values()))
    for part in parts:
        if part.kind == ATTACHED:
            _attach(label, part, found)
    for part in parts:
        if part.part == ALPHA:
            _share_alpha(label, part, found)
    return found


def _numbered(groups: list[Group]) -> list[Group]:
    """Rotations of the parts of a fused layer, by number: each is one of the part of this number."""
    turned = [group for group in groups if group.kind == OFT and group.adapter.isdecimal()]
    if len(turned) < 2:
        return groups
    return [replace(each, module=f"{each.module}.{each.adapter}") if each in turned else each for each in groups]


def _attach(label: str, part: Part, groups: list[Group]) -> None:
    fitting = [group for group in groups if part.part in KINDS[group.kind].parts]
    fitting = [group for group in fitting if group.adapter == part.adapter] or fitting
    if len(fitting) != 1 or part.part in fitting[0].parts:
        key = "LF304.attached_to_many" if fitting else "LF304.attached_to_none"
        raise refuse(key, lora=label, tensor=shown(part.name))
    fitting[0].parts[part.part] = part.name


def _share_alpha(label: str, alpha: Part, groups: list[Group]) -> None:
    if not groups:
        raise refuse("LF304.alpha_alone", lora=label, tensor=shown(alpha.name))
    for group in groups:
        if group.kind in (*SCALED, OFT):
            group.parts[ALPHA] = alpha.name


def _parents(tensor: str) -> tuple[str, str]:
    """What a tensor may be a part of: its name without the last word, and without the last two."""
    layer = tensor.rpartition(".")[0]
    return layer, layer.rpartition(".")[0]


def _not_a_lora(label: str, tensors: Mapping[str, TensorInfo]) -> FoundryError:
    if not tensors:
        return refuse("LF304.empty", lora=label)
    first = quoted(list(tensors)[:SHOWN])
    if family := detect_base({bare(tensor): info for tensor, info in tensors.items()}):
        return refuse("LF304.model_of_family", lora=label, family=family, all=len(tensors), tensors=first)
    if any(tensor.endswith((".weight", ".bias")) for tensor in tensors):
        return refuse("LF304.model", lora=label, all=len(tensors), tensors=first)
    return refuse("LF304.no_lora", lora=label, tensors=first)
