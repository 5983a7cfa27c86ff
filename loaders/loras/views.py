"""A LoRA file's tensors as they are to be understood: scaled codes as numbers, wrongly split factors whole again.

The names stay those of the file, so nothing that reads factors needs to know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from einops import pack

from ...engine.findings import Finding
from ...engine.plan import Adapter
from ...engine.tensors import Over, TensorInfo, TensorSource
from ...engine.texts.say import refuse, say_of
from ..disk.header import shown
from ..names.dialects import ALPHA, LORA, SCALE_ENDINGS

SCALED_DTYPES = (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2)
QKV = re.compile(r"(.*[._])?(to_|add_|)([qkv])(_proj|)")
Make = Callable[[], torch.Tensor]


class Views(Over):
    """A TensorSource over another in which some tensors are ``made`` when they are read."""

    def __init__(self, source: TensorSource) -> None:
        self.source, self.label = source, source.label
        self.tensors: dict[str, TensorInfo] = dict(source.tensors)
        self.made: dict[str, Make] = {}

    def read(self, name: str) -> torch.Tensor:
        """One tensor in the dtype that ``tensors`` says."""
        make = self.made.get(name)
        return self.source.read(name) if make is None else make()

    def put(self, name: str, shape: tuple[int, ...], make: Make) -> None:
        """From now on a tensor is what ``make`` gives, in fp32."""
        self.tensors[name] = TensorInfo(name, torch.float32, shape)
        self.made[name] = make

    def hide(self, name: str) -> None:
        """A tensor that is used through another one is not listed any more."""
        del self.tensors[name]


def dequantize(label: str, views: Views) -> dict[str, str]:
    """Factors stored as codes with a scale beside them become numbers; returns scale name -> factor name.

    A scale of another shape than one number, or one per row, is a FoundryError LF304.
    """
    found = dict(_scaled(views.tensors))
    for scale, name in found.items():
        info, numbers = views.tensors[name], views.tensors[scale]
        per_row = numbers.shape[:1] == info.shape[:1] and math.prod(numbers.shape) == info.shape[0]
        one = math.prod(numbers.shape) == 1 or per_row
        if not numbers.dtype.is_floating_point or not one or name in views.made:
            stated = {"scale": shown(scale), "scale_shape": list(numbers.shape), "shape": list(info.shape)}
            raise refuse("LF304.scale_shape", lora=label, tensor=shown(name), **stated)
        views.put(name, info.shape, _times(views.source, name, scale))
        views.hide(scale)
    return found


def _scaled(tensors: Mapping[str, TensorInfo]) -> Iterator[tuple[str, str]]:
    for scale in tensors:
        for ending in SCALE_ENDINGS:
            stem = scale.removesuffix(ending)
            name = next((name for name in (f"{stem}.weight", stem) if name in tensors and name != scale), None)
            if stem != scale and name is not None and tensors[name].dtype in SCALED_DTYPES and tensors[name].shape:
                yield scale, name
                break


def _times(source: TensorSource, name: str, scale: str) -> Make:
    def make() -> torch.Tensor:
        codes = source.read(name).to(torch.float32)
        factor = source.read(scale).to(torch.float32).reshape(-1, *[1] * (codes.ndim - 1))
        return codes * factor

    return make


def rejoin(label: str, views: Views, adapters: Iterable[Adapter]) -> tuple[list[Adapter], list[Finding]]:
    """Repair q, k and v whose common down factor [r, in] was cut along ``in`` into three [r, in / 3].

    A trainer with merged q/k/v wrote such files: each of the three needs the whole factor. They are told by their
    shapes: no q, k and v all read a third of what they write. Their ups were cut along the right side.
    """
    adapters = list(adapters)
    triples: dict[tuple[str, ...], dict[str, Adapter]] = {}
    for adapter in adapters:
        named = QKV.fullmatch(adapter.module)
        if named and adapter.kind == LORA and {*dict(adapter.parts)} <= {"up", "down", ALPHA}:
            head, before, letter, after = named.groups()
            ending = dict(adapter.parts)["down"].removeprefix(adapter.module)
            triples.setdefault((head or "", before, after, ending), {})[letter] = adapter
    repaired: dict[int, Adapter] = {}
    for triple in triples.values():
        if _is_cut(triple, views):
            repaired |= _joined(triple, views)
    if not repaired:
        return adapters, []
    finding = say_of(label, "LF304.rejoined", layers=len(repaired) // 3)
    return [repaired.get(id(adapter), adapter) for adapter in adapters], [finding]


def _is_cut(triple: Mapping[str, Adapter], views: Views) -> bool:
    if len(triple) != 3:
        return False
    forms = {(adapter.delta_shape, adapter.rank, adapter.alpha) for adapter in triple.values()}
    (shape, _, _) = next(iter(forms))
    return len(forms) == 1 and len(shape) == 2 and shape[0] == 3 * shape[1] and _is_linear(triple, views)


def _is_linear(triple: Mapping[str, Adapter], views: Views) -> bool:
    return all(len(views.tensors[dict(adapter.parts)["down"]].shape) == 2 for adapter in triple.values())


def _joined(triple: Mapping[str, Adapter], views: Views) -> dict[int, Adapter]:
    names = [dict(triple[letter].parts)["down"] for letter in "qkv"]
    read = views.made.copy()

    def make() -> torch.Tensor:
        parts = [read[name]() if name in read else views.source.read(name) for name in names]
        return pack([part.to(torch.float32) for part in parts], "rank *")[0]

    for letter, name in zip("qkv", names, strict=True):
        views.put(name, (triple[letter].rank, triple[letter].delta_shape[0]), make)
    return {id(a): replace(a, delta_shape=(a.delta_shape[0], a.delta_shape[0])) for a in triple.values()}
