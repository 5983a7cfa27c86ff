"""Reading ahead and writing behind: the disk works while the sums are computed.

At most one large tensor is read ahead and one is being written, so memory stays that of a few tensors. All buffers are
used again: nothing of a weight's size is allocated per tensor.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import NamedTuple, TypeVar

import torch

from .tensors import CopySink, Extent, HandedSink, Reader, RowSink, StreamedSource, TensorSink, TensorSource

Stored = TypeVar("Stored")
Item = TypeVar("Item")
Result = TypeVar("Result")
AT_ONCE = 2  # items that are worked on: each has its memory
WAITING = 4  # finished ones that may wait for their turn, as some take longer than others
IN_FLIGHT = 4  # tensors on their way to the disk; two of them large
PartKey = tuple[int, str]  # id of a source of adapters, name of a tensor in it
Made = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]  # a result, its scale, what ``Unread`` takes


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Loaded:
    """A tensor that was read, where it is worked on; ``parts`` are those of the adapters that go to it and came along.

    ``begin`` is called before it is used and ``done`` when all work with it is under way: on a device both are about
    who waits for whom. ``others`` came along with it, each ``shift`` bytes behind the one before; ``made`` is its
    result, where there is one already.
    """

    tensor: torch.Tensor
    parts: Mapping[PartKey, torch.Tensor] = field(default_factory=dict)
    begin: Callable[[], None] = _nothing
    done: Callable[[], None] = _nothing
    others: Sequence[Loaded] = ()
    shift: int = 0
    made: Made | None = None


def as_read(reader: Reader, name: str) -> Loaded:
    """A tensor where its reader has it."""
    return Loaded(reader.read(name))


class Read(NamedTuple):
    """One tensor that will be asked for, and what brings it to where it is worked on."""

    reader: Reader
    name: str
    place: Callable[[Reader, str], Loaded] = as_read

    def now(self) -> Loaded:
        """The tensor."""
        return self.place(self.reader, self.name)


class Direct:
    """A Reader over a source that keeps its tensors in memory: what it gives stays valid."""

    transient = False

    def __init__(self, source: TensorSource) -> None:
        self.read = source.read

    def read_rows(self, name: str, first: int, stop: int) -> torch.Tensor:
        """Rows ``first`` to ``stop`` of a tensor, as a view."""
        return self.read(name)[first:stop]

    def forget(self) -> None:
        """Nothing is held here."""


@contextmanager
def reader_of(source: TensorSource, mmap: bool | None = None) -> Iterator[Reader]:
    """The source's own reader, for as long as the block lasts, or its plain ``read``."""
    if isinstance(source, StreamedSource):
        with source.reader(mmap) as reader:
            yield reader
    else:
        yield Direct(source)


def read_in_order(
    reads: Iterable[Read], ahead: bool = True, stop: Callable[[], None] = _nothing
) -> Generator[Loaded, None, None]:
    """The tensors, in order; ``ahead``: the next one is read, and brought to its place, while this one is used.

    Closing the iterator ends the reading; ``stop`` is called where that has to wait for a read.
    """
    if not ahead:
        yield from (read.now() for read in reads)
        return
    with ThreadPoolExecutor(1, "lora-foundry-read") as worker, ExitStack() as early:
        early.callback(worker.shutdown, cancel_futures=True)
        early.callback(stop)  # first, for the reads that are under way
        coming: deque[Future[Loaded]] = deque()
        for read in reads:
            coming.append(worker.submit(read.now))
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            loaded = coming.popleft().result()
            read.reader.forget()
            yield loaded
        early.pop_all()


