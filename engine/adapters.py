"""Every kind of adapter as a change of one weight, by the formulas of the trainers that write it.

Two forms: factors whose product is the delta (plain LoRA: they join the one GEMM), or a function that makes rows of
the delta in fp32 when they are needed. A weight is looked at as [rows, columns]: [out, in * kh * kw], a bias [n, 1].
A new kind is one function and one row of ``KINDS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import einsum, rearrange

from .plan import Adapter
from .tensors import TensorInfo
from .texts.say import refuse

Parts = Mapping[str, torch.Tensor]  # part -> tensor as the file stores it
Index = slice | torch.Tensor  # some rows: a slice, or their numbers
Rows = Callable[[Index], torch.Tensor]  # these rows of a delta: fp32 [n, columns]
Make = Callable[[Parts, float, torch.Tensor], Rows]  # parts, scale (or limit), weight [rows, columns] of any dtype

LORA, DIFF, SET = "lora", "diff", "set"
MAGNITUDE, RESHAPE = "magnitude", "reshape"
PEFT_MAGNITUDE = "magnitude_vector"  # of a tensor's name: PEFT's is one number per row, in any shape
NOT_READ = ("alpha", RESHAPE)
BLOCK = 1 << 20  # numbers worked on together where a whole weight is gone through
EPS = torch.finfo(torch.float32).eps


def as_rows(tensor: torch.Tensor) -> torch.Tensor:
    """A weight or a part as [rows, columns]; a vector has one column."""
    return rearrange(tensor, "out ... -> out (...)" if tensor.ndim > 1 else "... -> (...) 1")


def take(tensor: torch.Tensor, rows: Index) -> torch.Tensor:
    """Some rows of a tensor of any dtype, in fp32 and in their own memory; fp8 knows no indexing, its bytes do."""
    if tensor.itemsize == 1 and isinstance(rows, torch.Tensor):
        return tensor.view(torch.uint8)[rows].view(tensor.dtype).to(torch.float32)
    return tensor[rows].to(torch.float32, copy=True)


def matrix(part: torch.Tensor) -> torch.Tensor:
    """A small part in fp32 as [rows, columns]."""
    return as_rows(part).to(torch.float32)


# --- one function per kind


def lora_factors(parts: Parts) -> tuple[torch.Tensor, torch.Tensor]:
    """(up [rows, r], down [r, columns]) as stored; a Tucker core ``mid`` [r, r', kh, kw] is folded into down (fp32)."""
    up, down = as_rows(parts["up"]), as_rows(parts["down"])
    return _joined(up, folded(parts["mid"], down) if "mid" in parts else down)


def folded(core: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Core [r, r', kh, kw] times inner [r', in] over r': [r, in * kh * kw]."""
    _require(core.ndim > 2 and core.shape[1] == inner.shape[0], core, inner)
    product = einsum(core.to(torch.float32), matrix(inner), "up down ..., down column -> up column ...")
    return rearrange(product, "up column ... -> up (column ...)")


def _joined(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two factors, or an error where they have no product."""
    _require(left.shape[1] == right.shape[0], left, right)
    return left, right


def lora(parts: Parts, scale: float, weight: torch.Tensor) -> Rows:
    """scale * up @ down."""
    up, down = (factor.to(torch.float32) for factor in lora_factors(parts))
    _fit(up.shape[0], down.shape[1], weight)
    return lambda rows: (up[rows] * scale) @ down


def loha(parts: Parts, scale: float, weight: torch.Tensor) -> Rows:
    """scale * (w1_a @ w1_b) * (w2_a @ w2_b); with cores t1, t2 the outer factors are stored as [r, out]."""
    (up1, down1), (up2, down2) = _hadamard(parts, "1"), _hadamard(parts, "2")
    for up, down in ((up1, down1), (up2, down2)):
        _fit(up.shape[0], down.shape[1], weight)
    return lambda rows: ((up1[rows] * scale) @ down1).mul_(up2[rows] @ down2)


def _hadamard(parts: Parts, which: str) -> tuple[torch.Tensor, torch.Tensor]:
    outer, inner = matrix(parts[f"w{which}_a"]), matrix(parts[f"w{which}_b"])
    core = parts.get(f"t{which}")
    return _joined(outer, inner) if core is None else _joined(outer.T, folded(core, inner))


def lokr(parts: Parts, scale: float, weight: torch.Tensor) -> Rows:
    """scale * kron(w1, w2), each whole or split in two factors; with a core t2 w2_a is stored as [r, out]."""
    left, right = _first(parts), _second(parts)
    _fit(left.shape[0] * right.shape[0], left.shape[1] * right.shape[1], weight)
    numbers = torch.arange(left.shape[0] * right.shape[0], device=left.device)

    def make(rows: Index) -> torch.Tensor:
        outer, inner = left[numbers[rows] // right.shape[0]], right[numbers[rows] % right.shape[0]]
        return ((outer * scale)[:, :, None] * inner[:, None, :]).flatten(start_dim=1)

    return make


def _first(parts: Parts) -> torch.Tensor:
    if "w1" in parts:
        return matrix(parts["w1"])
    left, right = _joined(matrix(parts["w1_a"]), matrix(parts["w1_b"]))
    return left @ right


def _second(parts: Parts) -> torch.Tensor:
    if "w2" in parts:
        return matrix(parts["w2"])
    outer, inner = matrix(parts["w2_a"]), matrix(parts["w2_b"])
    left, right = _joined(outer.T, folded(parts["t2"], inner)) if "t2" in parts else _joined(outer, inner)
    return left @ right


def difference(parts: Parts, scale: float, weight: torch.Tensor) -> Rows:
    """scale * diff: of a weight, a norm, a bias."""
    stored = as_rows(parts["diff"])
    _fit(stored.shape[0], stored.shape[1], weight)
    return lambda rows: take(stored, rows).mul_(scale)


def glora(parts: Parts, scale: float, weight: torch.Tensor) -> Rows:
    """scale * (B + W A), A and B of rank r: b1 @ b2 and a1 @ a2 today, b2 @ b1 and a2 @ a1 in files of LyCORIS 1.x.

    A mixes the input channels: with W as [out, in, kernel] it is the sum over in.
    """
    a1, a2, b1, b2 = (matrix(parts[name]) for name in ("a1", "a2", "b1", "b2"))
    if (b2.shape[0], b1.shape[1]) == tuple(weight.shape) and b2.shape[1] == b1.shape[0]:
        a1, a2, b1, b2 = a2, a1, b2, b1
    (a1, a2), (b1, b2), channels = _joined(a1, a2), _joined(b1, b2), a1.shape[0]
    _fit(b1.shape[0], b2.shape[1], weight)
    _require(a2.shape[1] == channels and weight.shape[1] % channels == 0, a2, weight)

    def make(rows: Index) -> torch.Tensor:
        here = take(weight, rows)
        here = here.view(here.shape[0], channels, weight.shape[1] // channels)
        mixed = torch.einsum("rck,cd->rdk", here, a1 @ a2) if here.shape[2] > 1 else ((here[:, :, 0] @ a1) @ a2)
        return (mixed.flatten(start_dim=1) + b1[rows] @ b2).mul_(scale)

    return make


def oft(parts: Parts, limit: float, weight: torch.Tensor) -> Rows:
    """R W - W, R a rotation of each block of rows: (I + Q) (I - Q)^-1 transposed, Q = blocks - blocks^T.

    ``blocks`` [count, size, size]; |Q| is at most ``limit`` * rows (0: no limit), as LyCORIS and sd-scripts do it.
    ``rescale`` [rows, 1] multiplies the rotated rows.
    """
    blocks = parts["blocks"]
    _require(blocks.ndim == 3 and blocks.shape[0] * blocks.shape[1] == weight.shape[0], blocks, weight)
    turns = rotations(blocks, limit * weight.shape[0])
    in_blocks = rearrange(weight.to(torch.float32), "(block row) column -> block row column", block=blocks.shape[0])
    turned = turns.mT @ in_blocks
    return _changed(turned, parts, weight)


def boft(parts: Parts, limit: float, weight: torch.Tensor) -> Rows:
    """OFT in stages: stage i rotates rows that lie 2^i half blocks apart. ``blocks`` [stages, count, size, size]."""
    blocks = parts["blocks"]
    _require(blocks.ndim == 4, blocks, weight)
    stages, count, size, _ = blocks.shape
    fits = count * size == weight.shape[0] and size % 2 == 0 and count % 2 ** (stages - 1) == 0
    _require(fits, blocks, weight)
    turned = weight.to(torch.float32)
    for stage, turns in enumerate(rotations(blocks, limit * weight.shape[0])):
        apart = 2**stage * (size // 2)
        mixed = rearrange(turned, "(group half apart) column -> (group apart half) column", half=2, apart=apart)
        mixed = turns @ rearrange(mixed, "(block row) column -> block row column", block=count)
        mixed = rearrange(mixed, "block row column -> (block row) column")
        turned = rearrange(mixed, "(group apart half) column -> (group half apart) column", half=2, apart=apart)
    return _changed(turned, parts, weight)


def rotations(blocks: torch.Tensor, limit: float) -> torch.Tensor:
    """Rotation matrices of blocks [..., size, size], fp32; the norm of all Q together is at most ``limit`` (0: any)."""
    _require(blocks.shape[-1] == blocks.shape[-2], blocks, blocks)
    skew = blocks.to(torch.float64) - blocks.to(torch.float64).mT
    norm = float(skew.norm())
    if norm > limit > 0:
        skew *= limit / norm
    one = torch.eye(blocks.shape[-1], dtype=torch.float64, device=blocks.device)
    turns: torch.Tensor = torch.linalg.solve(one - skew, one + skew)  # the two commute
    return turns.to(torch.float32)


def _changed(turned: torch.Tensor, parts: Parts, weight: torch.Tensor) -> Rows:
    """rescale * turned - weight."""
    turned = turned.reshape(weight.shape)
    if "rescale" in parts:
        _require(parts["rescale"].numel() == weight.shape[0], parts["rescale"], weight)
        turned = turned * parts["rescale"].to(torch.float32).reshape(-1, 1)
    changed = turned - weight
    return lambda rows: changed[rows]


def replacement(parts: Parts, scale: float, weight: torch.Tensor) -> Rows:
    """set - W: afterwards the weight is what the file holds."""
    stored = as_rows(parts["set"])
    _fit(stored.shape[0], stored.shape[1], weight)
    return lambda rows: take(stored, rows).sub_(weight[rows])


def decomposed(delta: Rows, magnitude: torch.Tensor, weight: torch.Tensor) -> Rows:
    """DoRA: m * V / |V| - W with V = W + delta; |V| over each row, or over each input channel and its kernel.

    The axis is that of ``magnitude``: [out] and [out, 1] are rows, [1, in] columns, with or without a kernel of ones.
    """
    size = magnitude.to(torch.float32).reshape(-1)
    if _by_columns(magnitude.shape, weight.shape[1]):
        ratio = size / (_column_norms(delta, weight, len(size)) + EPS)
        spread = ratio.repeat_interleave(weight.shape[1] // len(size))
        return lambda rows: (take(weight, rows) + delta(rows)).mul_(spread).sub_(weight[rows])
    _require(len(size) == weight.shape[0], magnitude, weight)

    def make(rows: Index) -> torch.Tensor:
        total = take(weight, rows) + delta(rows)
        return total.mul_(size[rows, None] / (total.norm(dim=1, keepdim=True) + EPS)).sub_(weight[rows])

    return make


def _by_columns(magnitude: Sequence[int], columns: int) -> bool:
    size = math.prod(magnitude)
    return tuple(magnitude[:2]) == (1, size) and size > 0 and columns % size == 0


def _column_norms(delta: Rows, weight: torch.Tensor, channels: int) -> torch.Tensor:
    squares = torch.zeros(channels, dtype=torch.float64, device=weight.device)
    for rows in _blocks(weight):
        total = (take(weight, rows) + delta(rows)).to(torch.float64)
        squares += total.square_().view(total.shape[0], channels, -1).sum(dim=(0, 2))
    return squares.sqrt().to(torch.float32)


def _blocks(weight: torch.Tensor) -> Iterator[slice]:
    step = max(1, BLOCK // max(1, weight.shape[1]))
    return (slice(first, min(first + step, weight.shape[0])) for first in range(0, weight.shape[0], step))


# --- the table


def _stated(adapter: Adapter) -> float:
    return adapter.scale


def _of_split(adapter: Adapter) -> float:
    """LoKr: alpha counts only where a factor is split."""
    return adapter.scale if any(part.endswith("_a") for part, _ in adapter.parts) else 1.0


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
    number: Callable[[Adapter], float] = _stated

    @property
    def parts(self) -> frozenset[str]:
        """Every part it can have beside ``alpha``."""
        return frozenset(" ".join(sum(self.required, ())).split()).union(self.optional)


KINDS: Mapping[str, Kind] = {
    LORA: Kind(lora, (("up",), ("down",)), ("mid", MAGNITUDE, RESHAPE)),
    "loha": Kind(loha, (("w1_a",), ("w1_b",), ("w2_a",), ("w2_b",)), ("t1", "t2", MAGNITUDE)),
    "lokr": Kind(lokr, (("w1", "w1_a w1_b"), ("w2", "w2_a w2_b")), ("t2", MAGNITUDE), number=_of_split),
    "glora": Kind(glora, (("a1",), ("a2",), ("b1",), ("b2",)), needs_weight=True),
    "oft": Kind(oft, (("blocks",),), ("rescale",), needs_weight=True, mixes_rows=True, number=_limit),
    "boft": Kind(boft, (("blocks",),), ("rescale",), needs_weight=True, mixes_rows=True, number=_limit),
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
    return kind.number(adapter) if kind is not None and kind.number is not _limit else 1.0


def kind_of(adapter: Adapter) -> Kind:
    """The row of an adapter's kind; FoundryError LF304 for a kind or for parts that are not in the table."""
    kind, parts = KINDS.get(adapter.kind), {part for part, _ in adapter.parts}
    if kind is None:
        raise refuse("LF304.kind", module=adapter.module, kind=adapter.kind)
    for choices in kind.required:
        if not any(parts.issuperset(choice.split()) for choice in choices):
            raise refuse("LF304.parts", module=adapter.module, kind=adapter.kind, parts=" or ".join(choices))
    return kind


def delta_rows(adapter: Adapter, parts: Parts, weight: torch.Tensor) -> Rows:
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


def _fit(rows: int, columns: int, weight: torch.Tensor) -> None:
    if (rows, columns) != tuple(weight.shape):
        height, width = weight.shape[:2]
        raise refuse("LF304.size", rows=rows, columns=columns, weight_rows=height, weight_columns=width)


def _require(fits: bool, one: torch.Tensor, other: torch.Tensor) -> None:
    if not fits:
        raise refuse("LF304.shapes", one=list(one.shape), other=list(other.shape))
