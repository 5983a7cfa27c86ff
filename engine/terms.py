"""One adapter on one weight as a term of the sum: scaled low-rank products, or a delta made row by row when needed.

Strength scales the delta f(W) - W of every kind: a weight goes a straight way from W to f(W). ``set`` is the exception:
it replaces the weight at any strength, as in ComfyUI. A patch's factor multiplies the strength; at 0 it does nothing.

Rows go from the file to the base in three steps: the target's part of the delta, its transform, its slice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from einops import rearrange

from . import gemm
from .adapters import DIFF, LORA, NOT_READ, SET, delta_rows, is_low_rank, needs_all_rows, needs_weight, scale_of
from .dense import DeltaRows, Index, Parts, as_rows
from .gemm import Product, Workspace
from .low_rank import lora_factors
from .plan import FUSE, MATCH_TRAINING, Adapter, Layer, Patch, Target
from .tensors import Over, TensorSource
from .texts.say import refuse

WHOLE = slice(None)
ROWS = 256  # of a delta that are looked at together
SCALES = 256  # of stacks of LoRAs that are remembered: most weights of a bake have those of the one before
BY_HEAD, HEAD = "by_head_128", 128
THIRDS = tuple(f"{BY_HEAD}_{part}" for part in "qkv")


@dataclass(frozen=True)
class Place:
    """The rows and columns of a weight [out, in * kh * kw] that a delta lands on."""

    rows: slice = field(default_factory=lambda: WHOLE)
    columns: slice = field(default_factory=lambda: WHOLE)

    @property
    def key(self) -> tuple[int | None, int | None, int | None, int | None]:
        """The place as something to compare and sort by; terms with one place share a GEMM."""
        return (self.rows.start, self.rows.stop, self.columns.start, self.columns.stop)

    @property
    def is_whole(self) -> bool:
        """Whether this is all of the weight."""
        return self.rows == self.columns == WHOLE

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """This part of a weight, as a view."""
        return weight[self.rows, self.columns]


@dataclass(frozen=True)
class Term:
    """One delta and where it lands, or all deltas of one place: their sum.

    ``products`` are as stored; ``up`` [rows, ranks] and ``down`` [ranks, columns] are fp32 and carry the scale in up.
    """

    products: tuple[Product, ...]
    place: Place = field(default_factory=Place)

    @property
    def span(self) -> tuple[int, int]:
        """First row touched, and the row after the last."""
        first = self.place.rows.start or 0
        return first, first + self.products[0].up.shape[0]

    @cached_property
    def up(self) -> torch.Tensor:
        """All scaled ups side by side, in fp32."""
        up = _beside([product.up for product in self.products], 1)
        return up * _scales(tuple((product.scale, product.rank) for product in self.products), up.device)

    @cached_property
    def down(self) -> torch.Tensor:
        """All downs below each other, in fp32."""
        return _beside([product.down for product in self.products], 0).to(torch.float32)

    @property
    def is_zero(self) -> bool:
        """Whether none of its ranks adds anything."""
        return not bool((self.up.any(0) & self.down.any(1)).any())

    def add_to(self, part: torch.Tensor, rows: slice) -> None:
        """Add the term's own rows ``rows`` to fp32 ``part`` [rows, columns]."""
        with gemm.full_fp32():
            part.addmm_(self.up[rows], self.down)

    def delta(self, rows: Index, dtype: torch.dtype) -> torch.Tensor:
        """The term's own rows ``rows``, worked out in ``dtype``."""
        return torch.cat([product.scaled_up(rows) for product in self.products], 1).to(dtype) @ self.down.to(dtype)

    def write(self, rows: Index, out: torch.Tensor, workspace: Workspace) -> None:
        """Write the term's own rows ``rows`` into ``out`` [rows, columns], worked out in its dtype."""
        for number, product in enumerate(self.products):
            down = workspace.take(product.down.shape, out.device, out.dtype, "factor").copy_(product.down)
            with gemm.full_fp32():
                out.addmm_(product.scaled_up(rows).to(out.dtype), down, beta=min(1, number))


