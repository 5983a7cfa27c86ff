"""Base weight + the sum of all LoRA deltas, in fp32, by one GEMM over the concatenated ranks.

delta = strength * (alpha / rank) * up @ down, with up [out, rank] and down [rank, in * kh * kw].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .errors import FoundryError
from .plan import FUSE, MATCH_TRAINING, Layer, Patch

TRAINING_DTYPE = torch.bfloat16
WHOLE = slice(None)


@dataclass(frozen=True)
class Term:
    """One delta as fp32 factors: ``up`` [rows, r] carries strength and scale already, ``down`` is [r, columns]."""

    up: torch.Tensor
    down: torch.Tensor
    rows: slice = field(default_factory=lambda: WHOLE)
    columns: slice = field(default_factory=lambda: WHOLE)

    @property
    def place(self) -> tuple[int | None, int | None, int | None, int | None]:
        """Where in the weight the delta lands; terms with one place share a GEMM."""
        return (self.rows.start, self.rows.stop, self.columns.start, self.columns.stop)


def swap_scale_shift(rows: torch.Tensor) -> torch.Tensor:
    """Diffusers stores adaLN as (shift, scale), ComfyUI as (scale, shift): swap the two halves of dim 0."""
    shift, scale = rows.chunk(2, dim=0)
    return torch.cat([scale, shift], dim=0)


TRANSFORMS = {"swap_scale_shift": swap_scale_shift}


def read_factors(layer: Layer, patch: Patch) -> tuple[torch.Tensor, torch.Tensor]:
    """(up [out, rank], down [rank, in * kh * kw]) in the file's dtype, with the target's transform applied to up."""
    if layer.factors is None:
        raise FoundryError("plan", f"{layer.lora.name}: this plan was made without its file.", fix="Plan it again.")
    parts = dict(patch.adapter.parts)
    up = layer.factors.read(parts["up"]).flatten(start_dim=1)
    down = layer.factors.read(parts["down"]).flatten(start_dim=1)
    if patch.target.transform is not None:
        up = TRANSFORMS[patch.target.transform](up)
    return up, down


def placement(patch: Patch) -> tuple[slice, slice]:
    """Rows and columns of the flattened target that the patch touches."""
    if patch.target.slice is None:
        return WHOLE, WHOLE
    dim, start, length = patch.target.slice
    part = slice(start, start + length)
    return (part, WHOLE) if dim == 0 else (WHOLE, part)


def effective_scale(layer: Layer, patch: Patch) -> float:
    """strength * alpha / rank; the general (lora_A / lora_B) trainer of ``match training`` ignores alpha."""
    trained_without_alpha = is_as_trained(layer) and ".lora_B" in dict(patch.adapter.parts)["up"]
    return layer.strength * (1.0 if trained_without_alpha else patch.adapter.scale)


def make_term(layer: Layer, patch: Patch, device: torch.device | None = None) -> Term:
    """The patch as fp32 factors on ``device``, its effective scale folded into ``up``."""
    up, down = (factor.to(device=device, dtype=torch.float32) for factor in read_factors(layer, patch))
    return Term(up * effective_scale(layer, patch), down, *placement(patch))


def merge_terms(terms: Sequence[Term]) -> list[Term]:
    """Terms on the same rows and columns become one: ranks are concatenated, so their sum costs one GEMM."""
    places: dict[tuple[int | None, ...], list[Term]] = {}
    for term in terms:
        places.setdefault(term.place, []).append(term)
    return [
        Term(
            torch.cat([t.up for t in group], 1), torch.cat([t.down for t in group], 0), group[0].rows, group[0].columns
        )
        for group in places.values()
    ]


def add_as_trained(weight: torch.Tensor, layer: Layer, patch: Patch) -> None:
    """Add one delta in place the way the Lightning and general trainers do: product, scale and sum each in bf16.

    ``weight`` is [out, in * kh * kw] in bf16.
    """
    up, down = (factor.to(device=weight.device, dtype=TRAINING_DTYPE) for factor in read_factors(layer, patch))
    rows, columns = placement(patch)
    weight[rows, columns] = weight[rows, columns] + effective_scale(layer, patch) * torch.mm(up, down)


def is_as_trained(layer: Layer) -> bool:
    """Whether a layer is rounded the way training did instead of joining the one fp32 sum."""
    return layer.stage == FUSE and layer.rounding == MATCH_TRAINING


def canonical_key(pair: tuple[tuple[Layer, Patch], Term]) -> tuple[str, float, str]:
    """The order every additive sum is taken in, so that the order of listing changes not one bit."""
    (layer, patch), _ = pair
    return (*layer.order_key(), patch.adapter.module)


def fused_weight(
    weight: torch.Tensor,
    pairs: Sequence[tuple[Layer, Patch]],
    terms: Sequence[Term],
    device: torch.device | None = None,
) -> torch.Tensor:
    """weight + all deltas as a fresh fp32 tensor of the weight's shape; ``weight`` itself is never changed.

    ``terms[i]`` is ``make_term(*pairs[i])``. ``match training`` layers come first, in listed order.
    """
    start = weight.to(device).flatten(start_dim=1) if weight.ndim > 1 else weight.to(device)
    trained = [pair for pair in pairs if is_as_trained(pair[0])]
    if trained:
        start = start.to(TRAINING_DTYPE, copy=True)
        for layer, patch in trained:
            add_as_trained(start, layer, patch)
    total = start.to(torch.float32, copy=True)
    additive = [(pair, term) for pair, term in zip(pairs, terms, strict=True) if not is_as_trained(pair[0])]
    for term in merge_terms([term for _, term in sorted(additive, key=canonical_key)]):
        total[term.rows, term.columns].addmm_(term.up, term.down)
    return total.reshape(weight.shape)
