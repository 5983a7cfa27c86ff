"""The bake: read each weight once, add all deltas in fp32, finish it (keep, cast or quantize), hand it to a sink.

Several results on one base share the reading. What an earlier result already holds is copied from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import torch

from .blueprint import blueprint
from .devices import CPU, arithmetic_of, resolved
from .finish import Finish, require_arithmetic
from .gain import Measure
from .job import BakeRequest, Job
from .json_bake import NumbersJSON
from .memory import AUTO, LOWEST, choose_memory, peak_rss_bytes
from .pipeline import Outlet, Read, Reused, WriteBehind, read_in_order, reader_of
from .plan import Plan
from .progress import Progress
from .streams import Upload, download
from .tensors import Reader, TensorInfo, TensorSink

WORST = 5


@dataclass
class BakeReport:
    """What a bake did and how good it is; errors are rms of rounding error over rms of the exact weights.

    ``gains`` has one entry per layer of the plan (None: that layer touched nothing); ``layers`` is the relative error
    of every weight that was changed or quantized, worst first; ``measures`` is what it all was worked out from.
    ``arithmetic`` says how and where the sums were taken.
    """

    tensors: int = 0
    touched: int = 0
    quantized: int = 0
    reused: int = 0
    gains: list[float | None] = field(default_factory=list)
    bytes_read: int = 0
    bytes_written: int = 0
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    arithmetic: str = ""
    relative_error: float | None = None
    layers: dict[str, float] = field(default_factory=dict)
    measures: dict[str, Measure] = field(default_factory=dict)

    def to_json(self) -> NumbersJSON:
        """Counts, errors, bytes, seconds and peak RSS as plain numbers (gains go with their LoRAs)."""
        return {
            "tensors": self.tensors,
            "touched": self.touched,
            "quantized": self.quantized,
            "reused": self.reused,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "seconds": self.seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "arithmetic": self.arithmetic,
            "relative_error": self.relative_error,
            "sqnr_db": self.sqnr_db,
            "worst_layers": self.worst_layers,
            "layers": {name: {"relative_error": e, "sqnr_db": decibel(e)} for name, e in self.layers.items()},
        }

    def measures_json(self) -> dict[str, dict[str, Any]]:
        """Base tensor -> its numbers as plain data, for a later bake that takes it over."""
        return {name: measured.to_json() for name, measured in self.measures.items()}

    @property
    def sqnr_db(self) -> float | None:
        """Signal to rounding noise of all changed and quantized weights, in dB."""
        return decibel(self.relative_error)

    @property
    def worst_layers(self) -> dict[str, float]:
        """The weights with the largest relative error, worst first."""
        return dict(list(self.layers.items())[:WORST])


def decibel(error: float | None) -> float | None:
    """Signal to noise of a relative error, in dB; None for no error at all."""
    return -20 * math.log10(error) if error else None


def bake(
    plan: Plan,
    finish: Finish,
    sink: TensorSink,
    on_step: Progress | None = None,
    device: torch.device | None = None,
    memory: str = AUTO,
) -> BakeReport:
    """Compute every tensor of a result and give it to ``sink``, in order; see ``blueprint`` and ``bake_all``."""
    memory = choose_memory(memory, plan.base.source.tensors.values())
    return bake_all([BakeRequest(blueprint(plan, finish), sink)], on_step, device, memory)[0]


def bake_all(
    requests: Sequence[BakeRequest],
    on_step: Progress | None = None,
    device: torch.device | None = None,
    memory: str = AUTO,
    mmap: bool | None = None,
) -> list[BakeReport]:
    """Bake several results on one and the same base, reading it once; one report each.

    ``on_step(done, total)`` is called before each tensor; it may raise to cancel. ``device`` is where the maths runs.
    ``memory`` bounds what is held: ``auto`` a few tensors, ``low`` one tensor, ``lowest`` one block of rows (whether
    ``auto`` fits: ``choose_memory``). ``mmap``: None maps files where that is safe, False never.
    Raises FoundryError for NaN or Inf in a result (LF304), an effect that got lost (LF203).
    """
    source, device = requests[0].blueprint.plan.base.source, resolved(device)
    infos = list(source.tensors.values())
    arithmetic = arithmetic_of(device, memory)
    for request in requests:
        require_arithmetic(request.blueprint.finish, arithmetic)
    started = time.perf_counter()
    with ExitStack() as opened:
        base = opened.enter_context(reader_of(source, mmap))
        jobs = [_open(request, opened, device, memory, mmap, arithmetic) for request in requests]
        reads = _reads(infos, jobs, base, whole=memory != LOWEST)
        cuda = device.type == "cuda"
        ahead = memory == AUTO and (cuda or source.on_disk)
        place = Upload(device) if cuda else None
        stream = opened.enter_context(closing(read_in_order(reads, ahead, place)))
        for done, info in enumerate(infos):
            if on_step is not None:
                on_step(done, len(infos))
            _one(info, jobs, base, stream, memory)
    if on_step is not None:
        on_step(len(infos), len(infos))
    return [_report_of(job, time.perf_counter() - started) for job in jobs]


def recall(request: BakeRequest) -> BakeReport:
    """The report of a result that is there already: all of it is taken over from ``request.previous``, nothing read."""
    arithmetic = request.previous.arithmetic if request.previous is not None else ""
    job = Job(request, Outlet(request.sink), None, CPU, True, arithmetic)
    for fate in request.blueprint.fates.values():
        job.take_over(fate)
    return _report_of(job, 0.0)


def _open(
    request: BakeRequest, opened: ExitStack, device: torch.device, memory: str, mmap: bool | None, arithmetic: str
) -> Job:
    """A job with its outlet, and with the reader of the earlier result it may copy from."""
    sink: TensorSink = download(request.sink, device) if device.type == "cuda" else request.sink
    outlet: type[Outlet] = Outlet
    if sink.on_disk:
        outlet = WriteBehind if memory == AUTO else Reused
    previous = None
    if request.previous is not None:
        previous = opened.enter_context(reader_of(request.previous.source, mmap))
    return Job(request, opened.enter_context(outlet(sink)), previous, device, memory == AUTO, arithmetic)


def _reads(infos: Sequence[TensorInfo], jobs: Sequence[Job], base: Reader, whole: bool) -> Iterator[Read]:
    """What is read, in the order ``_one`` asks for it: a weight once, then its copies from earlier results."""
    for info in infos:
        if whole and not all(job.reuses(info.name) for job in jobs):
            yield base, info.name
        for job in jobs:
            yield from job.copies(info.name)


def _one(info: TensorInfo, jobs: Sequence[Job], base: Reader, stream: Iterator[torch.Tensor], memory: str) -> None:
    fresh = [job for job in jobs if not job.reuses(info.name)]
    if memory == LOWEST:
        for job in fresh:
            job.make_by_rows(job.fates[info.name], base)
    elif fresh:
        weight = next(stream)
        for job in fresh:
            job.make(job.fates[info.name], weight, transient=base.transient)
    for job in jobs:
        if job.reuses(info.name):
            job.copy(job.fates[info.name], stream)


def _report_of(job: Job, seconds: float) -> BakeReport:
    """The checks at the end, and the report."""
    job.check()
    meter = job.meter
    return BakeReport(
        **job.counts,
        gains=job.gains(),
        seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(),
        arithmetic=job.arithmetic,
        relative_error=meter.relative_error(),
        layers=meter.errors(),
        measures=meter.weights,
    )
