"""The orders people argue about, each as a way to get a model ready and to hand out its weights as they are multiplied.

Ours run through the engine; the others are worked out here in plain torch, by the arithmetic their users get and with
no detour: a host's own code takes at least as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ...engine.bake import bake
from ...engine.blueprint import blueprint
from ...engine.finish import Finish, scale_name
from ...engine.pipeline import reader_of
from ...engine.plan import Layer, Patch, Plan
from ...engine.tensors import StateDict, TensorInfo
from ...engine.terms import effective_scale, placement, read_factors
from ...loaders.bakes.baking import bake_to_file
from ...loaders.disk.source import FileSource
from ..orders import Rounding, nearest, quantized

FORMAT = Finish("float8_e4m3fn")
Stored = dict[str, tuple[Tensor, Tensor | None]]  # weight or codes, and their scale
Entries = Iterator[tuple[str, tuple[Tensor, Tensor | None]]]  # the same, one after the other
Weights = Callable[[], Iterator[tuple[str, Tensor]]]  # one pass over a ready model: (name, matrix as multiplied)


@dataclass(frozen=True)
class Bench:
    """What a strategy works with: the plan, where and in which dtype is multiplied, a scaled fp8 file of the base."""

    plan: Plan
    device: torch.device
    dtype: torch.dtype
    work: Path
    fp8_base: Path
    factors: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def read(self, name: str) -> Tensor:
        """A base weight as [out, in], in host memory."""
        return self.plan.base.source.read(name).flatten(start_dim=1)

    def add(self, weight: Tensor, layer: Layer, patch: Patch) -> None:
        """Add one LoRA's delta to ``weight`` in place: product and sum in the weight's dtype."""
        if id(patch) not in self.factors:  # hosts hold their LoRA files in memory too
            self.factors[id(patch)] = read_factors(layer, patch)
        up, down = (factor.to(weight.device, weight.dtype) for factor in self.factors[id(patch)])
        weight[placement(patch)].add_(up @ down, alpha=effective_scale(layer, patch))


def matrices(plan: Plan) -> tuple[TensorInfo, ...]:
    """Every weight that a step multiplies: two dims and more (kernels are flattened), in file order."""
    found = plan.base.source.tensors.values()
    return tuple(
        info for info in found if info.name.endswith(".weight") and len(info.shape) > 1 and info.dtype.is_floating_point
    )


def as_multiplied(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """A stored weight in the dtype it is multiplied in; codes are scaled there, as hosts do in full precision."""
    return weight.to(dtype) if scale is None else weight.to(dtype).mul_(scale)


@dataclass(frozen=True)
class Held:
    """A model whose weights lie ready on the device; ``backup`` is only there to take the memory it takes."""

    bench: Bench
    stored: Stored
    backup: Stored = field(default_factory=dict)

    def __call__(self) -> Iterator[tuple[str, Tensor]]:
        """One pass over the weights."""
        return ((name, as_multiplied(*weight, self.bench.dtype)) for name, weight in self.stored.items())


# --- strategies -------------------------------------------------------------------------------------------------------


def base_alone(bench: Bench) -> Weights:
    """No LoRA at all: what the others are compared with."""
    return Held(bench, {name: (weight.to(bench.device), None) for name, (weight, _) in read_base(bench)})


def read_base(bench: Bench) -> Entries:
    """The base's weights, one after the other."""
    return ((info.name, (bench.read(info.name), None)) for info in matrices(bench.plan))


def standard(bench: Bench) -> Weights:
    """Each LoRA is added to each weight in fp32, one by one, and the sum rounded to the stored dtype."""
    return patched(bench, read_base(bench), nearest)


def quantize_then_lora(bench: Bench, rounding: Rounding) -> Weights:
    """A scaled fp8 file of the base: each weight dequantized, the LoRAs added one by one in fp32, quantized again."""
    source = FileSource(bench.fp8_base)

    def read(name: str) -> tuple[Tensor, Tensor | None]:
        scale = scale_name(name)
        return source.read(name).flatten(start_dim=1), source.read(scale) if scale in source.tensors else None

    return patched(bench, ((info.name, read(info.name)) for info in matrices(bench.plan)), rounding)


def patched(bench: Bench, entries: Entries, rounding: Rounding) -> Weights:
    """LoRAs added to a model weight by weight; the originals of the changed ones stay in host memory, as in a host."""
    work, ready, backup = bench.plan.by_weight(), Stored(), Stored()
    for name, (weight, scale) in entries:
        there = None if scale is None else scale.to(bench.device)
        if name not in work:
            ready[name] = (weight.to(bench.device), there)
            continue
        backup[name] = (weight, scale)
        total = weight.to(bench.device, torch.float32, copy=True)
        if there is not None:
            total *= there
        for layer, patch in work[name]:
            bench.add(total, layer, patch)
        ready[name] = (total.to(weight.dtype), None) if there is None else quantized(total, rounding)
    return Held(bench, ready, backup)


def lora_then_quantize(bench: Bench) -> Weights:
    """The whole model in its own dtype, each LoRA's delta rounded to it and added, then quantized weight by weight."""
    stored: Stored = {name: (weight.to(bench.device), None) for name, (weight, _) in read_base(bench)}
    for name, pairs in bench.plan.by_weight().items():
        weight = stored[name][0]
        for layer, patch in pairs:
            delta = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
            bench.add(delta, layer, patch)
            weight.add_(delta.to(weight.dtype))
    for name in blueprint(bench.plan, FORMAT).quantized:
        stored[name] = quantized(stored[name][0], nearest)
    return Held(bench, stored)


def fused(bench: Bench, finish: Finish) -> Weights:
    """This pack's bake into memory: all deltas in one fp32 sum."""
    sink = StateDict(bench.device)
    bake(bench.plan, finish, sink, device=bench.device)
    names, kept = (info.name for info in matrices(bench.plan)), sink.tensors
    return Held(bench, {name: (kept[name].flatten(start_dim=1), kept.get(scale_name(name))) for name in names})


def low_memory(bench: Bench) -> Weights:
    """Each step reads each weight from the file, moves it, adds the LoRAs one by one in the dtype of the product."""
    work = bench.plan.by_weight()

    def each() -> Iterator[tuple[str, Tensor]]:
        with reader_of(bench.plan.base.source) as reader:
            for info in matrices(bench.plan):
                weight = reader.read(info.name).flatten(start_dim=1).to(bench.device)
                pairs = work.get(info.name, ())
                weight = weight.to(bench.dtype, copy=bool(pairs))
                for layer, patch in pairs:
                    bench.add(weight, layer, patch)
                yield info.name, weight

    return each


def low_memory_fused(bench: Bench) -> Weights:
    """This pack's bake into an fp8 file; each step reads each weight from it and moves it; no LoRA is left to add."""
    out = bench.work / "fused_fp8.safetensors"
    bake_to_file(bench.plan, FORMAT, out, device=bench.device)
    source = FileSource(out)
    names = [info.name for info in matrices(bench.plan)]
    codes = [name for name in names if scale_name(name) in source.tensors]
    scales = {name: source.read(scale_name(name)).to(bench.device) for name in codes}

    def each() -> Iterator[tuple[str, Tensor]]:
        with reader_of(source) as reader:
            for name in names:
                weight = reader.read(name).flatten(start_dim=1).to(bench.device)
                yield name, as_multiplied(weight, scales.get(name), bench.dtype)

    return each
