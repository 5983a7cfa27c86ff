"""The strategies as one table, and what each of them needs: known before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ...engine.blueprint import blueprint
from ...engine.finish import Finish
from ...engine.plan import Plan
from ..orders import nearest, stochastic
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


STRATEGIES = {
    "base": Strategy("0 base alone, no LoRA", base_alone, "", lambda s: s.base),
    "standard": Strategy(
        "1 standard LoRA", standard, "So ComfyUI does.", lambda s: s.base, lambda s: s.touched + s.loras
    ),
    "quantize_lora": Strategy(
        "2 quantize, then LoRA",
        partial(quantize_then_lora, rounding=stochastic),
        "Rounded by chance, up or down: so ComfyUI does.",
        lambda s: s.fp8,
        lambda s: s.touched_fp8 + s.loras,
        reads_fp8=True,
    ),
    "quantize_lora_nearest": Strategy(
        "2b the same, to nearest",
        partial(quantize_then_lora, rounding=nearest),
        "Rounded to the nearest: so do loaders that know no other rounding.",
        lambda s: s.fp8,
        lambda s: s.touched_fp8 + s.loras,
        reads_fp8=True,
    ),
    "lora_quantize": Strategy("3 LoRA, then quantize", lora_then_quantize, "", lambda s: s.base),
    "fused": Strategy(
        "4 fused", partial(fused, finish=Finish()), "Rounded to the stored dtype.", lambda s: s.base, ours=True
    ),
    "fused_quantized": Strategy(
        "5 fused, then quantized", partial(fused, finish=FORMAT), "Quantized to fp8.", lambda s: s.fp8, ours=True
    ),
    "low_memory": Strategy("6 low memory", low_memory, "So does ComfyUI with weights that do not fit.", lambda s: 0),
    "low_memory_fused": Strategy("7 low memory, optimized", low_memory_fused, "", lambda s: 0, ours=True),
}
