"""One file that changes rows of a weight twice: the same change stored twice is applied once, others are told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import torch

from ...engine.dense import matrix
from ...engine.findings import Finding
from ...engine.plan import Patch
from ...engine.texts.say import say_of
from ..disk.header import quoted
from ..loras.file import LoRAFile
from ..names.dialects import ALPHA, DIFF, LORA, SET

ROUNDING = 1e-10  # of a square: float64 leaves 1e-15 of two equal products, a cast to another dtype 1e-6
WHOLE = (DIFF, SET)
Span = tuple[int, int]


def once(lora: LoRAFile, patches: Sequence[Patch], rows: dict[str, int]) -> tuple[list[Patch], list[Finding]]:
    """The patches without those that say again what another one says, and LF302 for what is said twice otherwise.

    ``rows`` are those of each weight. A file may hold one LoRA under two naming schemes, or q, k and v beside qkv.
    """
    grouped: dict[tuple[str, bool], list[Patch]] = defaultdict(list)
    for patch in patches:  # what was trained whole stands beside a LoRA on purpose, and never twice
        grouped[patch.target.weight, patch.adapter.kind in WHOLE].append(patch)
    copies: set[int] = set()
    twice: list[list[str]] = []
    for (weight, _), here in grouped.items():
        if len(here) > 1:
            copies |= {id(patch) for patch in _copies(lora, here, rows[weight])}
            left = [patch for patch in here if id(patch) not in copies]
            if clash := next(_overlapping(left, rows[weight]), None):
                twice.append([patch.adapter.module for patch in clash])
    return [patch for patch in patches if id(patch) not in copies], list(_told(lora, len(copies), twice))


def _told(lora: LoRAFile, copies: int, twice: Sequence[Sequence[str]]) -> Iterator[Finding]:
    if copies:
        yield say_of(lora.label, "LF302.copies", count=copies)
    if twice:
        yield say_of(lora.label, "LF302.twice", count=len(twice), modules=quoted(list(dict.fromkeys(twice[0]))))


def _span(patch: Patch, height: int) -> Span:
    """The rows of its weight that a patch changes."""
    piece = patch.target.slice
    return (0, height) if piece is None or piece[0] != 0 else (piece[1], piece[1] + piece[2])


def _overlapping(patches: Sequence[Patch], height: int) -> Iterator[tuple[Patch, Patch]]:
    for one, other in combinations(patches, 2):
        first, second = _span(one, height), _span(other, height)
        if max(first[0], second[0]) < min(first[1], second[1]):
            yield one, other


def _copies(lora: LoRAFile, patches: Sequence[Patch], height: int) -> list[Patch]:
    """Patches whose change another patch of the same rows, or of more, has as well: all that it overlaps, or none."""
    size = {id(patch): _span(patch, height) for patch in patches}
    ordered = sorted(patches, key=lambda patch: size[id(patch)][0] - size[id(patch)][1])  # stable: the first stays
    found: list[Patch] = []
    for number, whole in enumerate(ordered):
        first, stop = size[id(whole)]
        rest = [patch for patch in ordered[number + 1 :] if patch not in found]
        inside = [p for p in rest if max(first, size[id(p)][0]) < min(stop, size[id(p)][1])]
        if whole not in found and inside and all(_same(lora, whole, patch, height) for patch in inside):
            found += inside
    return found


def _same(lora: LoRAFile, whole: Patch, part: Patch, height: int) -> bool:
    """Whether two plain LoRAs say the same in the rows of ``part``, which lie in those of ``whole``."""
    if whole.adapter.kind in WHOLE:
        return _same_whole(lora, whole, part)
    mine, theirs = _span(whole, height), _span(part, height)
    plain = all(p.adapter.kind == LORA and {*dict(p.adapter.parts)} <= {"up", "down", ALPHA} for p in (whole, part))
    if not plain or not mine[0] <= theirs[0] < theirs[1] <= mine[1] or whole.target.transform != part.target.transform:
        return False
    ups, downs = zip(*(_factors(lora, patch) for patch in (whole, part)), strict=True)
    up = ups[0][theirs[0] - mine[0] : theirs[1] - mine[0]]
    if up.shape[0] != ups[1].shape[0] or downs[0].shape[1] != downs[1].shape[1]:
        return False
    left = _square(torch.cat((up, -ups[1]), 1), torch.cat(downs))
    return left <= ROUNDING * _square(ups[1], downs[1])


def _same_whole(lora: LoRAFile, one: Patch, other: Patch) -> bool:
    """Whether two weights that were trained whole are one, bit for bit, in the same place."""
    mine, theirs = dict(one.adapter.parts), dict(other.adapter.parts)
    alike = one.adapter.kind == other.adapter.kind and mine.keys() == theirs.keys()
    if not alike or (one.target, one.factor) != (other.target, other.factor):
        return False
    return all(_equal(lora.read(name), lora.read(theirs[part])) for part, name in mine.items())


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    alike = one.dtype == other.dtype and one.shape == other.shape
    bits = (each.reshape(-1).view(torch.uint8) for each in (one, other))  # fp8 knows no comparison
    return alike and torch.equal(*bits)


def _factors(lora: LoRAFile, patch: Patch) -> tuple[torch.Tensor, torch.Tensor]:
    """(up in the rows that the patch changes, times alpha / rank; down), in float64."""
    parts = dict(patch.adapter.parts)
    up, down = (matrix(lora.read(parts[name])).double() for name in ("up", "down"))
    if patch.target.part is not None:
        up = up.narrow(*patch.target.part)
    return up * patch.adapter.scale * patch.factor, down


def _square(up: torch.Tensor, down: torch.Tensor) -> float:
    """|up @ down|^2 without making the product."""
    return float(((up.T @ up) * (down @ down.T)).sum())
