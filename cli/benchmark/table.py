"""The strategies as one table, and what each of them needs: known before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ...engine.blueprint import blueprint
from ...engine.finish import Finish
from ...engine.plan import Plan
from ..orders import Rounding, nearest, stochastic
from .strategies import (
    FORMAT,
    Bench,
    Weights,
    base_alone,
    fused,
    lora_then_quantize,
    low_memory,
    low_memory_fused,
    matrices,
    quantize_then_lora,
    standard,
)


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model: all its matrices and those with LoRAs, as stored and with fp8, and the largest one in fp32."""

    base: int
    fp8: int
    touched: int
    touched_fp8: int
    largest: int
    loras: int


def sizes(plan: Plan) -> Sizes:
    """What a plan's weights take, from the headers alone."""
    infos, work = matrices(plan), plan.by_weight()
    small = set(blueprint(plan, FORMAT).quantized)
    fp8 = {info.name: info.nbytes // info.dtype.itemsize if info.name in small else info.nbytes for info in infos}
    factors = (sum(info.nbytes for info in layer.factors.tensors.values()) for layer in plan.layers if layer.factors)
    return Sizes(
        base=sum(info.nbytes for info in infos),
        fp8=sum(fp8.values()),
        touched=sum(info.nbytes for info in infos if info.name in work),
        touched_fp8=sum(fp8[info.name] for info in infos if info.name in work),
        largest=max(4 * info.nbytes // info.dtype.itemsize for info in infos),
        loras=sum(factors),
    )


@dataclass(frozen=True)
class Strategy:
    """One row: ``resident`` is what it keeps on the device, ``backup`` what it keeps in host memory beside that."""

    name: str
    load: Callable[[Bench], Weights]
    then: str
    resident: Callable[[Sizes], int]
    backup: Callable[[Sizes], int] = lambda sizes: sizes.loras
    ours: bool = False
    reads_fp8: bool = False

    @property
    def does(self) -> str:
        """What runs, and what becomes of the sum."""
        said = (self.load.func if isinstance(self.load, partial) else self.load).__doc__
        return f"{said} {self.then}".strip()

    def needs(self, sizes: Sizes) -> tuple[int, int]:
        """(bytes on the device, bytes in host memory) at the peak, rather too many than too few."""
        return self.resident(sizes) + 4 * sizes.largest, self.backup(sizes) + 2 * sizes.largest


def _quantize_then_lora(name: str, rounding: Rounding, then: str) -> Strategy:
    load = partial(quantize_then_lora, rounding=rounding)
    return Strategy(name, load, then, lambda s: s.fp8, lambda s: s.touched_fp8 + s.loras, reads_fp8=True)


def _fused(name: str, finish: Finish, then: str, resident: Callable[[Sizes], int]) -> Strategy:
    return Strategy(name, partial(fused, finish=finish), then, resident, ours=True)


AS_COMFYUI = "So ComfyUI does."
BY_CHANCE = "Rounded by chance, up or down: so ComfyUI does."
TO_NEAREST = "Rounded to the nearest: so do loaders that know no other rounding."
NO_FIT = "So does ComfyUI with weights that do not fit."
STRATEGIES = {
    "base": Strategy("0 base alone, no LoRA", base_alone, "", lambda s: s.base),
    "standard": Strategy("1 standard LoRA", standard, AS_COMFYUI, lambda s: s.base, lambda s: s.touched + s.loras),
    "quantize_lora": _quantize_then_lora("2 quantize, then LoRA", stochastic, BY_CHANCE),
    "quantize_lora_nearest": _quantize_then_lora("2b the same, to nearest", nearest, TO_NEAREST),
    "lora_quantize": Strategy("3 LoRA, then quantize", lora_then_quantize, "", lambda s: s.base),
    "fused": _fused("4 fused", Finish(), "Rounded to the stored dtype.", lambda s: s.base),
    "fused_quantized": _fused("5 fused, then quantized", FORMAT, "Quantized to fp8.", lambda s: s.fp8),
    "low_memory": Strategy("6 low memory", low_memory, NO_FIT, lambda s: 0),
    "low_memory_fused": Strategy("7 low memory, optimized", low_memory_fused, "", lambda s: 0, ours=True),
}
