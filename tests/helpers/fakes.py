"""Sources, sinks, LoRAs and plans that live in memory, and what a bake should give, worked out in float64."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lora_foundry.engine.plan import ONCE, STACK, Adapter, Base, Coverage, Layer, LoRAInfo, Patch, Plan, Target
from lora_foundry.engine.tensors import InMemory, TensorInfo

DOWN_UP = (".lora_up.weight", ".lora_down.weight")
A_B = (".lora_B.weight", ".lora_A.weight")
A_B_NAMED = (".lora_B.default.weight", ".lora_A.default.weight")


class Cancelled(Exception):
    """Someone stopped the run: an exception that the pack does not know."""


class Tensors(InMemory):
    """A TensorSource over a dict; ``reads`` lists what was read, in order."""

    def __init__(self, values: dict[str, torch.Tensor], label: str = "base.safetensors") -> None:
        self.values, self.label = values, label
        self.tensors = {name: TensorInfo(name, value.dtype, tuple(value.shape)) for name, value in values.items()}
        self.reads: list[str] = []

    def read(self, name: str) -> torch.Tensor:
        self.reads.append(name)
        return self.values[name]


class Collected:
    """A TensorSink that keeps what it gets, in the order it comes."""

    on_disk = False

    def __init__(self) -> None:
        self.values: dict[str, torch.Tensor] = {}

    def write(self, name: str, tensor: torch.Tensor) -> None:
        assert name not in self.values, f"{name} was written twice"
        self.values[name] = tensor

    def infos(self) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(name, value.dtype, tuple(value.shape)) for name, value in self.values.items())


@dataclass(frozen=True, eq=False)
class Delta:
    """One LoRA module on one weight."""

    weight: str
    up: torch.Tensor
    down: torch.Tensor
    alpha: float | None = None
    slice: tuple[int, int, int] | None = None
    transform: str | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def exact(self, shape: Sequence[int], strength: float) -> torch.Tensor:
        """The delta on the whole weight, in float64, by the textbook: strength * alpha / rank * up @ down."""
        scale = strength if self.alpha is None else strength * self.alpha / self.rank
        up = self.up.double().reshape(self.up.shape[0], -1)
        product = scale * torch.einsum("or,r...->o...", up, self.down.double())
        if self.transform == "swap_scale_shift":
            half = product.shape[0] // 2
            product = torch.roll(product, half, 0)
        whole = torch.zeros(*shape, dtype=torch.float64)
        part = whole if self.slice is None else whole.narrow(*self.slice)
        part.copy_(product.reshape(part.shape))
        return whole


def noise(shape: Sequence[int], rms: float, seed: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * rms).to(dtype)


def random_delta(
    weight: str,
    shape: Sequence[int],
    rank: int,
    rms: float,
    seed: int,
    alpha: float | None = None,
    dtype: torch.dtype = torch.bfloat16,
    **where: Any,
) -> Delta:
    """A delta for a weight (or slice) of ``shape`` whose values have about this rms at strength 1."""
    scale = 1.0 if alpha is None else alpha / rank
    kernel = tuple(shape[2:])
    up = noise((shape[0], rank, *(1 for _ in kernel)), rms / (abs(scale) * rank**0.5), seed, dtype)
    down = noise((rank, *shape[1:]), 1.0, seed + 7919, dtype)
    return Delta(weight, up, down, alpha, **where)


def a_layer(
    deltas: Sequence[Delta],
    strength: float = 1.0,
    stage: str = STACK,
    name: str = "style.safetensors",
    rounding: str = ONCE,
    suffixes: tuple[str, str] = DOWN_UP,
    **more: Any,
) -> Layer:
    """A planned layer whose content hash is that of its name."""
    values: dict[str, torch.Tensor] = {}
    patches = []
    for number, delta in enumerate(deltas):
        module = f"{delta.weight.removesuffix('.weight')}.{number}"
        up, down = (module + suffix for suffix in suffixes)
        values |= {up: delta.up, down: delta.down}
        made_for = (delta.up.shape[0], *delta.down.shape[1:])
        adapter = Adapter(module, "lora", (("up", up), ("down", down)), delta.rank, made_for, delta.alpha)
        patches.append(Patch(adapter, Target(delta.weight, delta.slice, delta.transform)))
    info = LoRAInfo(name, hashlib.sha256(name.encode()).hexdigest(), "down/up" if suffixes is DOWN_UP else "A/B")
    coverage = Coverage(len(deltas), len(deltas))
    return Layer(stage, info, strength, tuple(patches), coverage, rounding, factors=Tensors(values, name), **more)


def a_plan(values: dict[str, torch.Tensor], *layers: Layer, family: str | None = None, **base: Any) -> Plan:
    source = Tensors(values)
    return Plan(Base(source.label, family, source, **base), layers)


def exact(weight: torch.Tensor, deltas: Sequence[tuple[Delta, float]]) -> torch.Tensor:
    """weight + every (delta, strength), in float64."""
    return sum((delta.exact(weight.shape, strength) for delta, strength in deltas), weight.double())


def round_to_bf16(values: torch.Tensor) -> torch.Tensor:
    """float64 rounded once to bf16, ties to even, on the bits (torch's own cast goes through fp32: two roundings)."""
    bits = values.contiguous().view(torch.int64)
    drop = 52 - 7
    bits = bits + ((1 << (drop - 1)) - 1) + ((bits >> drop) & 1)
    return ((bits >> drop) << drop).view(torch.float64).to(torch.bfloat16)


def fp8_values(mantissa: int, bias: int, top: int) -> torch.Tensor:
    """The value of every non-negative finite code 0..top of an fp8 format, from its definition."""
    codes = torch.arange(top + 1, dtype=torch.float64)
    exponent, fraction = torch.floor(codes / 2**mantissa), torch.remainder(codes, 2**mantissa) / 2**mantissa
    normal = (1 + fraction) * torch.exp2(exponent - bias)
    return torch.where(exponent > 0, normal, fraction * 2.0 ** (1 - bias))


FP8_VALUES = {torch.float8_e4m3fn: fp8_values(3, 7, 0x7E), torch.float8_e5m2: fp8_values(2, 15, 0x7B)}


def reference_fp8(values: torch.Tensor, dtype: torch.dtype = torch.float8_e4m3fn) -> tuple[torch.Tensor, float]:
    """(codes as int, scale) by nearest value, ties to the even code, all in float64."""
    table = FP8_VALUES[dtype]
    amax = float(values.abs().max())
    scale = amax / float(table[-1]) if amax > 0 else 1.0
    quotient = values / scale
    size = quotient.abs().contiguous()
    middle = (table[:-1] + table[1:]) / 2
    codes = torch.searchsorted(middle, size)
    tie = (codes < len(middle)) & (size == middle[codes.clamp(max=len(middle) - 1)])
    codes = codes + (tie & (codes % 2 == 1))
    return torch.where(torch.signbit(quotient), codes + 128, codes), scale


def wrong_share(got: torch.Tensor, want: torch.Tensor) -> float:
    """Share of elements whose bits differ; both of one dtype and shape."""
    assert got.dtype == want.dtype and got.shape == want.shape
    return float((bits(got) != bits(want)).double().mean())


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's bits as integers, so that -0 is not 0 and NaN is NaN."""
    kinds: dict[int, torch.dtype] = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.dtype.itemsize])


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal in dtype, shape and every bit."""
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(bits(left), bits(right))


def same_all(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
