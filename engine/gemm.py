"""Sums of scaled low-rank products on bf16 matrix units, where these give the sum rounded once; if not, fp32 does it.

weight + sum of scale * up @ down, with up [rows, r] and down [r, columns].

The product of two bf16 numbers is exact in fp32; oneDNN adds these up in fp32, applies ``alpha``, adds the weight and
rounds once. So bf16 factors lose nothing while their scale stays outside: the scale most ranks share (up to a power of
two) becomes ``alpha``, and an up with another scale is split into two bf16 terms, high + low, of 17 bits together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

BF16 = torch.bfloat16
SMALLEST = 1 << 18  # weights below this size gain nothing
SAMPLE_ROWS, SAMPLE_STEP = 16, 7  # rows, and every seventh column, looked at for a choice: odd, as no layout is
SPLIT_LIMIT = 0.05  # mean of |split part / sum| up to which two terms still round 99.99 % of the sums correctly
ROUNDING = 1.03  # what rounding products, norms and their squares to bf16 adds at most
LOST = 2e-19  # the square of a smaller number may vanish in bf16
DELTA_LIMIT = 0.03  # rms(delta) / rms(weight) up to which a delta in bf16 moves 3 of 1000 8-bit codes at most, by one


class Workspace:
    """One buffer per slot, device and dtype that grows to the largest tensor asked for and is used for the next."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.device, torch.dtype], torch.Tensor] = {}
        self._last: dict[tuple[str, torch.device, torch.dtype], torch.Tensor] = {}

    def take(
        self, shape: Sequence[int], device: torch.device, dtype: torch.dtype = torch.float32, slot: str = "sum"
    ) -> torch.Tensor:
        """A tensor of this shape with any content; it shares its memory with all others taken from the slot."""
        key = (slot, device, dtype)
        last = self._last.get(key)
        if last is not None and last.shape == tuple(shape):
            return last
        size = math.prod(shape)
        if key not in self._buffers or self._buffers[key].numel() < size:
            del last  # the old buffer goes before the new one comes
            self._last.pop(key, None)
            self._buffers.pop(key, None)
        with torch.inference_mode(False):  # what is made in it could not be written to outside of it later on
            if key not in self._buffers:
                self._buffers[key] = torch.empty(size, dtype=dtype, device=device)
            self._last[key] = self._buffers[key][:size].view(*shape)
        return self._last[key]


@dataclass(frozen=True)
class Product:
    """scale * up @ down: ``up`` [rows, r] and ``down`` [r, columns] in the dtype they are stored in."""

    up: torch.Tensor
    down: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    def scaled_up(self, rows: slice | torch.Tensor = slice(None)) -> torch.Tensor:
        """scale * up[rows] in fp32."""
        return self.up[rows].to(torch.float32) * self.scale


@dataclass(frozen=True)
class JoinedProducts:
    """Products side by side: alpha * up [rows, terms] @ down [terms, columns], both in bf16, in workspace memory."""

    up: torch.Tensor
    down: torch.Tensor
    alpha: float

    def add_to(self, weight: torch.Tensor, out: torch.Tensor) -> None:
        """bf16 weight + product, rounded once into the bf16 ``out``."""
        torch.addmm(weight, self.up, self.down, alpha=self.alpha, out=out)

    def multiply(self, rows: slice, out: torch.Tensor) -> torch.Tensor:
        """up[rows] @ down without ``alpha``, rounded to the bf16 ``out``, which is returned."""
        return torch.mm(self.up[rows], self.down, out=out)

    def reach(self, workspace: Workspace) -> torch.Tensor:
        """fp32 [rows]: no number of alpha * up @ down is larger, by Cauchy and Schwarz; Inf or NaN where one may be."""
        rows, columns = (
            torch.mul(factor, factor, out=workspace.take(factor.shape, factor.device, BF16, "squares")).sum(dim).sqrt()
            for factor, dim in ((self.up, 1), (self.down, 0))
        )
        lost = math.sqrt(self.down.shape[0]) * LOST
        largest = columns.amax().to(torch.float32) + lost
        return (rows.to(torch.float32) + lost) * (largest * abs(self.alpha) * ROUNDING)


def suits(weight: torch.Tensor) -> bool:
    """Whether bf16 products are fast and right where this weight [rows, columns] lies, and it is large enough."""
    return weight.ndim == 2 and weight.numel() >= SMALLEST and fast_bf16(weight.device.type)


@cache
def fast_bf16(device_type: str) -> bool:
    """Whether the CPU has native bf16 products and one block of them comes out right; False for any other device."""
    native = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return device_type == "cpu" and native is not None and bool(native()) and rounds_once()


