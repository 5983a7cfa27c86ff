"""Weights to a CUDA device and results back, in pieces through pinned buffers, on streams of their own.

While one weight is computed the next one is on its way up and the last result on its way down. What waits for what is
told to the device; the thread that computes waits for nothing. Needs no CUDA to be imported.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch

from .alike import aligned, view_at
from .pipeline import Loaded
from .tensors import CopySink, FillingReader, Reader, RowSink, TensorSink, TensorSource

CHUNK = 32 << 20  # bytes of a pinned buffer, at most
Cargo = Mapping[str, Sequence[tuple[TensorSource, str]]]  # weight -> the parts of adapters that go to it


class Pinned:
    """Page-locked host buffers used in turn; a buffer is given out again only after its last copy has ended."""

    def __init__(self, size: int, count: int = 3) -> None:
        """Buffers of ``size`` bytes, or of ``CHUNK`` where that is less."""
        self._buffers = deque(_memory(min(size, CHUNK)) for _ in range(count))
        self._done = deque(torch.cuda.Event() for _ in range(count))  # type: ignore[no-untyped-call]

    @property
    def size(self) -> int:
        """Bytes of a buffer."""
        return len(self._buffers[0])

    def take(self, size: int = 0) -> tuple[torch.Tensor, torch.cuda.Event]:
        """(a buffer of at least ``size`` bytes, the event to record when the copy from or to it is queued)."""
        self._buffers.rotate(-1)
        self._done.rotate(-1)
        self._done[0].synchronize()
        if len(self._buffers[0]) < size:
            self._buffers[0] = _memory(size)
        return self._buffers[0], self._done[0]


class _Slot:
    """Device memory for a weight and what goes to it, and when it is full and free."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.memory = _memory(size, device)
        self.full, self.free = (torch.cuda.Event() for _ in range(2))  # type: ignore[no-untyped-call]


class Upload:
    """Brings weights, and the adapters' parts that go to them, to a device; made by the thread that computes.

    It is called by the thread that reads ahead. Device memory is taken once; a slot is filled again when the work with
    what was in it is done on the device, for which the host does not wait.
    """

    def __init__(
        self, device: torch.device, source: TensorSource, cargo: Cargo, slots: int, by_rows: bool = False
    ) -> None:
        """``cargo`` has all weights of ``source`` that will be asked for; ``by_rows``: none is read whole."""
        self._source, self.cargo, self._by_rows = source, cargo, by_rows
        size = max((cargo_bytes(source, name, parts) for name, parts in cargo.items()), default=0)
        self._slots = deque(_Slot(size, device) for _ in range(slots))
        self._pinned = Pinned(size)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._computing = torch.cuda.current_stream(device)
        self._stream.wait_stream(self._computing)

    def __call__(self, reader: Reader, name: str) -> Loaded:
        """A weight and its parts on the device, in memory that is used again after ``done``."""
        return self.together((name,), reader, name)

    def together(self, names: Sequence[str], reader: Reader, name: str) -> Loaded:
        """Weights with parts of the same sizes, one behind the other; ``name`` is the first of them."""
        self._slots.rotate(-1)
        slot, views = self._slots[0], [list[torch.Tensor]() for _ in names]
        shift = cargo_bytes(self._source, name, self.cargo[name])
        self._stream.wait_event(slot.free)
        pieces = (
            self._pieces(reader, each, slot.memory, number * shift, views[number]) for number, each in enumerate(names)
        )
        self._send(slot.memory, chain.from_iterable(pieces))
        slot.full.record(self._stream)
        weights = [
            Loaded(there[0], dict(zip(((id(of), part) for of, part in self.cargo[each]), there[1:], strict=True)))
            for each, there in zip(names, views, strict=True)
        ]
        begin, done = partial(self._computing.wait_event, slot.full), partial(slot.free.record, self._computing)
        return replace(weights[0], begin=begin, done=done, others=weights[1:], shift=shift)

    def close(self) -> None:
        """What is on its way arrives before the memory is anybody else's; only the device waits."""
        self._computing.wait_stream(self._stream)

    def _pieces(
        self, reader: Reader, name: str, memory: torch.Tensor, at: int, views: list[torch.Tensor]
    ) -> Iterator[_Piece]:
        """All that goes to ``memory`` from the place ``at`` on; ``views`` gets the tensors that it makes."""
        info, begin = self._source.tensors[name], at
        if isinstance(reader, FillingReader):
            yield _Piece(at, info.nbytes, partial(reader.fill, name))
            at += info.nbytes
            views.append(view_at(memory, begin, info.dtype, info.shape))
        elif self._by_rows and reader.transient and info.shape:
            for rows in row_pieces(info.shape, info.nbytes, self._pinned.size):
                data = reader.read_rows(name, rows.start, rows.stop)
                yield _piece(at, data)
                at += data.nbytes
            views.append(view_at(memory, begin, info.dtype, info.shape))
        else:
            weight = reader.read(name)
            there = weight.device == memory.device  # of a model that the host has loaded
            views.append(weight if there else view_at(memory, begin, weight.dtype, weight.shape))
            if not there and not reader.transient and weight.is_pinned():
                self._copy(views[-1], weight.detach())
            elif not there:
                yield _piece(at, weight)
            at += 0 if there else weight.nbytes
        for source, part in self.cargo[name]:
            tensor, at = source.read(part), aligned(at)
            views.append(view_at(memory, at, tensor.dtype, tensor.shape))
            yield _piece(at, tensor)
            at += tensor.nbytes

    def _send(self, memory: torch.Tensor, pieces: Iterable[_Piece]) -> None:
        """Copy pieces, in order, up to their places, as many as fit in one go; what lies before the first stays."""
        begin, end = 0, 0
        host, done = self._pinned.take()
        for piece in pieces:
            at, sent = piece.at, 0
            begin = begin if end > begin else at
            while sent < piece.size:
                room = begin + len(host) - at
                if room <= 0:
                    self._copy(memory[begin:end], host, done)
                    (host, done), begin = self._pinned.take(), at
                    room = len(host)
                size = min(room, piece.size - sent)
                piece.fill(sent, host[at - begin : at - begin + size])
                sent += size
                at = end = at + size
        self._copy(memory[begin:end], host, done)

    def _copy(self, there: torch.Tensor, host: torch.Tensor, done: torch.cuda.Event | None = None) -> None:
        with torch.cuda.stream(self._stream):
            there.copy_(host if done is None else host[: len(there)], non_blocking=True)
            if done is not None:
                done.record(self._stream)


