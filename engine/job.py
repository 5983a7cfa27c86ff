"""One result of a bake, made tensor by tensor: passed through, cast, quantized, or copied from an earlier result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch

from .adapters import as_rows
from .dither import rounding_for
from .errors import FoundryError
from .finish import Finish, layer_marker, marker_name, output_dtype, outputs, quantized_names, scale_name
from .formats import Format, finite_amax, require_finite
from .fuse import add_rows, any_needs_weight, fused_cast, make_terms, start_and_terms
from .gain import GainMeter, Measure, measure, sampled_rows
from .gemm import Workspace
from .pipeline import Outlet, Read
from .plan import MATCH_TRAINING, Layer, Patch, Plan
from .reuse import Previous
from .rows import Blocks, SampledRows, cast_blocks, quantize_blocks, row_ranges
from .sums import FusedSum
from .tensors import PlacedReader, Reader, RowSink, TensorInfo, TensorSink
from .terms import AnyTerm, canonical_key, is_as_trained, refuse_part, refuse_untrained

Pairs = tuple[tuple[Layer, Patch], ...]
RowReader = Callable[[slice], torch.Tensor]


@dataclass(frozen=True)
class Order:
    """One result that is wanted; tensors whose ``keys`` are those of ``previous`` are copied from there."""

    plan: Plan
    finish: Finish
    sink: TensorSink
    previous: Previous | None = None
    keys: dict[str, str] = field(default_factory=dict)


class Job:
    """What every tensor of one result needs, and the sums that are checked at the end.

    ``keep_sum``: the fp32 sum of a weight is held while it is quantized; else it is computed twice, block by block.
    """

    def __init__(
        self, order: Order, outlet: Outlet, previous: Reader | None, device: torch.device | None, keep_sum: bool
    ) -> None:
        self.order, self.outlet, self.device, self.keep_sum = order, outlet, device, keep_sum
        self._previous = previous
        self._placed = previous if isinstance(previous, PlacedReader) and outlet.copy is not None else None
        self._work = order.plan.by_weight()
        for pair in chain.from_iterable(self._work.values()):
            refuse_untrained(*pair)
            refuse_part(*pair)
        self._numbers = {id(layer): number for number, layer in enumerate(order.plan.layers)}
        self._quantized = set(quantized_names(order.plan, order.finish))
        self._format = order.finish.quantization
        self._regrid = rounding_for(self._format, order.plan.base) if self._format else None  # for what LoRAs changed
        self._marker = layer_marker(order.finish)
        self._entries = _entries(order)
        self._workspace = Workspace()
        self._reserve()
        self._changed = False
        self.meter = GainMeter()
        self.counts = dict.fromkeys(("tensors", "touched", "quantized", "reused", "bytes_read", "bytes_written"), 0)

    def _reserve(self) -> None:
        """Buffers for the largest weight at once: untouched they cost nothing, grown they leave holes behind."""
        if self.device is not None and self.device.type != "cpu":
            return
        touched = {*self._work, *self._quantized}
        infos = [info for info in self.order.plan.base.source.tensors.values() if info.name in touched]
        largest = max((math.prod(info.shape) for info in infos), default=0)
        self._workspace.take((largest,), torch.device("cpu"))
        entries = (entry.nbytes for group in self._entries.values() for entry in group)
        self.outlet.reserve(max(entries, default=0))

    # --- what the reading needs to know

    def reuses(self, name: str) -> bool:
        """Whether the result of a base tensor is copied from an earlier one."""
        previous = self.order.previous
        if previous is None or previous.keys.get(name) != self.order.keys.get(name, ""):
            return False
        return all(previous.source.tensors.get(entry.name) == entry for entry in self._entries[name])

    def copies(self, name: str) -> Iterator[Read]:
        """What ``copy`` will take from the stream for a base tensor: nothing where files copy from each other."""
        if self._previous is not None and self._placed is None and self.reuses(name):
            yield from ((self._previous, entry.name) for entry in self._entries[name])

    # --- one tensor

    def make(self, info: TensorInfo, weight: torch.Tensor, transient: bool) -> None:
        """Make the result of a whole ``weight``; ``transient``: others will use its memory again."""
        pairs = self._begin(info)
        if not self._is_touched(info, pairs):
            self._pass_through(info, weight, transient)
            return
        terms = make_terms(weight, pairs, self.device)
        out = self.outlet.buffer(info.shape, self._entries[info.name][0].dtype, self.device or weight.device)
        format, scale = self._format_of(info), None
        if format is None:
            fused_cast(weight, pairs, terms, out, self._workspace)
            require_finite(out, info.name)
        else:
            start, merged = start_and_terms(weight, pairs, terms, self.device)
            blocks, amax = self._blocks(info, lambda rows: start[rows], merged), None
            if self.keep_sum:
                fused = FusedSum(start, merged, self._workspace, 1 if format.row_scaled else 2)
                blocks, amax = fused.blocks, None if format.row_scaled else fused.amax()
            scale = quantize_blocks(
                blocks, format, info.name, lambda rows, block, scale: format.encode(block, scale, out=out[rows]), amax
            )
        self._changed = self._changed or (bool(pairs) and not _same(weight, out))
        every = slice(None, None, sampled_rows(info.shape).step)
        base, stored = as_rows(weight)[every].to(out.device), as_rows(out)[every]
        stored = self._read_back(info, stored, _rows_of(scale, every))
        self._measure(info, base, stored, pairs, terms)
        self._write_all(info, out, scale)

    def make_by_rows(self, info: TensorInfo, base: Reader) -> None:
        """Make the result of a weight that is never whole in memory, where that can be done."""
        pairs = self._work.get(info.name, ())
        whole = any_needs_weight(pairs) or any(is_as_trained(layer) for layer, _ in pairs)  # looked at or rounded whole
        to: RowSink | None = self.order.sink if isinstance(self.order.sink, RowSink) else None
        if whole or len(info.shape) < 2 or not info.nbytes or to is None:
            self.make(info, base.read(info.name), base.transient)
            return
        self._begin(info)
        sampled = sampled_rows(info.shape)
        sink = SampledRows(to, self._entries[info.name][0], sampled)
        terms = make_terms(None, pairs, self.device)
        _, merged = start_and_terms(torch.empty(0, 0), pairs, terms, self.device)
        blocks = self._blocks(info, lambda rows: base.read_rows(info.name, rows.start, rows.stop), merged)
        format, scale = self._format_of(info), None
        if format is not None:
            scale = quantize_blocks(
                blocks, format, info.name, lambda rows, block, scale: sink.put(rows, format.encode(block, scale))
            )
        elif pairs:
            cast_blocks(blocks, self._entries[info.name][0].dtype, info.name, sink.put)
        else:
            for rows in row_ranges(info.shape):
                sink.put(rows, self._cast(info, base.read_rows(info.name, rows.start, rows.stop)))
        self._count(self._entries[info.name][0])
        self._changed = self._changed or bool(pairs)
        if self._is_touched(info, pairs):
            before = torch.cat([base.read_rows(info.name, row, row + 1).clone() for row in sampled]).to(self.device)
            every = slice(None, None, sampled.step)
            self._measure(info, before, self._read_back(info, sink.stored(), _rows_of(scale, every)), pairs, terms)
        self._write_beside(info, scale)

    def copy(self, info: TensorInfo, tensors: Iterator[torch.Tensor]) -> None:
        """Write what became of a base tensor in the earlier result; ``tensors`` gives it, as ``copies`` asked."""
        self.take_over(info)
        transient = self._previous is None or self._previous.transient
        for entry in self._entries[info.name]:
            self.counts["bytes_read"] += entry.nbytes
            if self._placed is None or self.outlet.copy is None:
                self._write(entry.name, self._own(next(tensors), entry.dtype, transient))
            else:
                self._count(entry)
                self.outlet.copy(entry.name, self._placed.extent(entry.name))

    def take_over(self, info: TensorInfo) -> None:
        """Count a base tensor whose result is there already, by the measures of the earlier bake."""
        pairs = self._begin(info)
        self.counts["bytes_read"] -= info.nbytes
        self.counts["reused"] += 1
        self._changed = self._changed or bool(pairs)
        kept = self.order.previous.measures.get(info.name) if self.order.previous is not None else None
        if kept is not None:
            self._add(info, Measure.from_json(kept), sorted(pairs, key=canonical_key))

    # --- parts of it

    def _begin(self, info: TensorInfo) -> Pairs:
        pairs = self._work.get(info.name, ())
        self.counts["tensors"] += 1
        self.counts["bytes_read"] += info.nbytes
        self.counts["touched"] += bool(pairs)
        self.counts["quantized"] += info.name in self._quantized
        return pairs

    def _is_touched(self, info: TensorInfo, pairs: Pairs) -> bool:
        return bool(pairs) or info.name in self._quantized or info.name in self.order.finish.keep_names

    def _format_of(self, info: TensorInfo) -> Format | None:
        if info.name not in self._quantized:
            return None
        return self._regrid if info.name in self._work else self._format

    def _blocks(self, info: TensorInfo, read: RowReader, merged: Sequence[AnyTerm]) -> Blocks:
        """The fp32 sum, block by block, made anew at every call; a block is overwritten by the next one."""

        def blocks() -> Iterator[tuple[slice, torch.Tensor]]:
            for rows in row_ranges(info.shape):
                start = read(rows).flatten(start_dim=1)
                block = self._workspace.take(start.shape, self.device or start.device)
                yield rows, add_rows(block.copy_(start), rows, merged)

        return blocks

    def _pass_through(self, info: TensorInfo, weight: torch.Tensor, transient: bool) -> None:
        self._write(info.name, self._own(self._cast(info, weight), weight.dtype, transient))

    def _cast(self, info: TensorInfo, weight: torch.Tensor) -> torch.Tensor:
        """A tensor nothing touches, in its dtype; a cast that turns its numbers into Inf is refused."""
        cast = weight.to(output_dtype(info, self.order.finish))
        if cast.dtype != weight.dtype and torch.isfinite(weight).all():
            finite_amax(cast, info.name)
        return cast

    def _own(self, tensor: torch.Tensor, dtype: torch.dtype, transient: bool) -> torch.Tensor:
        """The tensor in memory that stays as it is until it is written."""
        if tensor.dtype != dtype or not transient:
            return tensor
        return self.outlet.buffer(tensor.shape, tensor.dtype, tensor.device).copy_(tensor)

    def _read_back(self, info: TensorInfo, stored: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
        """Stored rows as a loader reads them."""
        format = self._format_of(info)
        flat = as_rows(stored)
        if format is None or scale is None:
            return flat
        return format.decode(flat, scale, self._workspace.take(flat.shape, flat.device, slot="stored"))

    def _measure(
        self, info: TensorInfo, base: torch.Tensor, stored: torch.Tensor, pairs: Pairs, terms: Sequence[AnyTerm]
    ) -> None:
        term_of = {id(pair): term for pair, term in zip(pairs, terms, strict=True)}
        ordered = sorted(pairs, key=canonical_key)
        rows = sampled_rows(info.shape)
        deltas = [term_of[id(pair)] for pair in ordered]
        measured = measure(as_rows(base), stored, rows, info.shape, deltas, self._workspace)
        self._add(info, measured, ordered)

    def _add(self, info: TensorInfo, measured: Measure, ordered: Sequence[tuple[Layer, Patch]]) -> None:
        numbers = [self._numbers[id(layer)] for layer, _ in ordered]
        self.meter.add(info.name, measured, numbers, info.name in self._quantized)

    # --- out

    def _write_all(self, info: TensorInfo, out: torch.Tensor, scale: torch.Tensor | None) -> None:
        self._write(info.name, out)
        self._write_beside(info, scale)

    def _write_beside(self, info: TensorInfo, scale: torch.Tensor | None) -> None:
        """Scale and marker of a quantized weight."""
        if self._format is None or scale is None:
            return
        self._write(scale_name(info.name), scale.reshape(self._format.scale_shape(info.shape)))
        if self._marker is not None:
            self._write(marker_name(info.name), self._marker)

    def _write(self, name: str, tensor: torch.Tensor) -> None:
        self._count(TensorInfo(name, tensor.dtype, tuple(tensor.shape)))
        self.outlet.write(name, tensor)

    def _count(self, info: TensorInfo) -> None:
        self.counts["bytes_written"] += info.nbytes

    def check(self) -> None:
        """A bake that changed nothing, or lost a LoRA beyond what rounding explains, is an error."""
        cancelled = any(gain is not None and gain > 0.5 for gain in self.gains())  # +1 and -1: each is there in full
        if self._work and not self._changed and not cancelled:
            why = "The LoRAs are all zeros, or too weak for the dtype of the result."
            raise FoundryError("LF203", "No tensor of the base was changed.", why, "Check the LoRAs and their weights.")
        if self._format is None:  # rounding to bf16 can swallow a weak LoRA; that is reported, not refused
            return
        for layer in self.order.plan.layers:
            if layer.rounding != MATCH_TRAINING:
                self.meter.require(self._numbers[id(layer)], layer.lora.name)

    def gains(self) -> list[float | None]:
        """Gain of each layer of the plan, in order."""
        return [self.meter.gain(self._numbers[id(layer)]) for layer in self.order.plan.layers]


def _entries(order: Order) -> dict[str, list[TensorInfo]]:
    """Base tensor -> the tensors it becomes: itself, and the scale and marker of a quantized weight."""
    base, grouped, name = order.plan.base.source.tensors, dict[str, list[TensorInfo]](), ""
    for entry in outputs(order.plan, order.finish):
        name = entry.name if entry.name in base else name
        grouped.setdefault(name, []).append(entry)
    return grouped


def _rows_of(scale: torch.Tensor | None, rows: slice) -> torch.Tensor | None:
    """The scales of some rows; one for the whole tensor is everybody's."""
    return scale if scale is None or scale.ndim == 0 else scale[rows]


def _same(weight: torch.Tensor, stored: torch.Tensor) -> bool:
    """Whether a result is the base's own tensor again."""
    return weight.dtype == stored.dtype and torch.equal(weight.to(stored.device), stored)
