"""A LoRA file's tensors as they are to be understood: scaled codes as numbers, wrongly split factors whole again.

The names stay those of the file, so nothing that reads factors needs to know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from einops import pack, rearrange

from ...engine.findings import Finding
from ...engine.plan import Adapter
from ...engine.tensors import Over, TensorInfo, TensorSource
from ...engine.texts.say import refuse, say_of
from ..disk.header import shown
from ..names.dialects import ALPHA, LORA, SCALE_ENDINGS
from ..names.lookup import is_text_encoder

SCALED_DTYPES = (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2)
QKV = re.compile(r"(.*[._])?(to_|add_|)([qkv])(_proj|)")
Shape = tuple[int, ...]
Make = Callable[[], torch.Tensor]
Made = Mapping[str, tuple[Shape, Make]]  # tensor name -> its shape, and what makes it in fp32


class Views(Over):
    """A TensorSource over another: ``made`` tensors are made when they are read, ``hidden`` ones are not listed."""

    def __init__(self, source: TensorSource, made: Made, hidden: Container[str] = ()) -> None:
        self.source, self.label, self.made = source, source.label, made
        infos = {name: TensorInfo(name, torch.float32, shape) for name, (shape, _) in made.items()}
        kept = {name: info for name, info in source.tensors.items() if name not in hidden}
        self.tensors: Mapping[str, TensorInfo] = {**kept, **infos}

    def read(self, name: str) -> torch.Tensor:
        """One tensor in the dtype that ``tensors`` says."""
        return self.made[name][1]() if name in self.made else self.source.read(name)


def dequantize(label: str, source: TensorSource) -> tuple[TensorSource, dict[str, str]]:
    """Factors stored as codes with a scale beside them become numbers; and scale name -> factor name.

    A scale of another shape than one number, or one per row, is a FoundryError LF304.
    """
    scales = dict(_scaled(source.tensors))
    made: dict[str, tuple[Shape, Make]] = {}
    for scale, name in scales.items():
        info, numbers = source.tensors[name], source.tensors[scale]
        per_row = numbers.shape[:1] == info.shape[:1] and math.prod(numbers.shape) == info.shape[0]
        one = math.prod(numbers.shape) == 1 or per_row
        if not numbers.dtype.is_floating_point or not one or name in made:
            stated = {"scale": shown(scale), "scale_shape": list(numbers.shape), "shape": list(info.shape)}
            raise refuse("LF304.scale_shape", lora=label, tensor=shown(name), **stated)
        made[name] = info.shape, _times(source, name, scale)
    return (Views(source, made, scales) if scales else source), scales


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
        factor = source.read(scale).to(torch.float32)
        return codes * rearrange(factor, f"... -> (...){' 1' * (codes.ndim - 1)}")

    return make


class Rejoined(NamedTuple):
    """A source and its adapters after repairs, and what is to be said about them."""

    source: TensorSource
    adapters: tuple[Adapter, ...]
    findings: tuple[Finding, ...]


def rejoin(label: str, source: TensorSource, adapters: tuple[Adapter, ...]) -> Rejoined:
    """Repair q, k and v whose common down factor [r, in] was cut along ``in`` into three [r, in / 3].

    A trainer with merged q/k/v wrote such files: each of the three needs the whole factor. They are told by their
    shapes: no q, k and v all read a third of what they write. Their ups were cut along the right side.
    """
    cut = [triple for triple in _triples(adapters) if _is_cut(triple, source)]
    if not cut:
        return Rejoined(source, adapters, ())
    made = {name: (shape, make) for triple in cut for name, shape, make in _whole_factors(triple, source)}
    square = {id(a): replace(a, delta_shape=(a.delta_shape[0], a.delta_shape[0])) for triple in cut for a in triple}
    repaired = tuple(square.get(id(adapter), adapter) for adapter in adapters)
    return Rejoined(Views(source, made), repaired, (say_of(label, "LF304.rejoined", layers=len(cut)),))


def _triples(adapters: Iterable[Adapter]) -> Iterator[tuple[Adapter, ...]]:
    """(q, k, v) of plain LoRAs that are named alike but for the letter."""
    found: dict[tuple[str, ...], dict[str, Adapter]] = {}
    for adapter in adapters:
        named = QKV.fullmatch(adapter.module)
        if named and adapter.kind == LORA and {*dict(adapter.parts)} <= {"up", "down", ALPHA}:
            head, before, letter, after = named.groups()
            ending = dict(adapter.parts)["down"].removeprefix(adapter.module)
            found.setdefault((head or "", before, after, ending), {})[letter] = adapter
    return (tuple(triple[letter] for letter in "qkv") for triple in found.values() if len(triple) == 3)


def _is_cut(triple: tuple[Adapter, ...], source: TensorSource) -> bool:
    shape = triple[0].delta_shape
    alike = len({(adapter.delta_shape, adapter.rank, adapter.alpha) for adapter in triple}) == 1
    linear = all(len(source.tensors[dict(adapter.parts)["down"]].shape) == 2 for adapter in triple)
    return alike and linear and len(shape) == 2 and shape[0] == 3 * shape[1]


def _whole_factors(triple: tuple[Adapter, ...], source: TensorSource) -> Iterator[tuple[str, Shape, Make]]:
    """(name, shape, make) of the three down factors, each the whole [r, in]."""
    names = [dict(adapter.parts)["down"] for adapter in triple]

    def make() -> torch.Tensor:
        return pack([source.read(name).to(torch.float32) for name in names], "rank *")[0]

    return ((name, (a.rank, a.delta_shape[0]), make) for name, a in zip(names, triple, strict=True))


def state_alphas(source: TensorSource, adapters: Iterable[Adapter]) -> TensorSource:
    """The host applies text-encoder parts and knows alpha tensors only: a scale from a config becomes one."""
    made: dict[str, tuple[Shape, Make]] = {
        f"{adapter.module}.{ALPHA}": ((), partial(torch.tensor, adapter.alpha))
        for adapter in adapters
        if is_text_encoder(adapter.module) and adapter.alpha is not None and ALPHA not in dict(adapter.parts)
    }
    return Views(source, made) if made else source
