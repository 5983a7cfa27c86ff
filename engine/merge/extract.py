"""One LoRA out of two checkpoints: the difference of each weight, decomposed while it is there.

Each weight is read once, and once more where its factors are clamped. Of each the largest ``cap`` triples are kept in
the dtype of the result, never the matrix; when all are known, the values of the whole model compete for the size that
was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from ..dense import as_rows
from ..progress import Progress
from ..texts.say import refuse
from .core import clamped, shrunk
from .deltas import Delta, Shape, full_delta, pays
from .fold import Stored, fold
from .parts import Part
from .proof import Sums, measure
from .ranks import Policy, Spectrum, choose
from .run import Entry, Merged, SizeOf

CAP = 128  # triples kept of each weight where the policy names no rank
ROOM = 2  # times the rank asked for, which the weights that need most may get


@dataclass(frozen=True, eq=False)
class Extraction:
    """What to extract: modules with their shapes, ``read`` (the tuned weight, the base weight), dtype and policy."""

    modules: Mapping[str, Shape]
    read: Callable[[str], tuple[torch.Tensor, torch.Tensor]]
    policy: Policy
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, eq=False)
class _Found:
    spectrum: Spectrum
    stored: Stored


def extract(
    job: Extraction, size_of: SizeOf | None = None, on_step: Progress | None = None
) -> tuple[dict[str, Entry], Iterator[Merged]]:
    """What ``outline`` and ``results`` give of a merge: the entries, and the finished modules in their order.

    What no factors are smaller than, as norms and biases, is a full difference. The sums of each module are against the
    whole difference: their ``error`` is what the rank lost.
    FoundryError LF502 for weights of two shapes, NaN, or checkpoints that are equal.
    """
    found: dict[str, _Found | Stored] = {}
    names = sorted(job.modules)
    for done, module in enumerate(names):
        if on_step is not None:
            on_step(done, len(names))
        delta = _difference(module, *job.read(module))
        if delta is not None:
            found[module] = _decomposed(delta, job) if pays(1, *delta.size) else fold(delta, job.dtype)
    if not found:
        raise refuse("LF502.equal")
    spectra = {module: each.spectrum for module, each in found.items() if isinstance(each, _Found)}

    def with_ranks(ranks: Mapping[str, int]) -> dict[str, Entry]:
        return {module: _entry(each, ranks.get(module)) for module, each in found.items()}

    sized = None if size_of is None else lambda ranks: size_of(with_ranks(ranks))
    entries = with_ranks(choose(spectra, job.policy, sized))
    return entries, (_finished(job, module, each, entries[module]) for module, each in found.items())


def _difference(module: str, tuned: torch.Tensor, base: torch.Tensor) -> Delta | None:
    """tuned - base in fp32; None where they are equal."""
    if tuned.shape != base.shape:
        shapes = {"one_shape": list(tuned.shape), "other_shape": list(base.shape)}
        raise refuse("LF502.shapes", module=module, one="the tuned model", other="the base", **shapes)
    change = as_rows(tuned).to(torch.float32, copy=True).sub_(as_rows(base))
    if not torch.isfinite(change.sum()):
        raise refuse("LF502.nan", lora="The difference of the two models", module=module)
    return full_delta(tuple(tuned.shape), change) if change.any() else None


def _decomposed(delta: Delta, job: Extraction) -> _Found:
    rank = int(job.policy.amount) if job.policy.goal == "rank" else 0
    cap = max([(rank if job.policy.uniform else ROOM * rank) or CAP, *job.policy.layers.values()])
    spectrum, kept = shrunk(delta, cap)
    return _Found(spectrum, fold(kept, job.dtype, in_order=True))


def _entry(found: _Found | Stored, rank: int | None) -> Entry:
    if isinstance(found, Stored):
        return Entry(found.shape, None)
    spectrum = found.spectrum
    return Entry(found.stored.shape, rank, max(0.0, spectrum.energy - _kept(spectrum, rank or 0)))


def _kept(spectrum: Spectrum, rank: int) -> float:
    return float(spectrum.values[:rank].square().sum())


def _finished(job: Extraction, module: str, found: _Found | Stored, entry: Entry) -> Merged:
    """The first triples, which are the best ones of their number; what was left out is known from the values."""
    if isinstance(found, Stored) or found.stored.up is None or found.stored.down is None or entry.rank is None:
        stored = found if isinstance(found, Stored) else found.stored
        size = float(stored.delta().rows(slice(None)).square().sum())
        return Merged(module, stored, _against(size, size, stored.lost))
    rank = entry.rank
    stored = replace(found.stored, up=found.stored.up[:, :rank], down=found.stored.down[:rank], alpha=float(rank))
    if job.policy.clamp is not None and rank:
        stored = fold(clamped(stored.delta(), job.policy.clamp), job.dtype, in_order=True)
        return Merged(module, stored, measure([_again(job, module)], stored))
    kept = _kept(found.spectrum, rank)
    rounded = found.stored.lost * kept / max(_kept(found.spectrum, found.stored.down.shape[0]), 1e-300)
    return Merged(module, stored, _against(found.spectrum.energy, kept, entry.left_out + rounded))


def _again(job: Extraction, module: str) -> Part | None:
    """The whole difference once more: what was clamped is no part of its decomposition."""
    delta = _difference(module, *job.read(module))
    return None if delta is None else Part(delta)


def _against(size: float, kept: float, lost: float) -> Sums:
    one = torch.ones(1, dtype=torch.float64)
    return Sums(one[:, None] * size, one * kept, kept, lost)
