"""The memory that a bake needs at most, by shapes alone, and its refusal where so much is not free."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .adapters import kind_of
from .blueprint import Blueprint
from .job import BakeRequest
from .memory import AUTO, HELD, available_bytes
from .plan import Layer, Patch, Plan
from .texts.say import refuse

COPY = 4  # bytes of a number in fp32
TURNED = 5 * 8  # bytes for each number of a rotation's blocks: in fp64, the two sides of what is solved, and the result


def needed_bytes(requests: Sequence[BakeRequest], memory: str) -> int:
    """What baking these at once holds at most: the largest weight with its adapters, and results kept in memory.

    Each further result in a file has buffers of its own for what is being written.
    """
    work = max((working_bytes(request.blueprint.plan, memory) for request in requests), default=0)
    beside = sum(_written(request.blueprint, memory) for request in requests[1:] if request.sink.on_disk)
    return work + beside + sum(_kept(request) for request in requests if not request.sink.on_disk)


def _written(wanted: Blueprint, memory: str) -> int:
    """The buffers of one result: of its largest tensor, two where writing goes on behind."""
    return (2 if memory == AUTO else 1) * max((entry.nbytes for entry in wanted.entries), default=0)


def _kept(request: BakeRequest) -> int:
    """The tensors of a result in memory that are not those of a base in memory."""
    fates, copied = request.blueprint.fates.values(), request.blueprint.plan.base.source.on_disk
    return sum(entry.nbytes for fate in fates if copied or fate.is_measured for entry in fate.entries)


def working_bytes(plan: Plan, memory: str) -> int:
    """What the weight holds that needs most: itself, the parts of its adapters, and the products they are made by."""
    sizes = {name: math.prod(info.shape) for name, info in plan.base.source.tensors.items()}
    patches = plan.by_weight()
    return max((_one(size, patches.get(name, ()), memory) for name, size in sizes.items()), default=0)


def _one(size: int, pairs: Iterable[tuple[Layer, Patch]], memory: str) -> int:
    held = size * HELD.get(memory, 1)  # by blocks of rows it is next to nothing
    return held + sum(_adapter(layer, patch, size) for layer, patch in pairs)


def _adapter(layer: Layer, patch: Patch, size: int) -> int:
    """The parts as stored and in fp32; of a core times a factor that product too; of rotations the turned weight."""
    stored = layer.factors.tensors if layer.factors is not None else {}
    parts = {part: stored[name] for part, name in patch.adapter.parts if name in stored}
    numbers = {part: math.prod(info.shape) for part, info in parts.items()}
    held = sum(info.nbytes for info in parts.values()) + COPY * sum(numbers.values())
    for core, factor in (("mid", "down"), ("t1", "w1_b"), ("t2", "w2_b")):
        if core in parts and factor in parts:
            held += COPY * numbers[core] * parts[factor].shape[1] // max(1, parts[core].shape[1])
    if kind_of(patch.adapter).mixes_rows:
        held += TURNED * numbers.get("blocks", 0) + 3 * COPY * size
    return held


def require_memory(needed: int) -> None:
    """FoundryError ``memory`` where less is free, with both numbers; nothing where the system does not tell."""
    free = available_bytes()
    if free is not None and needed > free:
        raise refuse("memory.beyond", needed=_gigabytes(needed), free=_gigabytes(free))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