def _beside(factors: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    """Factors beside each other in memory of their own, in fp32 unless all are of one 16-bit dtype."""
    if len({factor.dtype for factor in factors}) > 1 or factors[0].itemsize != 2:  # fp8 cannot be joined
        factors = [factor.to(torch.float32) for factor in factors]
    return torch.cat(list(factors), dim)


@lru_cache(SCALES)
def _scales(products: tuple[tuple[float, int], ...], device: torch.device) -> torch.Tensor:
    """fp32 [ranks]: the scale of each rank of products (scale, rank)."""
    scales, at = torch.empty(sum(rank for _, rank in products), device=device), 0
    for scale, rank in products:
        scales[at : at + rank] = scale
        at += rank
    return scales


@dataclass(frozen=True)
class Dense:
    """strength * a delta that is no low-rank product; only what its rows are made from is held."""

    make: DeltaRows
    height: int
    strength: float
    place: Place = field(default_factory=Place)

    @property
    def span(self) -> tuple[int, int]:
        """First row touched, and the row after the last."""
        first = self.place.rows.start or 0
        return first, first + self.height

    @property
    def is_zero(self) -> bool:
        """Whether it adds nothing anywhere; looked at a few rows at a time."""
        rows = (slice(first, min(first + ROWS, self.height)) for first in range(0, self.height, ROWS))
        return not any(bool(self.delta(each).any()) for each in rows)

    def add_to(self, part: torch.Tensor, rows: slice) -> None:
        """Add the term's own rows ``rows`` to fp32 ``part`` [rows, columns]."""
        with gemm.full_fp32():
            part.add_(self.make(rows), alpha=self.strength)

    def delta(self, rows: Index, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The term's own rows ``rows`` in ``dtype``; they are fp32 numbers."""
        with gemm.full_fp32():
            return self.make(rows).to(dtype) * self.strength

    def write(self, rows: Index, out: torch.Tensor, workspace: Workspace) -> None:
        """Write the term's own rows ``rows`` into ``out`` [rows, columns]."""
        out.copy_(self.delta(rows, out.dtype))


AnyTerm = Term | Dense


def swap_scale_shift(rows: torch.Tensor) -> torch.Tensor:
    """Diffusers stores adaLN as (shift, scale), ComfyUI as (scale, shift): swap the two halves of dim 0."""
    shift, scale = rearrange(rows, "(half row) ... -> half row ...", half=2)
    return torch.cat([scale, shift], dim=0)


def by_head(rows: torch.Tensor) -> torch.Tensor:
    """Rows of q, k and v of one head after the other: all of q, then of k, then of v."""
    return rearrange(rows, "(head part row) ... -> (part head row) ...", part=3, row=HEAD)


# Rows as the file has them -> as the base has them: all of them in another order, or the third that is q, k or v.
TRANSFORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "swap_scale_shift": swap_scale_shift,
    BY_HEAD: by_head,
    THIRDS[0]: lambda rows: by_head(rows).chunk(3)[0],
    THIRDS[1]: lambda rows: by_head(rows).chunk(3)[1],
    THIRDS[2]: lambda rows: by_head(rows).chunk(3)[2],
}


class _Parts(Over):
    """The tensors of a source of adapters, those that came along with a weight where that is."""

    def __init__(self, source: TensorSource, parts: Mapping[tuple[int, str], torch.Tensor]) -> None:
        self.source, self.label, self.tensors, self._parts = source, source.label, source.tensors, parts

    def read(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype."""
        part = self._parts.get((id(self.source), name))
        return self.source.read(name) if part is None else part


def with_parts(
    pairs: Sequence[tuple[Layer, Patch]], parts: Mapping[tuple[int, str], torch.Tensor]
) -> Sequence[tuple[Layer, Patch]]:
    """The same pairs, their adapters read from these ``parts`` (by id of their source, and name)."""
    if not parts:
        return pairs
    layers = {id(layer): layer for layer, _ in pairs}
    there = {
        key: layer if layer.factors is None else replace(layer, factors=_Parts(layer.factors, parts))
        for key, layer in layers.items()
    }
    return [(there[id(layer)], patch) for layer, patch in pairs]


def read_parts(layer: Layer, patch: Patch, device: torch.device | None = None) -> Parts:
    """The tensors of an adapter on ``device``, as the file stores them; one that is the delta, in the delta's shape."""
    if layer.factors is None:
        raise refuse("plan.without_file", lora=layer.lora.name)
    read, adapter = layer.factors.read, patch.adapter
    parts = {part: read(name).to(device) for part, name in adapter.parts if part not in NOT_READ}
    if adapter.kind in (DIFF, SET):
        parts = {part: tensor.reshape(adapter.delta_shape) for part, tensor in parts.items()}
    return parts


def read_factors(layer: Layer, patch: Patch) -> tuple[torch.Tensor, torch.Tensor]:
    """(up [rows, rank], down [rank, in * kh * kw]) of a LoRA in the file's dtype; up has the target's rows in order."""
    target, (up, down) = patch.target, lora_factors(read_parts(layer, patch))
    if target.part is not None:
        up = up.narrow(*target.part)
    return (up if target.transform is None else TRANSFORMS[target.transform](up)), down


def placement(patch: Patch) -> tuple[slice, slice]:
    """Rows and columns of the flattened target that the patch touches."""
    if patch.target.slice is None:
        return WHOLE, WHOLE
    dim, start, length = patch.target.slice
    part = slice(start, start + length)
    return (part, WHOLE) if dim == 0 else (WHOLE, part)


def is_as_trained(layer: Layer) -> bool:
    """Whether a layer is rounded the way training did instead of joining the one fp32 sum."""
    return layer.stage == FUSE and layer.rounding == MATCH_TRAINING


def refuse_untrained(layer: Layer, patch: Patch) -> None:
    """FoundryError LF304 for ``match training`` with anything but a plain LoRA of two factors."""
    adapter = patch.adapter
    plain = adapter.kind == LORA and {part for part, _ in adapter.parts} <= {"up", "down", "alpha"}
    if is_as_trained(layer) and not plain:
        raise refuse("LF304.untrained", lora=layer.lora.name, module=adapter.module, kind=named(adapter))


def refuse_part(layer: Layer, patch: Patch) -> None:
    """FoundryError LF304 for a part of a delta that no part of the weight is enough to make."""
    adapter, target = patch.adapter, patch.target
    if target.part is None or layer.factors is None:
        return
    if key := needs_all_rows(adapter, layer.factors.tensors):
        values = {"lora": layer.lora.name, "module": adapter.module, "kind": named(adapter), "weight": target.weight}
        raise refuse(key, **values)


def named(adapter: Adapter) -> str:
    """The kind in words: ``lora with magnitude``."""
    more = [part for part, _ in adapter.parts if part in ("mid", "magnitude", "reshape")]
    return " with ".join([adapter.kind, *more[:1]])


def effective_scale(layer: Layer, patch: Patch) -> float:
    """strength * factor * alpha / rank; the general (lora_A / lora_B) trainer of ``match training`` ignores alpha."""
    trained_without_alpha = is_as_trained(layer) and ".lora_B" in dict(patch.adapter.parts).get("up", "")
    return patch_strength(layer, patch) * (1.0 if trained_without_alpha else scale_of(patch.adapter))


def patch_strength(layer: Layer, patch: Patch) -> float:
    """How far a weight goes from W to f(W): the layer's strength times the patch's factor; ``set`` goes all the way."""
    return 1.0 if patch.adapter.kind == SET else layer.strength * patch.factor


def make_term(
    layer: Layer, patch: Patch, device: torch.device | None = None, weight: torch.Tensor | None = None
) -> AnyTerm:
    """The patch as a term, its parts on ``device`` in the file's dtype.

    ``weight`` is the whole weight [out, in * kh * kw] that this stage sees; kinds that do not depend on it need none.
    """
    refuse_part(layer, patch)
    place = Place(*placement(patch))
    if is_low_rank(patch.adapter):
        up, down = (factor.to(device) for factor in read_factors(layer, patch))
        return Term((Product(up, down, effective_scale(layer, patch)),), place)
    here = torch.empty(patch.adapter.delta_shape, device="meta") if weight is None else place.of(weight)
    return _dense(layer, patch, read_parts(layer, patch, device), as_rows(here), place)


def _dense(layer: Layer, patch: Patch, parts: Parts, weight: torch.Tensor, place: Place) -> Dense:
    """The delta is worked out with the rows of the file, and those of the target are taken in the order of the base."""
    adapter, strength = patch.adapter, patch_strength(layer, patch)
    order = row_order(patch.target, weight.shape[0], next(iter(parts.values())).device)
    with gemm.full_fp32():
        if order is None:
            return Dense(delta_rows(adapter, parts, weight), weight.shape[0], strength, place)
        delta = delta_rows(adapter, parts, _as_in_file(patch, weight, order))
    return Dense(lambda rows: delta(order[rows]), len(order), strength, place)


def row_order(target: Target, rows: int, device: torch.device) -> torch.Tensor | None:
    """Which row of the adapter's delta goes to each of the target's ``rows``; None where that is their own number."""
    if target.part is None and target.transform is None:
        return None
    first, count = (0, rows) if target.part is None else target.part[1:]
    order = torch.arange(first, first + count, device=device)[:, None]
    return (order if target.transform is None else TRANSFORMS[target.transform](order))[:, 0]


def _as_in_file(patch: Patch, weight: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The weight with each row where the adapter has it; rows of other targets hold anything, nothing looks at them."""
    rows = weight.shape[0] if patch.target.part is None else max(patch.adapter.delta_shape[0], int(order.max()) + 1)
    if weight.is_meta or not needs_weight(patch.adapter):
        return torch.empty(rows, weight.shape[1], device="meta")
    whole = weight.new_empty(rows, weight.shape[1])
    whole[order] = weight
    return whole


def merge_terms(terms: Sequence[AnyTerm]) -> list[AnyTerm]:
    """Low-rank terms on the same rows and columns become one; dense ones stay as they are."""
    products = merge_products([term for term in terms if isinstance(term, Term)])
    return [*products, *(term for term in terms if isinstance(term, Dense))]


def merge_products(terms: Sequence[Term]) -> list[Term]:
    """One term for each place: ranks are concatenated, so their sum costs one GEMM."""
    places: dict[Any, list[Term]] = {}
    for term in terms:
        places.setdefault(term.place.key, []).append(term)
    return [
        replace(group[0], products=tuple(product for term in group for product in term.products))
        for group in places.values()
    ]


def canonical_key(pair: tuple[Layer, Patch]) -> tuple[Any, ...]:
    """The order every additive sum is taken in, so that the order of listing changes not one bit."""
    layer, patch = pair
    adapter, target = patch.adapter, patch.target
    where = (target.slice or (), target.transform or "", target.part or (), patch.factor)
    return (*layer.order_key(), adapter.module, adapter.kind, adapter.parts, layer.stage, layer.rounding, *where)
