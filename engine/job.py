"""One result of a bake, made tensor by tensor: passed through, cast, quantized, or copied from an earlier result."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from .blueprint import Blueprint, Fate
from .dense import as_rows
from .devices import CPU, arithmetic_of
from .feedback import Guides
from .finish import layer_marker, require_arithmetic
from .formats import finite_amax, require_finite
from .fuse import any_needs_weight, fused_cast, joining, make_terms, start_and_terms
from .gain import GainMeter, Measure, measure_of, sampled_rows, whole_of
from .gemm import Workspace
from .memory import AUTO
from .on_device import make_result
from .outputs import judge
from .pipeline import Loaded, Made, Outlet, Read
from .plan import MATCH_TRAINING
from .repair import quantized
from .reuse import Previous
from .room import Room, ran_out
from .rows import RowBlocks, SampledRows, cast_blocks, is_same, row_ranges, rows_of
from .sums import FusedSum, read_sum
from .tensors import Nowhere, PlacedReader, Reader, TensorInfo, TensorSink
from .terms import AnyTerm, canonical_key, is_as_trained, with_parts
from .texts.say import refuse
from .unread import Unread


@dataclass(frozen=True)
class BakeRequest:
    """One result that is wanted, and where to; tensors whose keys are those of ``previous`` are copied from there."""

    blueprint: Blueprint
    sink: TensorSink
    previous: Previous | None = None


def is_reused(request: BakeRequest, name: str, arithmetic: str) -> bool:
    """Whether the result of a base tensor is copied from an earlier one; none is of two arithmetics."""
    previous, fate = request.previous, request.blueprint.fates[name]
    if previous is None or previous.keys.get(name) != fate.key:
        return False
    if fate.is_measured and previous.arithmetic != arithmetic:
        return False
    return all(previous.source.tensors.get(entry.name) == entry for entry in fate.entries)


class Job:
    """What every tensor of one result needs, and the sums that are checked at the end.

    ``keep_sum``: the fp32 sum of a weight is held while it is quantized; else it is computed twice, block by block.
    ``arithmetic`` is what that is, in words; ``room`` how much of a GPU may be used, where there is one.
    ``workspace``: what jobs that take turns work in, weight by weight; nothing of it is handed on.
    """

    def __init__(
        self,
        request: BakeRequest,
        outlet: Outlet,
        previous: Reader | None,
        device: torch.device,
        keep_sum: bool,
        arithmetic: str,
        room: Room | None = None,
        workspace: Workspace | None = None,
    ) -> None:
        self.request, self.outlet, self.device, self.keep_sum = request, outlet, device, keep_sum
        self._arithmetic, self._room, self._unread = arithmetic, room, Unread()
        self.left_to_cpu = 0
        self.fates, self._layers = request.blueprint.fates, request.blueprint.plan.layers
        self._previous = previous
        self._placed = previous if isinstance(previous, PlacedReader) and outlet.copy is not None else None
        self._numbers = {id(layer): number for number, layer in enumerate(self._layers)}
        finish = request.blueprint.finish
        self._marker, self._guides = layer_marker(finish), Guides(finish.calibration, finish.guided)
        self._workspace = Workspace() if workspace is None else workspace
        self._reserve()
        self._changed, self._swallowed, self._driven = False, False, dict[str, float]()
        self.meter = GainMeter()
        self.counts = dict.fromkeys(("tensors", "touched", "quantized", "reused", "bytes_read", "bytes_written"), 0)

    def _reserve(self) -> None:
        """Buffers for the largest weight at once: untouched they cost nothing, grown they leave holes behind."""
        if self.device.type != "cpu":
            return
        touched = [fate.info for fate in self.fates.values() if fate.patches or fate.format is not None]
        largest = max((math.prod(info.shape) for info in touched), default=0)
        self._workspace.take((largest,), self.device)
        self.outlet.reserve(max((entry.nbytes for entry in self.request.blueprint.entries), default=0))

    def reuses(self, name: str) -> bool:
        """Whether the result of a base tensor is copied from an earlier one."""
        return is_reused(self.request, name, self._arithmetic)

    def copies(self, name: str) -> Iterator[Read]:
        """What ``copy`` will take from the stream for a base tensor: nothing where files copy from each other."""
        if self._previous is not None and self._placed is None and self.reuses(name):
            yield from (Read(self._previous, entry.name) for entry in self.fates[name].entries)

    def make(self, fate: Fate, loaded: Loaded, transient: bool) -> None:
        """Make the result of a whole weight; ``transient``: others will use its memory again."""
        self._begin(fate)
        if not fate.is_measured:
            weight = loaded.tensor.to(CPU)
            self._write(fate.info.name, self._own(self._cast(fate, weight), weight.dtype, transient))
        elif loaded.made is not None:
            self._put(fate, *loaded.made)
        elif self._room is None:
            self._make_here(fate, loaded.tensor.to(CPU))
        elif loaded.tensor.is_cuda:
            self._make_there(fate, loaded, self._room)
        else:
            self._leave_to_cpu(fate, loaded.tensor)

    def _make_there(self, fate: Fate, loaded: Loaded, room: Room) -> None:
        """On the GPU the weight is on; where its memory does not do for little at once, on the CPU."""
        while True:
            try:
                made = self._try_there(fate, loaded, room.most)
            except RuntimeError as error:
                if not ran_out(error):
                    raise
                self._workspace = Workspace()
            else:
                break
            torch.cuda.empty_cache()  # out of the except block, which holds what was worked with
            if not room.halve(fate):
                self._leave_to_cpu(fate, loaded.tensor.to(CPU))
                return
        self._put(fate, *made)

    def _put(self, fate: Fate, out: torch.Tensor, scale: torch.Tensor | None, told: torch.Tensor) -> None:
        self._unread.add(fate, told)
        self._write(fate.info.name, out)
        self._write_beside(fate, scale)

    def _try_there(self, fate: Fate, loaded: Loaded, most: int) -> Made:
        pairs, device = with_parts(fate.patches, loaded.parts), loaded.tensor.device
        terms = make_terms(loaded.tensor, pairs, device)
        out = self.outlet.buffer(fate.result.shape, fate.result.dtype, device)
        found = make_result(fate, loaded.tensor, pairs, terms, out, most, self._workspace)
        scale, told, self._driven[fate.info.name] = found
        return out, scale, told

    def _leave_to_cpu(self, fate: Fate, weight: torch.Tensor) -> None:
        """The GPU has no room for this weight; a reproducible result cannot be of two arithmetics."""
        self.left_to_cpu += 1
        require_arithmetic(self.request.blueprint.finish, self.arithmetic)
        self._make_here(fate, weight)

    @property
    def arithmetic(self) -> str:
        """How sums were taken until now, in words."""
        if not self.left_to_cpu:
            return self._arithmetic
        return f"{self._arithmetic}, {self.left_to_cpu} weights in {arithmetic_of(CPU, AUTO)}"

    def _make_here(self, fate: Fate, weight: torch.Tensor) -> None:
        """On the CPU."""
        fate = self._guides.with_format(fate)
        info, pairs, format, scale = fate.info, fate.patches, fate.format, None
        terms = make_terms(weight, pairs, CPU)
        out = self.outlet.buffer(fate.result.shape, fate.result.dtype, CPU)
        if format is None:
            fused_cast(weight, pairs, terms, out, self._workspace)
            require_finite(out, info.name)
        else:
            start, _ = start_and_terms(weight, pairs, terms, CPU)

            def sum_of(wanted: Sequence[AnyTerm]) -> tuple[RowBlocks, torch.Tensor | None]:
                merged = joining(pairs, wanted)
                if not self.keep_sum:
                    return read_sum(info.shape, lambda rows: start[rows], merged, self._workspace), None
                fused = FusedSum(start, merged, self._workspace, 1 if format.row_scaled else 2)
                return fused.blocks, None if format.row_scaled else fused.amax()

            scale, self._driven[info.name] = quantized(
                fate, format, terms, sum_of, lambda rows: start[rows], self._workspace, out, guide=self._guides.on(fate)
            )
        if pairs and not self._changed:
            self._changed = not is_same(weight, out)
            self._swallowed |= not (self._changed or all(term.is_zero for term in terms))
        every = slice(None, None, sampled_rows(info.shape).step)
        base, stored = as_rows(weight)[every], as_rows(out)[every]
        stored = self._read_back(fate, stored, rows_of(scale, every))
        self._measure(fate, base, stored, terms)
        self._write(info.name, out)
        self._write_beside(fate, scale)

    def make_by_rows(self, fate: Fate, base: Reader) -> None:
        """Make the result of a weight that is never whole in memory, where that can be done."""
        fate = self._guides.with_format(fate)
        info, pairs, format, scale = fate.info, fate.patches, fate.format, None
        whole = any_needs_weight(pairs) or any(is_as_trained(layer) for layer, _ in pairs)  # looked at or rounded whole
        to = self.outlet.rows
        if whole or len(info.shape) < 2 or not info.nbytes or to is None:
            self.make(fate, Loaded(base.read(info.name)), base.transient)
            return
        self._begin(fate)
        sampled = sampled_rows(info.shape)
        sink = SampledRows(to, fate.result, sampled)
        terms = make_terms(None, pairs, CPU)

        def read(rows: slice) -> torch.Tensor:
            return base.read_rows(info.name, rows.start, rows.stop)

        def sum_of(wanted: Sequence[AnyTerm]) -> tuple[RowBlocks, None]:
            return read_sum(info.shape, read, joining(pairs, wanted), self._workspace), None

        if format is not None:
            scale, self._driven[info.name] = quantized(
                fate, format, terms, sum_of, read, self._workspace, put=sink.put, guide=self._guides.on(fate)
            )
        elif pairs:
            cast_blocks(sum_of(terms)[0], fate.dtype, info.name, sink.put)
        else:
            for rows in row_ranges(info.shape):
                sink.put(rows, self._cast(fate, read(rows)))
        self._count(fate.result)
        self._changed = self._changed or bool(pairs)
        if fate.is_measured:
            before = torch.cat([base.read_rows(info.name, row, row + 1).clone() for row in sampled])
            every = slice(None, None, sampled.step)
            self._measure(fate, before, self._read_back(fate, sink.stored(), rows_of(scale, every)), terms)
        self._write_beside(fate, scale)

    def copy(self, fate: Fate, tensors: Iterator[Loaded]) -> None:
        """Write what became of a base tensor in the earlier result; ``tensors`` gives it, as ``copies`` asked."""
        self.take_over(fate)
        transient = self._previous is None or self._previous.transient
        for entry in fate.entries:
            self.counts["bytes_read"] += entry.nbytes
            if self._placed is None or self.outlet.copy is None:
                self._write(entry.name, self._own(next(tensors).tensor, entry.dtype, transient))
            else:
                self._count(entry)
                self.outlet.copy(entry.name, self._placed.extent(entry.name))

    def take_over(self, fate: Fate) -> None:
        """Count a base tensor whose result is there already, by the measures of the earlier bake."""
        self._begin(fate)
        self.counts["bytes_read"] -= fate.info.nbytes
        self.counts["reused"] += 1
        self._changed = self._changed or bool(fate.patches)
        previous = self.request.previous
        if previous is not None and fate.info.name in previous.measures:
            self._add(fate, Measure.from_json(previous.measures[fate.info.name]))

    def _begin(self, fate: Fate) -> None:
        self.counts["tensors"] += 1
        self.counts["bytes_read"] += fate.info.nbytes
        self.counts["touched"] += bool(fate.patches)
        self.counts["quantized"] += fate.format is not None

    def _cast(self, fate: Fate, weight: torch.Tensor) -> torch.Tensor:
        """A tensor nothing touches, in its dtype; a cast that turns its numbers into Inf is refused."""
        cast = weight.to(fate.dtype)
        if cast.dtype != weight.dtype and torch.isfinite(weight).all():
            finite_amax(cast, fate.info.name)
        return cast

    def _own(self, tensor: torch.Tensor, dtype: torch.dtype, transient: bool) -> torch.Tensor:
        """The tensor in memory that stays as it is until it is written."""
        if tensor.dtype != dtype or not transient:
            return tensor
        return self.outlet.buffer(tensor.shape, tensor.dtype, tensor.device).copy_(tensor)

    def _read_back(self, fate: Fate, stored: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
        """Stored rows as a loader reads them."""
        flat = as_rows(stored)
        if fate.format is None or scale is None:
            return flat
        shape = (len(flat), math.prod(fate.info.shape[1:]))
        return fate.format.decode(flat, scale, self._workspace.take(shape, flat.device, slot="stored"))

    def _measure(self, fate: Fate, base: torch.Tensor, stored: torch.Tensor, terms: Sequence[AnyTerm]) -> None:
        term_of = {id(pair): term for pair, term in zip(fate.patches, terms, strict=True)}
        deltas = [term_of[id(pair)] for pair in sorted(fate.patches, key=canonical_key)]
        shape, guide = fate.info.shape, self._guides.on(fate)
        held = None if guide is None else guide.held
        self._add(fate, judge(as_rows(base), stored, sampled_rows(shape), shape, deltas, self._workspace, held))

    def _add(self, fate: Fate, measured: Measure) -> None:
        """Count a measure, whose shares are in canonical order."""
        numbers = [self._numbers[id(layer)] for layer, _ in sorted(fate.patches, key=canonical_key)]
        driven = self._driven.get(fate.info.name, measured.driven)
        self.meter.add(fate.info.name, replace(measured, driven=driven), numbers, fate.format is not None)

    def _write_beside(self, fate: Fate, scale: torch.Tensor | None) -> None:
        """Scales and marker of a quantized weight."""
        if fate.format is None or scale is None:
            return
        beside = (*fate.format.stored_scales(scale), *(() if self._marker is None else (self._marker,)))
        for entry, tensor in zip(fate.entries[1 : 1 + len(beside)], beside, strict=True):
            self._write(entry.name, tensor)
        if fate.input_scale is not None:
            self._write(fate.entries[-1].name, torch.tensor(fate.input_scale))

    def _write(self, name: str, tensor: torch.Tensor) -> None:
        self._count(TensorInfo(name, tensor.dtype, tuple(tensor.shape)))
        self.outlet.write(name, tensor)

    def _count(self, info: TensorInfo) -> None:
        self.counts["bytes_written"] += info.nbytes

    def check(self) -> None:
        """FoundryError LF203 where LoRAs that are no zeros changed nothing, or one lost more than rounding takes."""
        there = any(gain is not None and gain > 0.5 for gain in self.gains())  # +1 and -1: each is there in full
        lost = (self._swallowed and not there) or not self.counts["touched"]
        if lost and not self._changed and self.request.blueprint.plan.by_weight():
            raise refuse("LF203.unchanged")
        if self.request.blueprint.finish.quantization is None:  # bf16 can swallow a weak LoRA: reported, not refused
            return
        for layer in self._layers:
            if layer.rounding != MATCH_TRAINING:
                self.meter.require(self._numbers[id(layer)], layer.lora.name)

    def settle(self, base: Reader) -> None:
        """Look at what the GPU found out, once: faults are FoundryErrors now, measures are counted."""
        found = list(self._unread.read())
        for each in found:
            fate = each.fate
            if not each.finite:
                self._again(fate, base)  # says how many
                raise refuse("LF304.result", weight=fate.info.name, bad="some", all=math.prod(fate.info.shape))
            self._changed = self._changed or (bool(fate.patches) and (fate.format is not None or each.moved))
            self._add(fate, measure_of(each.sums, whole_of(fate.info.shape, sampled_rows(fate.info.shape))))
        if not self._changed:  # the samples did not
            self._changed = any(each.fate.patches and self._again(each.fate, base) for each in found)

    def _again(self, fate: Fate, base: Reader) -> bool:
        """Whether LoRAs change a weight, looked at whole on the CPU, which also says what is wrong with it."""
        job = Job(replace(self.request, previous=None), Outlet(Nowhere()), None, CPU, True, "")
        job.make(fate, Loaded(base.read(fate.info.name)), base.transient)
        self._swallowed |= job._swallowed
        return job._changed

    def gains(self) -> list[float | None]:
        """Gain of each layer of the plan, in order."""
        return [self.meter.gain(self._numbers[id(layer)]) for layer in self._layers]
