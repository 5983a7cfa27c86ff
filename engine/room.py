"""How much memory of a device a bake takes, known from the plan, and how much of it there is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from .adapters import NOT_READ, is_low_rank
from .blueprint import Blueprint, Fate
from .devices import CPU, resolved
from .dither import Unbiased
from .gain import sampled_rows
from .grouped import Grouped
from .microscaled import Microscaled
from .on_device import BLOCK
from .plan import FUSE
from .streams import Cargo, cargo_bytes
from .tensors import TensorSource

SLOTS = 3  # weights in device memory: one on its way up, one that is worked on, one that is done with
RESULTS = 2  # results there: one that is made, one on its way down
LEAST = 1 << 18  # numbers: with fewer at once a weight is better off on the CPU
SHARE = 0.9  # of the free memory that is taken
# Bytes for each number that is worked on at once, beside the fp32 sum, by kind of adapter; and for each of the weight.
MAKING = {"lora": 0, "loha": 12, "lokr": 8, "diff": 8, "set": 8, "glora": 20, "oft": 4, "boft": 4}
MAKING |= {"oft_in": 16, "boft_in": 16}
HOLDING = {"oft": 16, "boft": 12}
DECOMPOSED, ROTATING, DITHERING = 12, 12, 24  # more for a magnitude; to rotate; to round without bias
SEARCHING = 40  # to search scales of blocks


@dataclass(frozen=True)
class Need:
    """Bytes of a device: of a weight with its parts, of a result, and of work with ``most`` numbers at once."""

    weight: int
    result: int
    fates: tuple[Fate, ...]

    @property
    def largest(self) -> int:
        """Numbers of the largest weight."""
        return max((math.prod(fate.info.shape) for fate in self.fates), default=0)

    def total(self, slots: int, most: int) -> int:
        """All of it."""
        return slots * self.weight + self.result + max((work_bytes(fate, most) for fate in self.fates), default=0)


@dataclass
class Room:
    """What a bake may use: how many weights are there at once, how many numbers are worked on together."""

    slots: int
    most: int

    def halve(self, fate: Fate) -> bool:
        """Work on half as many numbers of such a weight at once; False where that would be too few."""
        self.most = min(self.most, math.prod(fate.info.shape)) // 2
        return self.most >= LEAST


def need_of(source: TensorSource, work: Sequence[Sequence[Fate]]) -> Need:
    """What bakes on one base take at most; ``work`` has for each what something is done to, nothing else gets there."""
    cargo = cargo_of(work)
    weight = max((cargo_bytes(source, name, parts) for name, parts in cargo.items()), default=0)
    results = (max((fate.result.nbytes for fate in fates), default=0) for fates in work)
    return Need(weight, RESULTS * sum(results), tuple(fate for fates in work for fate in fates))


def worked_on(made: Blueprint) -> list[Fate]:
    """The weights of a result that something is done to."""
    return [fate for fate in made.fates.values() if fate.is_measured]


def device_bytes(blueprints: Sequence[Blueprint]) -> int:
    """What bakes on one base want to find free on a device, in bytes; none where the CPU does them."""
    if is_for_cpu(blueprints):
        return 0
    need = need_of(blueprints[0].plan.base.source, [worked_on(each) for each in blueprints])
    return math.ceil(need.total(SLOTS, need.largest) / SHARE)


def choose_device(blueprints: Sequence[Blueprint], device: torch.device | None) -> torch.device:
    """The device, or the CPU where the bakes would not fit into its free memory."""
    place = resolved(device)
    if place.type != "cuda":
        return place
    if is_for_cpu(blueprints):
        return CPU
    need = need_of(blueprints[0].plan.base.source, [worked_on(each) for each in blueprints])
    return CPU if room_in(need, free_bytes(place)) is None else place


def is_for_cpu(blueprints: Sequence[Blueprint]) -> bool:
    """Whether a bake is no work for a GPU: error feedback goes column by column."""
    return any(fate.calibrated for each in blueprints for fate in each.fates.values())


def room_in(need: Need, free: int) -> Room | None:
    """The most that fits into ``free`` bytes; None where not even little does."""
    for slots in (SLOTS, SLOTS - 1):
        most = need.largest
        while most >= min(LEAST, need.largest):
            if need.total(slots, most) <= free * SHARE:
                return Room(slots, most)
            if slots == SLOTS or not most:
                break
            most //= 2
    return None


def free_bytes(device: torch.device) -> int:
    """What this process may still take there: free memory, and what torch holds unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def ran_out(error: RuntimeError) -> bool:
    """Whether a device had no memory left; cuBLAS says it in its own way."""
    return isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error)


def cargo_of(work: Iterable[Iterable[Fate]]) -> Cargo:
    """What goes to a device: the weights something is done to, each with the parts of all its adapters, once."""
    cargo: dict[str, dict[tuple[int, str], tuple[TensorSource, str]]] = {}
    for fates in work:
        for fate in fates:
            cargo.setdefault(fate.info.name, {}).update(_parts(fate))
    return {name: tuple(parts.values()) for name, parts in cargo.items()}


def _parts(fate: Fate) -> Mapping[tuple[int, str], tuple[TensorSource, str]]:
    return {
        (id(layer.factors), name): (layer.factors, name)
        for layer, patch in fate.patches
        if layer.factors is not None
        for part, name in patch.adapter.parts
        if part not in NOT_READ
    }


def work_bytes(fate: Fate, most: int) -> int:
    """Bytes that the sum of one weight, its rounding and its measure take, with ``most`` numbers at once."""
    size, format = math.prod(fate.info.shape), fate.format
    at_once = min(size, most)
    if format is None or format.row_scaled:
        at_once = min(at_once, BLOCK)
    rounding = (DITHERING if isinstance(format, Unbiased) else 0) + (
        ROTATING if format is not None and format.group else 0
    )
    rounding += SEARCHING if isinstance(format, Microscaled | Grouped) else 0
    making, holding = _dense_bytes(fate)
    factors = 4 * sum(of.tensors[name].nbytes for of, name in _parts(fate).values())
    return at_once * (4 + max(making, rounding)) + holding * size + factors + _sample_bytes(fate)


def _dense_bytes(fate: Fate) -> tuple[int, int]:
    """(bytes for each number worked on at once, for each of the weight) of the kinds that are no products."""
    dense = [(layer, patch.adapter) for layer, patch in fate.patches if not is_low_rank(patch.adapter)]
    making = [
        MAKING.get(adapter.kind, 0) + (DECOMPOSED if "magnitude" in dict(adapter.parts) else 0) for _, adapter in dense
    ]
    holding = sum(HOLDING.get(adapter.kind, 0) for _, adapter in dense)
    staged = dense and len({layer.stage == FUSE for layer, _ in fate.patches}) > 1
    return max(making, default=0), holding + (4 if staged else 0)  # the fused weight


def _sample_bytes(fate: Fate) -> int:
    shape = fate.info.shape
    rows: Sequence[int] = sampled_rows(shape)
    return len(rows) * (math.prod(shape) // max(1, shape[0] if shape else 1)) * (32 * len(fate.patches) + 48)