def worked_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], alone: Callable[[Item], bool]
) -> Generator[Result, None, None]:
    """``work(item)`` of every item, in order; two at the same time, those that are ``alone`` by themselves.

    A few that are finished may wait for their turn. What an item raises is raised in its turn. Closing the iterator
    ends the work.
    """
    cores = torch.get_num_threads()
    share = max(1, cores // AT_ONCE)  # more threads than cores wait for each other
    with ThreadPoolExecutor(AT_ONCE, "lora-foundry-work", torch.set_num_threads, (share,)) as workers:
        coming: deque[Future[Result]] = deque()
        try:
            for item in items:
                by_itself = alone(item)
                while len(coming) > (0 if by_itself else AT_ONCE + WAITING - 1):
                    yield coming.popleft().result()
                if by_itself:
                    yield work(item)
                else:
                    coming.append(workers.submit(work, item))
            while coming:
                yield coming.popleft().result()
        finally:
            workers.shutdown(cancel_futures=True)
            torch.set_num_threads(cores)  # of threads to come


class Outlet:
    """Hands results to a sink that keeps them: every buffer is new memory."""

    transient = False

    def __init__(self, sink: TensorSink) -> None:
        self.write: Callable[[str, torch.Tensor], None] = sink.write
        self.copy: Callable[[str, Extent], None] | None = sink.copy if isinstance(sink, CopySink) else None
        self.rows: RowSink | None = sink if isinstance(sink, RowSink) else None

    def buffer(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Memory for one result."""
        return torch.empty(tuple(shape), dtype=dtype, device=device)

    def reserve(self, size: int) -> None:
        """Be ready for results of this many bytes on the CPU."""

    def __enter__(self) -> Outlet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to do."""


class Reused(Outlet):
    """Hands results to a sink that is done with a tensor when ``write`` returns: one buffer for all of them."""

    transient = True
    slots = 1

    def __init__(self, sink: TensorSink) -> None:
        super().__init__(sink)
        self._ring = deque(_Slot() for _ in range(self.slots))

    def reserve(self, size: int) -> None:
        """Be ready for results of this many bytes on the CPU."""
        for slot in self._ring:
            slot.room(size, torch.device("cpu"))

    def buffer(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Memory for one result, that of the longest unused buffer; it grows to the largest tensor asked for."""
        self._ring.rotate(-1)
        return self._ring[0].room(math.prod(shape) * dtype.itemsize, device).view(dtype).view(tuple(shape))


class WriteBehind(Reused):
    """Hands tensors to a slower sink in another thread, in order; leaving the block waits for the last.

    An error of the sink is raised by one of the next writes, or on leaving. The caller must not change a tensor it has
    handed over; ``buffer`` gives its memory out again when all that was written since it was taken is on the disk.
    """

    slots = 2

    def __init__(self, sink: TensorSink) -> None:
        super().__init__(sink)
        self._writer = ThreadPoolExecutor(1, "lora-foundry-write")
        self._waiting: deque[Future[None]] = deque()
        self.write = self._later(self.write)
        self.copy = self._later(self.copy) if self.copy is not None else None
        if isinstance(sink, HandedSink):
            self._hand = sink.handed
            self.write = self._handed
        if self.rows is not None:
            self.rows = _InTurn(self.rows, self._writer)

    def buffer(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """As that of ``Reused``; waits until what was in the buffer is written."""
        for future in self._ring[1].busy:
            future.result()
        self._ring[1].busy.clear()
        return super().buffer(shape, dtype, device)

    def _later(self, store: Callable[[str, Stored], None]) -> Callable[[str, Stored], None]:
        """A call of the sink that is queued; it waits while too many are on their way."""

        return lambda name, what: self._queue(partial(store, name, what))

    def _handed(self, name: str, tensor: torch.Tensor) -> None:
        self._queue(self._hand(name, tensor))

    def _queue(self, work: Callable[[], None]) -> None:
        while len(self._waiting) >= IN_FLIGHT:
            self._waiting.popleft().result()
        future = self._writer.submit(work)
        self._waiting.append(future)
        self._ring[0].busy.append(future)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(wait=True, cancel_futures=error is not None)
        while error is None and self._waiting:
            self._waiting.popleft().result()


class _InTurn:
    """A sink of rows that are written by the thread that writes, while the caller waits: they are in reused memory."""

    on_disk = True

    def __init__(self, sink: RowSink, writer: ThreadPoolExecutor) -> None:
        self._sink, self._writer = sink, writer

    def write(self, name: str, tensor: torch.Tensor) -> None:
        self._writer.submit(self._sink.write, name, tensor).result()

    def write_rows(self, name: str, first: int, rows: torch.Tensor) -> None:
        self._writer.submit(self._sink.write_rows, name, first, rows).result()


class _Slot:
    """A buffer on each device that asked for one, and what is still being written from it."""

    def __init__(self) -> None:
        self._buffers: dict[torch.device, torch.Tensor] = {}
        self.busy: list[Future[None]] = []

    def room(self, size: int, device: torch.device) -> torch.Tensor:
        """This many bytes; the buffer grows, and the old one goes before the new one comes."""
        if device not in self._buffers or self._buffers[device].numel() < size:
            self._buffers.pop(device, None)
            self._buffers[device] = torch.empty(size, dtype=torch.uint8, device=device)
        return self._buffers[device][:size]
