"""Base weight + the sum of all LoRA deltas, in fp32, by one GEMM over the concatenated ranks.

delta = strength * (alpha / rank) * up @ down, with up [out, rank] and down [rank, in * kh * kw].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from .errors import FoundryError
from .plan import FUSE, MATCH_TRAINING, Layer, Patch

TRAINING_DTYPE = torch.bfloat16
WHOLE = slice(None)
BLOCK = 3 << 18  # elements of a row block: 3 MB of fp32


class Workspace:
    """One fp32 buffer per device that grows to the largest tensor asked for and is used again for the next."""

    def __init__(self) -> None:
        self._buffers: dict[torch.device, torch.Tensor] = {}

    def take(self, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        """An fp32 tensor of this shape with any content; it shares its memory with all others taken on the device."""
        size = math.prod(shape)
        if device not in self._buffers or self._buffers[device].numel() < size:
            self._buffers[device] = torch.empty(size, dtype=torch.float32, device=device)
        return self._buffers[device][:size].view(*shape)


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


def start_and_terms(
    weight: torch.Tensor,
    pairs: Sequence[tuple[Layer, Patch]],
    terms: Sequence[Term],
    device: torch.device | None = None,
) -> tuple[torch.Tensor, list[Term]]:
    """(what the fp32 sum starts from as [out, in * kh * kw], the terms that join it, one per place).

    ``match training`` layers are already in the start, in listed order; ``terms[i]`` is ``make_term(*pairs[i])``.
    """
    start = weight.to(device).flatten(start_dim=1) if weight.ndim > 1 else weight.to(device)
    trained = [pair for pair in pairs if is_as_trained(pair[0])]
    if trained:
        start = start.to(TRAINING_DTYPE, copy=True)
        for layer, patch in trained:
            add_as_trained(start, layer, patch)
    additive = [(pair, term) for pair, term in zip(pairs, terms, strict=True) if not is_as_trained(pair[0])]
    return start, merge_terms([term for _, term in sorted(additive, key=canonical_key)])


def row_blocks(tensor: torch.Tensor) -> Iterator[slice]:
    """Rows that are worked on together: few enough that their fp32 sum stays in the core's cache; all on a GPU."""
    rows, columns = tensor.shape[0], max(1, tensor[:1].numel())
    step = max(1, BLOCK // columns) if tensor.device.type == "cpu" else max(1, rows)
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def fused_blocks(
    start: torch.Tensor, terms: Sequence[Term], workspace: Workspace
) -> Iterator[tuple[slice, torch.Tensor]]:
    """(rows, start + all terms there in fp32), block by block; the block is overwritten by the next one."""
    for rows in row_blocks(start):
        block = workspace.take(start[rows].shape, start.device)
        yield rows, add_rows(block.copy_(start[rows]), rows, terms)


def add_rows(block: torch.Tensor, rows: slice, terms: Sequence[Term]) -> torch.Tensor:
    """Add to ``block``, the rows ``rows`` of a weight, what each term has there."""
    for term in terms:
        offset = term.rows.start or 0
        first, stop = max(rows.start, offset), min(rows.stop, offset + term.up.shape[0])
        if first < stop:
            part = block[first - rows.start : stop - rows.start, term.columns]
            part.addmm_(term.up[first - offset : stop - offset], term.down)
    return block


def fused_weight(
    weight: torch.Tensor,
    pairs: Sequence[tuple[Layer, Patch]],
    terms: Sequence[Term],
    device: torch.device | None = None,
    workspace: Workspace | None = None,
) -> torch.Tensor:
    """weight + all deltas in fp32, of the weight's shape; ``weight`` itself is never changed.

    The result is fresh memory, or with a ``workspace`` a buffer that its next user overwrites.
    """
    start, merged = start_and_terms(weight, pairs, terms, device)
    total = (workspace or Workspace()).take(start.shape, start.device)
    for rows in row_blocks(start):
        add_rows(total[rows].copy_(start[rows]), rows, merged)
    return total.reshape(weight.shape)