class Download:
    """A sink before a sink: brings results from the device to the host, in the thread that writes."""

    on_disk = True  # what it is given lies on the device, and is copied

    def __init__(self, sink: TensorSink, device: torch.device, largest: int) -> None:
        """``largest``: bytes of the largest result."""
        self._sink, self._pinned = sink, Pinned(largest)
        self._rows = sink if isinstance(sink, RowSink) else None
        if isinstance(sink, CopySink):  # Python 3.12 looks for it on the object itself
            self.copy = sink.copy
        if isinstance(sink, RowSink):
            self.write_rows = sink.write_rows
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._computing = torch.cuda.current_stream(device)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Copy down and pass on."""
        self.handed(name, tensor)()

    def handed(self, name: str, tensor: torch.Tensor) -> Callable[[], None]:
        """Note what the copy waits for: the work the device was given until now. The call does it, and passes it on."""
        if not tensor.is_cuda:
            return partial(self._sink.write, name, tensor if self._sink.on_disk else tensor.clone())
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record(self._computing)
        return partial(self._pass_on, name, tensor, ready)

    def _pass_on(self, name: str, tensor: torch.Tensor, ready: torch.cuda.Event) -> None:
        self._stream.wait_event(ready)
        if not self._sink.on_disk:  # it keeps what it gets
            whole = torch.empty(tensor.shape, dtype=tensor.dtype)
            for rows, host in self._down(tensor):
                whole.view(-1, *host.shape[1:])[rows].copy_(host)
            self._sink.write(name, whole)
        elif self._rows is not None and tensor.ndim > 1 and tensor.nbytes > self._pinned.size:
            for rows, host in self._down(tensor):
                self._rows.write_rows(name, rows.start, host)
        else:
            for _, host in self._down(tensor, tensor.nbytes):
                self._sink.write(name, host.view(tensor.shape))

    def _down(self, tensor: torch.Tensor, least: int = 0) -> Iterator[tuple[slice, torch.Tensor]]:
        """(rows, their numbers on the host until the next but one) of a tensor on the device."""
        there = tensor if tensor.ndim else tensor.view(1)
        before = None
        for rows in row_pieces(there.shape, there.nbytes, max(self._pinned.size, least)):
            part = there[rows]
            buffer, done = self._pinned.take(part.nbytes)
            host = view_at(buffer, 0, part.dtype, part.shape)
            with torch.cuda.stream(self._stream):
                host.copy_(part, non_blocking=True)
                done.record(self._stream)
            if before is not None:
                before[2].synchronize()
                yield before[:2]
            before = rows, host, done
        if before is not None:
            before[2].synchronize()
            yield before[:2]


def _memory(size: int, device: torch.device | None = None) -> torch.Tensor:
    """Bytes of a device, or of the host in page-locked memory, or in ordinary memory where that is short.

    They are filled by threads of ours, which are not in the inference mode that nodes are run in.
    """
    with torch.inference_mode(False):
        if device is not None:
            return torch.empty(size, dtype=torch.uint8, device=device)
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError:  # a limit of the system, not of the device
            return torch.empty(size, dtype=torch.uint8)


def row_pieces(shape: Sequence[int], nbytes: int, most: int) -> Iterator[slice]:
    """The rows of a tensor in pieces of at most ``most`` bytes, or of one row."""
    height = shape[0] if shape else 1
    step = max(1, most * height // max(1, nbytes))
    return (slice(first, min(first + step, height)) for first in range(0, max(1, height), step))


def cargo_bytes(source: TensorSource, name: str, parts: Sequence[tuple[TensorSource, str]]) -> int:
    """Bytes that a weight and its parts take together on a device; patches of a MODEL in memory make it fp32."""
    info = source.tensors[name]
    weight = info.nbytes if source.on_disk else math.prod(info.shape) * max(4, info.dtype.itemsize)
    return aligned(weight) + sum(aligned(of.tensors[part].nbytes) for of, part in parts)


class _Piece(NamedTuple):
    """``size`` bytes for the place ``at``; ``fill(first, buffer)`` puts those from ``first`` on into a buffer."""

    at: int
    size: int
    fill: Callable[[int, torch.Tensor], object]


def _piece(at: int, tensor: torch.Tensor) -> _Piece:
    data = tensor.detach().to("cpu").reshape(-1).view(torch.uint8)
    return _Piece(at, len(data), lambda first, buffer: buffer.copy_(data[first : first + len(buffer)]))
