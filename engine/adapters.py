"""Every kind of adapter as a change of one weight: the table of kinds, and what is asked of a kind.

Two forms: factors whose product is the delta (plain LoRA: they join the one GEMM), or a function that makes rows of
the delta in fp32 when they are needed. A new kind is one function (``low_rank.py``, ``rotations.py``, ``dense.py``)
and one row of ``KINDS``; DoRA's magnitude is no kind of its own but a part that several have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import torch

from .dense import DeltaRows, Index, Make, Parts, difference, replacement, require, take
from .low_rank import glora, loha, lokr, lora
from .plan import Adapter
from .rotations import TERMS, boft, boft_in, oft, oft_in
from .tensors import TensorInfo
from .texts.say import refuse

LORA, DIFF, SET = "lora", "diff", "set"
OFT_IN, BOFT_IN = "oft_in", "boft_in"  # they rotate the inputs, where oft and boft rotate the outputs
MAGNITUDE, RESHAPE = "magnitude", "reshape"
PEFT_MAGNITUDE = "magnitude_vector"  # of a tensor's name: PEFT's is one number per row, in any shape
NOT_READ = ("alpha", RESHAPE)
BLOCK = 1 << 20  # numbers worked on together where a whole weight is gone through
EPS = torch.finfo(torch.float32).eps


def _terms(adapter: Adapter) -> float:
    return TERMS if adapter.alpha is None else adapter.alpha


def _limit(adapter: Adapter) -> float:
    return adapter.alpha or 0.0


@dataclass(frozen=True)
class Kind:
    """How a kind is made of its parts: each of ``required`` names one or more sets of parts, one of which is there.

    ``number`` is what alpha means for it. ``needs_weight``: the delta depends on the weight it goes to; ``mixes_rows``:
    each row of it on all rows.
    """

    make: Make
    required: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ()
    needs_weight: bool = False
    mixes_rows: bool = False
    number: Callable[[Adapter], float] = attrgetter("scale")

    @property
    def parts(self) -> frozenset[str]:
        """Every part it can have beside ``alpha``."""
        return frozenset(" ".join(sum(self.required, ())).split()).union(self.optional)


KINDS: Mapping[str, Kind] = {
    LORA: Kind(lora, (("up",), ("down",)), ("mid", MAGNITUDE, RESHAPE)),
    "loha": Kind(loha, (("w1_a",), ("w1_b",), ("w2_a",), ("w2_b",)), ("t1", "t2", MAGNITUDE)),
    "lokr": Kind(lokr, (("w1", "w1_a w1_b"), ("w2", "w2_a w2_b")), ("t2", MAGNITUDE)),
    "glora": Kind(glora, (("a1",), ("a2",), ("b1",), ("b2",)), needs_weight=True),
    "oft": Kind(oft, (("blocks",),), ("rescale",), needs_weight=True, mixes_rows=True, number=_limit),
    "boft": Kind(boft, (("blocks",),), ("rescale",), needs_weight=True, mixes_rows=True, number=_limit),
    OFT_IN: Kind(oft_in, (("turns",),), (MAGNITUDE,), needs_weight=True, number=_terms),
    BOFT_IN: Kind(boft_in, (("turned",), ("sizes",)), needs_weight=True, number=_limit),
    DIFF: Kind(difference, (("diff",),)),
    SET: Kind(replacement, (("set",),), needs_weight=True),
}


def is_low_rank(adapter: Adapter) -> bool:
    """Whether the delta is scale * up @ down and nothing else."""
    return adapter.kind == LORA and MAGNITUDE not in dict(adapter.parts)


def needs_weight(adapter: Adapter) -> bool:
    """Whether the delta depends on the weight it goes to."""
    return kind_of(adapter).needs_weight or MAGNITUDE in dict(adapter.parts)


def needs_all_rows(adapter: Adapter, stored: Mapping[str, TensorInfo]) -> str | None:
    """The text that says why no rows of the delta can be made without all rows of the weight; None: they can.

    ``stored`` are the tensors of the adapter's file, by name.
    """
    if kind_of(adapter).mixes_rows:
        return "LF304.mixes_rows"
    name = dict(adapter.parts).get(MAGNITUDE, PEFT_MAGNITUDE)
    if PEFT_MAGNITUDE not in name and _by_columns(stored[name].shape, math.prod(adapter.delta_shape[1:])):
        return "LF304.norms_of_columns"
    return None


def scale_of(adapter: Adapter) -> float:
    """alpha / rank where that multiplies the delta; 1 where alpha means something else or nothing."""
    kind = KINDS.get(adapter.kind)
    return kind.number(adapter) if kind is not None and kind.number not in (_limit, _terms) else 1.0


def kind_of(adapter: Adapter) -> Kind:
    """The row of an adapter's kind; FoundryError LF304 for a kind or for parts that are not in the table."""
    kind, parts = KINDS.get(adapter.kind), {part for part, _ in adapter.parts}
    if kind is None:
        raise refuse("LF304.kind", module=adapter.module, kind=adapter.kind)
    for choices in kind.required:
        if not any(parts.issuperset(choice.split()) for choice in choices):
            raise refuse("LF304.parts", module=adapter.module, kind=adapter.kind, parts=" or ".join(choices))
    return kind


