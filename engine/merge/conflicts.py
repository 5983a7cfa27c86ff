"""Where LoRAs work against each other, and the strengths at which their stack is no louder than its strongest one.

The figures are those of LF402: cosines from Gram matrices, opposite signs on a sample of rows. All LoRAs of
a module are compared in one pass, at their weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch

from .. import gemm
from ..grams import opposite, sample_of
from ..progress import Progress
from .parts import Input, Part, modules_of, read_parts
from .proof import inner_products

Table = list[list[float]]


@dataclass(frozen=True, eq=False)
class PairSums:
    """Over some modules, for all pairs of LoRAs, float64 [n, n]: inner products, opposite signs, and of how many."""

    gram: torch.Tensor
    clashes: torch.Tensor
    sampled: torch.Tensor

    def __add__(self, other: PairSums) -> PairSums:
        return PairSums(self.gram + other.gram, self.clashes + other.clashes, self.sampled + other.sampled)

    @cached_property
    def cosine(self) -> torch.Tensor:
        """<a, b> / |a| |b|; 0 where one of them does nothing."""
        size = self.gram.diagonal().sqrt()
        product = size[:, None] * size[None, :]
        return torch.where(product > 0, self.gram / product, 0.0).clamp(-1, 1)

    @property
    def clash(self) -> torch.Tensor:
        """The share of opposite signs, 0.5 where nothing can be compared."""
        return torch.where(self.sampled > 0, self.clashes / self.sampled, 0.5)

    @property
    def excess(self) -> torch.Tensor:
        """``clash`` beyond arccos(cosine) / pi, which numbers of such a cosine have by chance."""
        return self.clash - torch.arccos(self.cosine) / math.pi

    @property
    def energies(self) -> torch.Tensor:
        """The squared norm of each LoRA, float64 [n]."""
        return self.gram.diagonal()

    @property
    def stack(self) -> float:
        """The squared norm of all of them together."""
        return max(0.0, float(self.gram.sum()))


@dataclass(frozen=True, eq=False)
class Conflicts:
    """All pairs of LoRAs, by group of modules (a block) and in all. ``left_out`` modules replace weights."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    groups: Mapping[str, PairSums]
    left_out: int = 0

    @cached_property
    def total(self) -> PairSums:
        """The sums over all groups."""
        return sum(self.groups.values(), _nothing(len(self.names)))

    @property
    def loudness(self) -> float:
        """|stack| / |strongest LoRA|, 1 where nothing is changed."""
        strongest = float(self.total.energies.max()) if self.names else 0.0
        return math.sqrt(self.total.stack / strongest) if strongest > 0 else 1.0

    @property
    def advice(self) -> tuple[float, ...]:
        """The weights at which the stack is as strong as its strongest LoRA; unchanged where it is no stronger."""
        return tuple(weight / max(1.0, self.loudness) for weight in self.weights)

    def to_json(self) -> dict[str, object]:
        """Tables of all pairs, energies by group as shares of the whole stack's, and the advice."""
        whole = self.total.stack
        return {
            "loras": [{"name": n, "weight": w} for n, w in zip(self.names, self.weights, strict=True)],
            **_tables(self.total),
            "blocks": [
                {
                    "block": name,
                    "stack": sums.stack / whole if whole > 0 else 0.0,
                    "loras": [energy / whole if whole > 0 else 0.0 for energy in sums.energies.tolist()],
                    **_tables(sums),
                }
                for name, sums in self.groups.items()
            ],
            "stack_to_strongest": self.loudness,
            "advice": [{"name": n, "weight": w} for n, w in zip(self.names, self.advice, strict=True)],
            "left_out": self.left_out,
        }


def _tables(sums: PairSums) -> dict[str, Table]:
    return {"cosine": sums.cosine.tolist(), "clash": sums.clash.tolist(), "excess": sums.excess.tolist()}


def conflicts(inputs: Sequence[Input], group: Callable[[str], str] = str, on_step: Progress | None = None) -> Conflicts:
    """Compare all LoRAs at their weights, module by module. ``group`` names the block of a module.

    ``on_step(done, total)`` counts modules. FoundryError LF502 for LoRAs that do not go together.
    """
    groups: dict[str, PairSums] = {}
    modules, left_out = modules_of(inputs), 0
    for done, module in enumerate(modules):
        if on_step is not None:
            on_step(done, len(modules))
        parts = read_parts(inputs, module)
        if any(part is not None and part.delta.replaces is not None for part in parts):
            left_out += 1
            continue
        block = group(module)
        groups[block] = groups.get(block, _nothing(len(inputs))) + pair_sums(parts)
    return Conflicts(tuple(i.name for i in inputs), tuple(i.weight for i in inputs), groups, left_out)


def pair_sums(parts: Sequence[Part | None]) -> PairSums:
    """The sums of one module; None is a LoRA that does not change it."""
    deltas = [None if part is None else part.weighted for part in parts]
    found = _nothing(len(parts))
    with gemm.full_fp32():
        rows = {
            number: delta.rows(sample_of(delta.size[0])).to(torch.float32)
            for number, delta in enumerate(deltas)
            if delta is not None
        }
    for one, other in combinations(rows, 2):
        clashes, sampled = opposite(rows[one], rows[other])
        for here in ((one, other), (other, one)):
            found.clashes[here], found.sampled[here] = clashes, sampled
    for one, mine in rows.items():
        found.sampled[one, one] = int((mine != 0).sum())
    return PairSums(inner_products(deltas), found.clashes, found.sampled)


def _nothing(count: int) -> PairSums:
    return PairSums(*(torch.zeros(count, count, dtype=torch.float64) for _ in range(3)))
