"""How strong each adapter of a LoRA file is: the sum of squares of what it adds, from r x r Gram matrices."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from ...engine.adapters import MAGNITUDE, NOT_READ, needs_weight, scale_of
from ...engine.dense import Parts, matrix
from ...engine.gemm import Product
from ...engine.merge.deltas import delta_of
from ...engine.plan import Adapter
from ..disk.store import Store
from ..names.dialects import LOKR
from .file import LoRAFile

STORE = Store("energies", most=500, seal=1)  # by contents: some 20 kB for a large LoRA


def energies(lora: LoRAFile) -> dict[Adapter, float]:
    """Adapter of the diffusion model -> the sum of squares of its delta at strength 1, alpha counted, magnitudes not.

    Kinds that depend on the base (OFT, a whole weight that is set ...) are left out; that of NaN factors is NaN, of
    infinite ones NaN or infinite. Reads every factor the first time.
    Raises FoundryError for a file that cannot be read.
    """
    measured = [_plain(adapter) for adapter in lora.adapters]
    key = hashlib.sha256(f"{lora.info.sha256} {lora.adapters!r}".encode()).hexdigest() if lora.path else ""
    found = STORE.get(key) if key else None
    if not isinstance(found, list) or len(found) != len(measured):
        found = [None if adapter is None else _energy(lora, adapter) for adapter in measured]
        if key:
            STORE.put(key, found)
    return {adapter: energy for adapter, energy in zip(lora.adapters, found, strict=True) if energy is not None}


def _plain(adapter: Adapter) -> Adapter | None:
    """The adapter without a magnitude; None where the base decides what it adds."""
    parts = tuple((part, name) for part, name in adapter.parts if part != MAGNITUDE)
    plain = replace(adapter, parts=parts)
    return None if needs_weight(plain) else plain


def _energy(lora: LoRAFile, adapter: Adapter) -> float:
    parts = {part: lora.read(name) for part, name in adapter.parts if part not in NOT_READ}
    if adapter.kind == LOKR and "t2" not in parts:  # |kron(a, b)| = |a| |b|
        return _squared(scale_of(adapter)) * _of_factor(parts, "w1") * _of_factor(parts, "w2")
    delta = delta_of(adapter, parts)
    if delta.is_low_rank:
        return sum(_of_product(product) for product in delta.products)
    return sum(float(delta.rows(rows).square().sum()) for rows in delta.blocks())


def _squared(number: float) -> float:
    """Infinite for an alpha beyond all sense, where ** would raise OverflowError."""
    return number * number


def _square(tensor: torch.Tensor) -> float:
    return float(tensor.double().square().sum())


def _of_factor(parts: Parts, name: str) -> float:
    """The same of one factor of a LoKr, whole or split."""
    if name in parts:
        return _square(parts[name])
    return _of_product(Product(matrix(parts[f"{name}_a"]), matrix(parts[f"{name}_b"]), 1.0))


def _of_product(product: Product) -> float:
    """|scale * up @ down|^2, which is the inner product of up^T up and down down^T."""
    up, down = product.up.double(), product.down.double()
    energy = float(((up.T @ up) * (down @ down.T)).sum())
    return (0.0 if energy < 0 else energy) * _squared(product.scale)  # NaN stays NaN
