"""A whole merge, module by module: what it will hold, then one finished module after the other with its sums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..progress import Progress
from .deltas import Delta, Shape
from .exact import exact
from .fold import Stored, fold
from .methods import Method, method_of
from .parts import Input, Part, modules_of, read_parts
from .proof import Sums, measure


@dataclass(frozen=True, eq=False)
class Job:
    """The LoRAs of a merge in listed order, the name of its method, and the dtype of the result."""

    inputs: tuple[Input, ...]
    method: str = "exact"
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Entry:
    """What the result holds of one module: the weight's shape and the rank, None where it is no product."""

    shape: Shape
    rank: int | None


@dataclass(frozen=True, eq=False)
class Merged:
    """One finished module, and the sums that its part of the proof is made of."""

    module: str
    stored: Stored
    sums: Sums


def outline(job: Job) -> dict[str, Entry]:
    """What the result will hold, by module in sorted order; nothing is computed where headers tell.

    FoundryError LF501 for a method that is not there, LF502 for LoRAs that cannot be merged.
    """
    method_of(job.method)
    return {module: Entry(shape, _rank(job.inputs, module)) for module, shape in modules_of(job.inputs).items()}


def _rank(inputs: Sequence[Input], module: str) -> int | None:
    ranks = [each.modules[module].rank for each in inputs if each.strength(module) != 0.0]
    return None if None in ranks else sum(rank for rank in ranks if rank is not None)


def results(job: Job, entries: Mapping[str, Entry], on_step: Progress | None = None) -> Iterator[Merged]:
    """Every module of ``entries``, finished, one at a time; only one is in memory.

    ``on_step(done, total)`` is called before each and may raise to cancel.
    """
    method = method_of(job.method)
    for done, module in enumerate(entries):
        if on_step is not None:
            on_step(done, len(entries))
        parts = read_parts(job.inputs, module)
        merged = merged_delta(method, [part for part in parts if part is not None])
        stored = fold(merged, job.dtype, in_order=not method.plain)
        yield Merged(module, stored, measure(parts, stored, method.plain))


def merged_delta(method: Method, parts: Sequence[Part]) -> Delta:
    """The parts of one module merged: products by the method, all that is dense or ``whole`` added as it is."""
    bendable = [part for part in parts if not part.whole and part.delta.products]
    if method.plain or not bendable:
        return exact(parts)
    products = [Part(replace(part.delta, dense=(), replaces=None), part.weight) for part in bendable]
    rest = [Part(replace(part.delta, products=()), part.weight) for part in bendable]
    kept = [part for part in parts if part not in bendable]
    return exact([Part(method.merge(products)), *rest, *kept])
