"""The bake: read each weight once, add all deltas in fp32, finish it (keep, cast or quantize), hand it to a sink."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import FoundryError
from .finish import Finish, output_dtype, quantized_names, scale_name
from .fuse import Term, Workspace, fused_blocks, fused_weight, make_term, start_and_terms
from .gain import GainMeter
from .memory import peak_rss_bytes
from .pipeline import WriteBehind, read_in_order
from .plan import MATCH_TRAINING, Layer, Patch, Plan
from .quantize import finite_amax, quantize_fp8
from .rules import already_quantized, raise_first
from .tensors import TensorInfo, TensorSink

Progress = Callable[[int, int], None]
Pairs = tuple[tuple[Layer, Patch], ...]


@dataclass
class BakeReport:
    """What a bake did and how good it is; errors are rms of rounding error over rms of the exact weights.

    ``gains`` has one entry per layer of the plan (None: that layer touched nothing).
    """

    tensors: int = 0
    touched: int = 0
    quantized: int = 0
    gains: list[float | None] = field(default_factory=list)
    bytes_read: int = 0
    bytes_written: int = 0
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    relative_error: float | None = None
    worst_layers: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Counts, errors, bytes, seconds and peak RSS as plain numbers (gains go with their LoRAs)."""
        return {**{key: value for key, value in vars(self).items() if key != "gains"}, "sqnr_db": self.sqnr_db}

    @property
    def sqnr_db(self) -> float | None:
        """Signal to rounding noise of all changed and quantized weights, in dB."""
        return -20 * math.log10(self.relative_error) if self.relative_error else None


def bake(
    plan: Plan,
    finish: Finish,
    sink: TensorSink,
    on_step: Progress | None = None,
    device: torch.device | None = None,
) -> BakeReport:
    """Compute every tensor of ``finish.outputs(plan)`` in order and give it to ``sink``.

    ``on_step(done, total)`` is called before each tensor; it may raise to cancel. ``device`` is where the maths runs.
    Raises FoundryError for a quantized base (LF201), NaN or Inf in a result (LF304), an effect that got lost (LF203).
    """
    raise_first(already_quantized(plan))
    started = time.perf_counter()
    infos = list(plan.base.source.tensors.values())
    with ExitStack() as opened:
        weights = opened.enter_context(closing(read_in_order(plan.base.source, [info.name for info in infos])))
        if getattr(sink, "on_disk", False):
            sink = opened.enter_context(WriteBehind(sink))
        job = _Job(plan, finish, sink, device)
        for done, info in enumerate(infos):
            if on_step is not None:
                on_step(done, len(infos))
            job.run(info, next(weights))
    if on_step is not None:
        on_step(len(infos), len(infos))
    job.check()
    report = job.report
    report.gains = [job.meter.gain(job.slots[id(layer)]) for layer in plan.layers]
    report.relative_error, report.worst_layers = job.meter.relative_error(), job.meter.worst()
    report.seconds = time.perf_counter() - started
    report.peak_rss_bytes = peak_rss_bytes()
    return report


class _Job:
    """One run of ``bake``: what every tensor needs, and the sums that are checked at the end."""

    def __init__(self, plan: Plan, finish: Finish, sink: TensorSink, device: torch.device | None) -> None:
        self.plan, self.finish, self.sink, self.device = plan, finish, sink, device
        self.work = plan.by_weight()
        self.slots = {id(layer): index for index, layer in enumerate(plan.layers)}
        self.quantized = set(quantized_names(plan, finish))
        self.meter = GainMeter()
        self.workspace = Workspace()
        self.report = BakeReport()
        self.changed = False

    def run(self, info: TensorInfo, weight: torch.Tensor) -> None:
        pairs = self.work.get(info.name, ())
        self.report.tensors += 1
        self.report.bytes_read += info.nbytes
        if not pairs and info.name not in self.quantized:
            self._pass_through(info, weight)
            return
        terms = [make_term(layer, patch, self.device) for layer, patch in pairs]
        finish = self._quantize if info.name in self.quantized else self._cast
        stored, scale = finish(info, weight, pairs, terms)
        self.report.touched += bool(pairs)
        self.changed = self.changed or (bool(pairs) and not _same(weight, stored))
        numbered = [(self.slots[id(layer)], term) for (layer, _), term in zip(pairs, terms, strict=True)]
        self.meter.measure(weight.to(stored.device), stored, numbered, scale, info.name)

    def _pass_through(self, info: TensorInfo, weight: torch.Tensor) -> None:
        """Write a tensor nothing touches; a cast that turns its numbers into Inf is refused."""
        cast = weight.to(output_dtype(info, self.finish))
        if cast.dtype != weight.dtype and torch.isfinite(weight).all():
            finite_amax(cast, info.name)
        self._write(info.name, cast)

    def _quantize(
        self, info: TensorInfo, weight: torch.Tensor, pairs: Pairs, terms: list[Term]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write codes and scale, taken from the fp32 sum; returns both."""
        total = fused_weight(weight, pairs, terms, self.device, self.workspace)
        codes, scale = quantize_fp8(total, self.finish.fp8 or torch.float8_e4m3fn, info.name)
        self._write(info.name, codes)
        self._write(scale_name(info.name), scale)
        self.report.quantized += 1
        return codes, scale

    def _cast(
        self, info: TensorInfo, weight: torch.Tensor, pairs: Pairs, terms: list[Term]
    ) -> tuple[torch.Tensor, None]:
        """Write the sum, rounded once to its dtype while the block is in cache; returns it."""
        start, merged = start_and_terms(weight, pairs, terms, self.device)
        cast = torch.empty(start.shape, dtype=output_dtype(info, self.finish), device=start.device)
        for rows, block in fused_blocks(start, merged, self.workspace):
            cast[rows] = block
        finite_amax(cast, info.name)
        cast = cast.reshape(weight.shape)
        self._write(info.name, cast)
        return cast, None

    def _write(self, name: str, tensor: torch.Tensor) -> None:
        self.report.bytes_written += tensor.numel() * tensor.dtype.itemsize
        self.sink.write(name, tensor)

    def check(self) -> None:
        """A bake that changed nothing, or lost a LoRA beyond what rounding explains, is an error."""
        gains = [self.meter.gain(index) for index in range(len(self.plan.layers))]
        cancelled = any(gain is not None and gain > 0.5 for gain in gains)  # +1 and -1: each is there in full
        if self.work and not self.changed and not cancelled:
            why = "The LoRAs are all zeros, or too weak for the dtype of the result."
            raise FoundryError("LF203", "No tensor of the base was changed.", why, "Check the LoRAs and their weights.")
        if self.finish.fp8 is None:  # rounding to bf16 can swallow a weak LoRA; that is reported, not refused
            return
        for index, layer in enumerate(self.plan.layers):
            if layer.rounding != MATCH_TRAINING:
                self.meter.require(index, layer.lora.name)


def _same(weight: torch.Tensor, stored: torch.Tensor) -> bool:
    """Whether a result is the base's own tensor again."""
    return weight.dtype == stored.dtype and torch.equal(weight.to(stored.device), stored)
