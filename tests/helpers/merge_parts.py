"""LoRAs to merge: of factors, of any kind of adapter, and what their sum is in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from forms import Form
from lora_foundry.engine.gemm import Product
from lora_foundry.engine.merge.deltas import Delta, delta_of
from lora_foundry.engine.merge.fold import Stored
from lora_foundry.engine.merge.parts import Input, Part, Spec

Triple = tuple[torch.Tensor, torch.Tensor, float]  # up, down, scale


def low_rank(*triples: Triple) -> Delta:
    """The delta that is the sum of scale * up @ down."""
    up, down, _ = triples[0]
    return Delta((up.shape[0], down.shape[1]), tuple(Product(*triple) for triple in triples))


def random_triple(
    rows: int, columns: int, rank: int, seed: int, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> Triple:
    """Random factors, their singular values falling off."""
    random = torch.Generator().manual_seed(seed)
    up = torch.randn(rows, rank, generator=random) * torch.exp(-0.2 * torch.arange(rank))
    return up.to(dtype), (torch.randn(rank, columns, generator=random) * 0.3).to(dtype), scale


def dense(delta: Delta) -> torch.Tensor:
    """The whole delta in float64 [rows, columns], by the textbook."""
    total = torch.zeros(delta.size, dtype=torch.float64)
    for product in delta.products:
        total += product.scale * product.up.double() @ product.down.double()
    for each in delta.dense:
        total += each.delta(slice(None)).double()
    return total


def stored_matrix(stored: Stored) -> torch.Tensor:
    """What a stored module adds, in float64 [rows, columns], from its tensors alone."""
    if stored.up is not None and stored.down is not None:
        up, down = stored.up.double().flatten(1), stored.down.double().flatten(1)
        return stored.alpha / max(1, down.shape[0]) * up @ down
    whole = stored.diff if stored.diff is not None else stored.replaces
    assert whole is not None
    return whole.double().reshape(whole.shape[0], -1)


def weighted_sum(parts: Sequence[Part]) -> torch.Tensor:
    """sum of weight * delta in float64."""
    return torch.stack([part.weight * dense(part.delta) for part in parts]).sum(0)


def off(got: torch.Tensor, want: torch.Tensor) -> float:
    """|got - want| / |want|."""
    return float((got.double() - want).norm() / want.norm())


def form_delta(form: Form, weight: torch.Tensor | None = None) -> Delta:
    """A form of tests/helpers/forms.py as a delta."""
    return delta_of(form.adapter(), form.parts, weight)


def an_input(name: str, weight: float, deltas: Mapping[str, Delta], **more: object) -> Input:
    """A LoRA of these deltas by module."""
    specs = {module: Spec(each.shape, each.rank if each.is_low_rank else None) for module, each in deltas.items()}
    return Input(name, weight, specs, deltas.__getitem__, **more)  # type: ignore[arg-type]