def delta_rows(adapter: Adapter, parts: Parts, weight: torch.Tensor) -> DeltaRows:
    """The delta of an adapter at strength 1 on a weight [rows, columns], whose values count only for some kinds.

    ``parts`` are the tensors of ``adapter.parts`` on the weight's device.
    """
    kind = kind_of(adapter)
    delta = kind.make(parts, kind.number(adapter), weight)
    names = dict(adapter.parts)
    if MAGNITUDE not in names:
        return delta
    magnitude = parts[MAGNITUDE]
    if PEFT_MAGNITUDE in names[MAGNITUDE]:
        magnitude = magnitude.reshape(-1)
    return decomposed(delta, magnitude, weight)


def decomposed(delta: DeltaRows, magnitude: torch.Tensor, weight: torch.Tensor) -> DeltaRows:
    """DoRA: m * V / |V| - W with V = W + delta; |V| over each row, or over each input channel and its kernel.

    The axis is that of ``magnitude``: [out] and [out, 1] are rows, [1, in] columns, with or without a kernel of ones.
    """
    size = magnitude.to(torch.float32).reshape(-1)
    if _by_columns(magnitude.shape, weight.shape[1]):
        ratio = size / (_column_norms(delta, weight, len(size)) + EPS)
        spread = ratio.repeat_interleave(weight.shape[1] // len(size))
        return lambda rows: (take(weight, rows) + delta(rows)).mul_(spread).sub_(weight[rows])
    require(len(size) == weight.shape[0], magnitude, weight)

    def make(rows: Index) -> torch.Tensor:
        total = take(weight, rows) + delta(rows)
        return total.mul_(size[rows, None] / (total.norm(dim=1, keepdim=True) + EPS)).sub_(weight[rows])

    return make


def _by_columns(magnitude: Sequence[int], columns: int) -> bool:
    size = math.prod(magnitude)
    return tuple(magnitude[:2]) == (1, size) and size > 0 and columns % size == 0


def _column_norms(delta: DeltaRows, weight: torch.Tensor, channels: int) -> torch.Tensor:
    squares = torch.zeros(channels, dtype=torch.float64, device=weight.device)
    for rows in _blocks(weight):
        total = (take(weight, rows) + delta(rows)).to(torch.float64)
        squares += total.square_().view(total.shape[0], channels, -1).sum(dim=(0, 2))
    return squares.sqrt().to(torch.float32)


def _blocks(weight: torch.Tensor) -> Iterator[slice]:
    step = max(1, BLOCK // max(1, weight.shape[1]))
    return (slice(first, min(first + step, weight.shape[0])) for first in range(0, weight.shape[0], step))
