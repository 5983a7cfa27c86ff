"""The bake: read each weight once, add all deltas in fp32, finish it (keep, cast or quantize), hand it to a sink.

Several results on one base share the reading. What an earlier result already holds is copied from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from .blueprint import blueprint
from .devices import CPU, arithmetic_of, resolved
from .finish import Finish, require_arithmetic
from .gain import Measure
from .gemm import Workspace
from .grouping import Groups, Together, grouped
from .job import BakeRequest, Job, is_reused
from .json_bake import NumbersJSON
from .memory import AUTO, LOWEST, choose_memory, peak_rss_bytes
from .needs import needed_bytes, require_memory
from .pipeline import Loaded, Outlet, Read, Reused, WriteBehind, read_in_order, reader_of
from .plan import Plan
from .progress import Progress
from .room import Room, cargo_of, choose_device, free_bytes, is_for_cpu, need_of, room_in, worked_on
from .streams import Download, Upload
from .tensors import Nowhere, Reader, TensorInfo, TensorSink, TensorSource, stop_reading

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
            "by_outputs": self.by_outputs,
            "driven": self.driven,
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
    def by_outputs(self) -> int:
        """How many weights were judged by their outputs."""
        return sum(measured.by_outputs for measured in self.measures.values())

    @property
    def driven(self) -> dict[str, float]:
        """Weights in which LoRAs were driven to arrive whole, and of the factors of each the one farthest from 1."""
        return {name: measured.driven for name, measured in self.measures.items() if measured.driven != 1.0}

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
    wanted = blueprint(plan, finish)
    memory = choose_memory(memory, plan.base.source.tensors.values())
    return bake_all([BakeRequest(wanted, sink)], on_step, choose_device([wanted], device), memory)[0]


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
    Raises FoundryError ``memory`` where it would hold more than is free, before anything is read; for NaN or Inf in a
    result (LF304); for an effect that got lost (LF203).
    """
    require_memory(needed_bytes(requests, memory))
    source, device = requests[0].blueprint.plan.base.source, resolved(device)
    infos = list(source.tensors.values())
    started = time.perf_counter()
    with ExitStack() as opened:
        base = opened.enter_context(reader_of(source, mmap))
        upload, room = _open_device(requests, device, memory, opened)
        arithmetic = arithmetic_of(device if upload is not None else CPU, memory)
        shared = Workspace() if room is None else None  # they take turns; on a GPU each lets go of its own
        jobs = [_open(request, opened, device, memory, mmap, arithmetic, room, shared) for request in requests]
        together = Together(_groups(source, base, jobs, upload, memory, device))
        reads = _reads(infos, jobs, base, upload, memory, together)
        ahead = memory == AUTO and (upload is not None or source.on_disk)
        stream = opened.enter_context(closing(read_in_order(reads, ahead, partial(stop_reading, source))))
        for done, info in enumerate(infos):
            if on_step is not None:
                on_step(done, len(infos))
            _one(info, jobs, base, stream, _is_whole(info, jobs, upload, memory), together)
        for job in jobs:
            job.settle(base)
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


def _open_device(
    requests: Sequence[BakeRequest], device: torch.device, memory: str, opened: ExitStack
) -> tuple[Upload | None, Room | None]:
    """(what brings weights to a GPU, how much of it may be used); (None, None) on the CPU, or where nothing fits."""
    if device.type != "cuda" or is_for_cpu([each.blueprint for each in requests]):
        return None, None
    opened.enter_context(torch.cuda.device(device))
    source, arithmetic = requests[0].blueprint.plan.base.source, arithmetic_of(device, memory)
    work = [
        [fate for fate in worked_on(each.blueprint) if not is_reused(each, fate.info.name, arithmetic)]
        for each in requests
    ]
    room = room_in(need_of(source, work), free_bytes(device))
    while room is not None and room.slots:
        try:
            upload = Upload(device, source, cargo_of(work), room.slots, by_rows=memory == LOWEST)
        except torch.OutOfMemoryError:
            room.slots -= 1
        else:
            opened.callback(upload.close)
            return upload, room
    return None, None


def _open(
    request: BakeRequest,
    opened: ExitStack,
    device: torch.device,
    memory: str,
    mmap: bool | None,
    arithmetic: str,
    room: Room | None,
    workspace: Workspace | None,
) -> Job:
    """A job with its outlet, and with the reader of the earlier result it may copy from."""
    require_arithmetic(request.blueprint.finish, arithmetic)
    sink: TensorSink = request.sink
    outlet: type[Outlet] = Outlet
    if room is None:
        device = CPU
    if isinstance(sink, Nowhere):
        outlet = Reused  # nothing is brought down
    elif room is not None:
        largest = max((fate.result.nbytes for fate in worked_on(request.blueprint)), default=0)
        sink, outlet = Download(sink, device, largest), WriteBehind
    elif sink.on_disk:
        outlet = WriteBehind if memory == AUTO else Reused
    previous = None
    if request.previous is not None:
        previous = opened.enter_context(reader_of(request.previous.source, mmap))
    held = opened.enter_context(outlet(sink))
    return Job(request, held, previous, device, memory == AUTO, arithmetic, room, workspace)


def _groups(
    source: TensorSource, base: Reader, jobs: Sequence[Job], upload: Upload | None, memory: str, device: torch.device
) -> Groups:
    """What one launch works on together: where one result alone is made of each weight."""
    if upload is None or memory != AUTO or len(jobs) > 1:
        return {}
    fates = (jobs[0].fates[name] for name in source.tensors)
    return grouped(source, base, fates, upload.cargo, device)


def _is_whole(info: TensorInfo, jobs: Sequence[Job], upload: Upload | None, memory: str) -> bool:
    """Whether a tensor comes in the stream; else it is read row by row when it is its turn."""
    return memory != LOWEST or (upload is not None and _is_worked_on(info, jobs))


def _is_worked_on(info: TensorInfo, jobs: Sequence[Job]) -> bool:
    return any(job.fates[info.name].is_measured and not job.reuses(info.name) for job in jobs)


def _reads(
    infos: Sequence[TensorInfo], jobs: Sequence[Job], base: Reader, upload: Upload | None, memory: str,
    together: Together,
) -> Iterator[Read]:  # fmt: skip
    """What is read, in the order ``_one`` asks for it: a weight once, then its copies from earlier results.

    Only what something is done to goes to a device.
    """
    for info in infos:
        if _is_whole(info, jobs, upload, memory) and not all(job.reuses(info.name) for job in jobs):
            names = together.names(info.name)
            if upload is not None and names and _is_worked_on(info, jobs):
                yield Read(base, info.name, partial(upload.together, names))
            elif names:
                yield Read(base, info.name)
        for job in jobs:
            yield from job.copies(info.name)


def _one(
    info: TensorInfo, jobs: Sequence[Job], base: Reader, stream: Iterator[Loaded], whole: bool, together: Together
) -> None:
    fresh = [job for job in jobs if not job.reuses(info.name)]
    if fresh and whole:
        loaded = together.next(info.name, stream)
        loaded.begin()
        for job in fresh:
            job.make(job.fates[info.name], loaded, transient=base.transient)
        loaded.done()
    else:
        for job in fresh:
            job.make_by_rows(job.fates[info.name], base)
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
