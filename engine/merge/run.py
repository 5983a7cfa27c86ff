"""A whole merge, module by module: what it will hold, then one finished module after the other with its sums."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from .. import gemm
from ..memory import give_back
from ..pipeline import Item, worked_ahead
from ..progress import Progress
from .core import clamped, padded, spectrum, truncated
from .deltas import Delta, Shape
from .exact import exact
from .fold import Stored, fold
from .methods import Method, method_of
from .parts import Input, Part, modules_of, read_parts
from .proof import Sums, exactly, measure
from .ranks import Policy, Spectrum, choose, refuse_above

TIDY = 16  # modules; what their factors leave free would add up to more than is worked with


@dataclass(frozen=True, eq=False)
class Job:
    """The LoRAs of a merge in listed order, the name of its method, the dtype of the result, and how far to shrink it.

    Without ``policy`` nothing is shrunk.
    """

    inputs: tuple[Input, ...]
    method: str = "exact"
    dtype: torch.dtype = torch.float32
    policy: Policy | None = None


@dataclass(frozen=True)
class Entry:
    """What the result holds of one module: the weight's shape and the rank, None where it is no product, 0: nothing.

    ``left_out`` is the least squared norm that a rank chosen by a policy leaves out.
    """

    shape: Shape
    rank: int | None
    left_out: float = 0.0


@dataclass(frozen=True, eq=False)
class Merged:
    """One finished module, and the sums that its part of the proof is made of."""

    module: str
    stored: Stored
    sums: Sums


Entries = Mapping[str, Entry]
SizeOf = Callable[[Entries], int]  # bytes of the whole file that holds these entries


def outline(job: Job, size_of: SizeOf | None = None, on_step: Progress | None = None) -> dict[str, Entry]:
    """What the result will hold, by module in sorted order. Without a policy only headers are needed.

    A policy reads every LoRA once for its singular values, and a module it gives rank 0 is not to be stored; its goal
    ``size`` needs ``size_of``. FoundryError LF501 for a method that is not there, LF502 for LoRAs without a sum,
    LF503 for what a policy cannot give.
    """
    method = method_of(job.method)
    entries = {module: Entry(shape, _rank(job.inputs, module)) for module, shape in modules_of(job.inputs).items()}
    if job.policy is None:
        return entries
    refuse_above(job.policy, [entry.shape for entry in entries.values()])
    spectra = dict(_spectra(job, method, entries, on_step))
    beside = {module: _rank([each for each in job.inputs if each.whole], module) or 0 for module in spectra}

    def with_ranks(ranks: Mapping[str, int]) -> dict[str, Entry]:
        chosen = {module: _entry(entries[module], spectra[module], ranks[module], beside[module]) for module in ranks}
        return {**entries, **chosen}

    sized = None if size_of is None else lambda ranks: size_of(with_ranks(ranks))
    return with_ranks(choose(spectra, job.policy, sized))


def _entry(entry: Entry, found: Spectrum, rank: int, beside: int) -> Entry:
    left_out = found.energy - float(found.values[:rank].square().sum())
    return Entry(entry.shape, rank + beside, max(0.0, left_out))


def _rank(inputs: Sequence[Input], module: str) -> int | None:
    ranks = [each.modules[module].rank for each in inputs if each.strength(module) != 0.0]
    return None if None in ranks else sum(rank for rank in ranks if rank is not None)


def _spectra(job: Job, method: Method, entries: Entries, on_step: Progress | None) -> Iterator[tuple[str, Spectrum]]:
    """The singular values of every module that can be shrunk."""

    def values(module: str) -> tuple[str, Spectrum]:
        parts = [part for part in read_parts(job.inputs, module) if part is not None]
        return module, spectrum(merged_parts(method, parts)[0])

    shrinking = (each for each in _stepped(entries, on_step) if _shrinks(job.inputs, each, entries[each].shape))
    return _together(values, shrinking, entries)


def _stepped(entries: Entries, on_step: Progress | None) -> Iterator[str]:
    for done, module in enumerate(entries):
        if on_step is not None:
            on_step(done, len(entries))
        if done % TIDY == 0:
            give_back()
        yield module


def _together(work: Callable[[str], Item], modules: Iterable[str], entries: Entries) -> Iterator[Item]:
    """The work on every module in order, full matrices by themselves."""
    with gemm.full_fp32():  # it is of the process: no thread may put it back while another works
        yield from worked_ahead(work, modules, lambda module: entries[module].rank is None)


def _shrinks(inputs: Sequence[Input], module: str, shape: Shape) -> bool:
    """Whether there is a matrix to shrink, and no LoRA that stays whole makes it a full one."""
    whole = [each.modules[module].rank for each in inputs if each.whole and each.strength(module) != 0.0]
    bent = [each for each in inputs if not each.whole and each.strength(module) != 0.0]
    return bool(bent) and len(shape) > 1 and None not in whole


def results(job: Job, entries: Entries, on_step: Progress | None = None) -> Iterator[Merged]:
    """Every module of ``entries`` (of ``outline``), finished, in order; two are worked on, of full matrices one.

    ``on_step(done, total)`` is called before each and may raise to cancel.
    """
    method, spaces = method_of(job.method), _Spaces()
    return _together(
        lambda module: _finished(job, method, module, entries[module], spaces.workspace),
        _stepped(entries, on_step),
        entries,
    )


class _Spaces(threading.local):
    """What each thread works in: memory that is used again need not be cleared by the system for every module."""

    def __init__(self) -> None:
        self.workspace = gemm.Workspace()


def _finished(job: Job, method: Method, module: str, entry: Entry, workspace: gemm.Workspace) -> Merged:
    parts = read_parts(job.inputs, module)
    shrinks = job.policy is not None and _shrinks(job.inputs, module, entry.shape)
    if method.plain and not shrinks:
        return Merged(module, *exactly(parts, job.dtype, workspace))
    there, clamp = [part for part in parts if part is not None], job.policy.clamp if job.policy else None
    merged = _merged(method, there, entry.rank if shrinks else None, clamp)
    stored = fold(merged if entry.rank is None else padded(merged, entry.rank), job.dtype, in_order=True)
    return Merged(module, stored, measure(parts, stored))


def _merged(method: Method, parts: Sequence[Part], rank: int | None, clamp: float | None) -> Delta:
    """The merged delta of one module, shrunk to ``rank`` with all that stays whole, None: not shrunk nor clamped."""
    bent, whole = merged_parts(method, parts)
    if rank is not None:
        bent = clamped(truncated(bent, rank - whole.rank), clamp)
    products, dense = (*bent.products, *whole.products), (*bent.dense, *whole.dense)
    return replace(whole, products=products, dense=dense)


def merged_parts(method: Method, parts: Sequence[Part]) -> tuple[Delta, Delta]:
    """(what the method makes of the parts that may be changed, with their dense parts; the sum of those that stay)."""
    shape = parts[0].delta.shape
    products = [Part(replace(part.delta, dense=(), replaces=None), part.weight) for part in parts if not part.whole]
    rest = exact(
        [Part(replace(part.delta, products=()), part.weight) for part in parts if not part.whole] or [_none(shape)]
    )
    bendable = [part for part in products if part.delta.products]
    bent = method.merge(bendable) if bendable else Delta(shape)
    whole = exact([part for part in parts if part.whole] or [_none(shape)])
    if rest.replaces is not None:
        return replace(bent, dense=rest.dense), exact([Part(whole), Part(Delta(shape, replaces=rest.replaces))])
    return replace(bent, dense=rest.dense), whole


def _none(shape: Shape) -> Part:
    return Part(Delta(shape))