def rounds_once() -> bool:
    """Self-check: one sum of 512 products in bf16, a scale in ``alpha``, against fp32 rounded once."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((256, 256), (256, 512), (512, 256))
    weight, up, down = (torch.randn(*shape, generator=generator).to(BF16) for shape in shapes)
    alpha, got = 0.007, torch.empty_like(weight)
    JoinedProducts(up, down, alpha).add_to(weight, got)
    with full_fp32():
        want = weight.float() + alpha * (up.float() @ down.float())
    return float((got != want.to(BF16)).float().mean()) <= 1e-3


def exact_products(weight: torch.Tensor, products: Sequence[Product], workspace: Workspace) -> JoinedProducts | None:
    """The products whose sum with the bf16 ``weight`` is as good as fp32 rounded once; None: fp32 must do it."""
    if weight.dtype != BF16 or not all(_is_bf16(product.down) for product in products):
        return None
    alpha = shared_scale(products)
    split = [not (_is_power_of_two(product.scale / alpha) and _is_bf16(product.up)) for product in products]
    if any(split) and not split_share(weight, products, split) <= SPLIT_LIMIT:  # NaN is refused too
        return None
    return _joined(products, alpha, split, workspace)


def rounded_products(products: Sequence[Product], workspace: Workspace, slot: str = "") -> JoinedProducts:
    """One bf16 term per rank, factors rounded where they must be: good to 2^-8 of the products.

    Stacks of different ``slot`` can be used side by side.
    """
    return _joined(products, shared_scale(products), [False] * len(products), workspace, slot)


def shared_scale(products: Sequence[Product]) -> float:
    """The scale, up to a power of two, that most ranks have; the first of equals, and 1 where all are 0."""
    ranks: dict[float, int] = {}
    first: dict[float, float] = {}
    for product in products:
        mantissa = math.frexp(abs(product.scale))[0]
        ranks[mantissa] = ranks.get(mantissa, 0) + (product.rank if product.scale else 0)
        first.setdefault(mantissa, product.scale)
    return first[max(ranks, key=lambda mantissa: ranks[mantissa])] or 1.0


def split_share(weight: torch.Tensor, products: Sequence[Product], split: Sequence[bool]) -> float:
    """Mean of |what the split products add| / |the sum| (at most 1 each) on a few rows."""
    rows = slice(None, None, max(1, weight.shape[0] // SAMPLE_ROWS))
    total = weight[rows].to(torch.float32)
    part = torch.zeros_like(total)
    for product, is_split in zip(products, split, strict=True):
        delta = (product.up[rows].to(torch.float32) * product.scale) @ product.down.to(torch.float32)
        total += delta
        if is_split:
            part += delta
    return float((part / total).abs_().clamp_(max=1.0).mean())


def is_weak(joined: JoinedProducts, weight: torch.Tensor) -> bool:
    """Whether rms(product) <= 0.03 rms(weight) on a sample; both have the same rows."""
    rows, columns = slice(None, None, max(1, weight.shape[0] // SAMPLE_ROWS)), slice(None, None, SAMPLE_STEP)
    ours, theirs = (
        float(torch.linalg.vector_norm(sample.to(torch.float32)))
        for sample in (joined.up[rows] @ joined.down[:, columns], weight[rows, columns])
    )
    return abs(joined.alpha) * ours <= DELTA_LIMIT * theirs


def _joined(
    products: Sequence[Product], alpha: float, split: Sequence[bool], workspace: Workspace, slot: str = ""
) -> JoinedProducts:
    if len(products) == 1 and not split[0] and all(f.dtype == BF16 for f in (products[0].up, products[0].down)):
        return JoinedProducts(products[0].up, products[0].down, products[0].scale)
    device, terms = products[0].up.device, sum(p.rank * (1 + s) for p, s in zip(products, split, strict=True))
    up = workspace.take((products[0].up.shape[0], terms), device, BF16, "up" + slot)
    down = workspace.take((terms, products[0].down.shape[1]), device, BF16, "down" + slot)
    at = 0
    for product, is_split in zip(products, split, strict=True):
        piece, rest = (slice(first, first + product.rank) for first in (at, at + product.rank))
        scaled = product.up
        if is_split or product.scale != alpha:
            scaled = workspace.take(product.up.shape, device, slot="scaled").copy_(product.up)
            scaled.mul_(product.scale / alpha)
        up[:, piece], down[piece] = scaled, product.down
        if is_split:
            up[:, rest], down[rest] = scaled.sub_(up[:, piece]), product.down
        at += product.rank * (1 + is_split)
    return JoinedProducts(up, down, alpha)


def _is_bf16(factor: torch.Tensor) -> bool:
    """Whether every value is a bf16 number, whatever the dtype it is stored in."""
    return factor.dtype == BF16 or torch.equal(factor.to(BF16).to(torch.float32), factor.to(torch.float32))


def _is_power_of_two(ratio: float) -> bool:
    return ratio == 0.0 or math.frexp(abs(ratio))[0] == 0.5


@contextmanager
def full_fp32() -> Iterator[None]:
    """fp32 products in fp32, whatever the host chose (TF32 or bf16 inside fp32 products)."""
    settings = [(place, place.fp32_precision) for place in _precisions() if place.fp32_precision != "ieee"]
    before = None if _precisions() else torch.get_float32_matmul_precision()
    try:
        for place, _ in settings:
            place.fp32_precision = "ieee"
        if before not in (None, "highest"):
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        for place, precision in settings:
            place.fp32_precision = "none"  # as it is everywhere, which is how most come by it
            if place.fp32_precision != precision:
                place.fp32_precision = precision
        if before not in (None, "highest"):
            torch.set_float32_matmul_precision(before)


@cache
def _precisions() -> tuple[Any, ...]:
    """Where torch 2.9 and later keep it, a device each; once one is set there the older getter raises."""
    places = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    return tuple(place for place in places if hasattr(place, "fp32_precision"))
