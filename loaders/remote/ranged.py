"""The bytes of files elsewhere in ranges that lie side by side: read once each, ahead of what is asked for."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ...engine.tensors import TensorInfo
from ..disk.header import Header
from ..disk.reading import LIVES, check_rows
from .workers import Workers, wait

RANGE = 16 << 20  # bytes of one request: servers do more for each than for its bytes
AHEAD, KEPT = 4, 2  # ranges under way beyond the one that is used; used ones that stay, for what is small and near
SMALL = 1 << 20  # rows of less than this that nothing was read around are asked for alone
Pulse = Callable[[], None]


class Span(NamedTuple):
    """Bytes ``begin`` to ``end`` (not included) of one of several files."""

    part: int
    begin: int
    end: int


class Readable(Protocol):
    """A file that sends ranges."""

    @property
    def header(self) -> Header:
        """Where its tensors are."""

    def read(self, begin: int, end: int) -> memoryview:
        """Some of its bytes."""


class Chunks:
    """Ranges of ``parts``, numbered from the first tensor on. One thread at a time may ask.

    ``order`` are the spans that will be asked for; only their ranges are read ahead, and none of them twice. ``few``
    threads fetch ranges, for glibc keeps 16 MB for each thread that had them once, ``many`` small parts.
    """

    def __init__(
        self, parts: Sequence[Readable], order: Iterable[Span], few: Workers, many: Workers, pulse: Pulse
    ) -> None:
        self._parts, self._few, self._many, self._pulse = parts, few, many, pulse
        self._starts = [min((begin for begin, _ in part.header.offsets.values()), default=0) for part in parts]
        self._ends = [part.header.size for part in parts]
        self._order = list(dict.fromkeys(key for span in order for key in self._keys(span)))
        self._turn = {key: number for number, key in enumerate(self._order)}
        self._asked, self._came = set[tuple[int, int]](), set[tuple[int, int]]()
        self._front = -1  # the farthest range in order that was asked for
        self.done = 0  # bytes of the ranges that came
        self._here: OrderedDict[tuple[int, int], Future[memoryview]] = OrderedDict()
        self._samples: dict[Span, Future[memoryview]] = {}

    def expect(self, samples: Iterable[Span]) -> None:
        """Ask for small parts of tensors that will be copied alone, all at once."""
        for span in samples:
            if span not in self._samples and self._is_alone(span):
                self._samples[span] = self._sample(span)

    def copy(self, span: Span, buffer: torch.Tensor, rows: bool = False) -> None:
        """Fill ``buffer`` (uint8, the length of the span), while the next ranges come.

        ``rows``: it is a part of a tensor; a small one of which nothing was read yet comes alone, as a sample does.
        """
        target = buffer.numpy()
        if rows and (span in self._samples or self._is_alone(span)):
            data = self._samples.pop(span, None) or self._sample(span)
            target[:] = np.frombuffer(wait(data, self._pulse), dtype=np.uint8)
            return
        for key in self._keys(span):
            begin, end = self._bounds(key)
            data_of = np.frombuffer(self._chunk(key), dtype=np.uint8)
            first, stop = max(begin, span.begin), min(end, span.end)
            target[first - span.begin : stop - span.begin] = data_of[first - begin : stop - begin]

    def forget(self) -> None:
        """Let go of all that came."""
        self._here.clear()
        self._samples.clear()

    def _is_alone(self, span: Span) -> bool:
        """Whether a part of a tensor is small, and no range of it is here or was."""
        return span.end - span.begin < SMALL and not any(key in self._asked for key in self._keys(span))

    def _sample(self, span: Span) -> Future[memoryview]:
        return self._many.submit(partial(self._parts[span.part].read, span.begin, span.end))

    def _chunk(self, key: tuple[int, int]) -> memoryview:
        turn = self._turn.get(key, len(self._order))
        going_on = turn <= self._front + 1  # a jump ahead may be a sample: nothing is read after it yet
        self._front = max(self._front, turn)
        for each in (key, *(self._order[turn + 1 : turn + 1 + AHEAD] if going_on else ())):
            if each not in self._here and (each == key or each not in self._asked):
                self._ask(each)
        self._here.move_to_end(key)
        data = wait(self._here[key], self._pulse)
        if key not in self._came:
            self._came.add(key)
            self.done += len(data)
            self._pulse()
        used = [each for each, future in self._here.items() if future.done() and self._turn.get(each, 0) <= turn]
        for each in used[: max(0, len(used) - KEPT)]:
            del self._here[each]
        return data

    def _ask(self, key: tuple[int, int]) -> None:
        begin, end = self._bounds(key)
        self._asked.add(key)
        self._here[key] = self._few.submit(partial(self._parts[key[0]].read, begin, end))

    def _keys(self, span: Span) -> Iterator[tuple[int, int]]:
        """(file, number) of every range that a span touches."""
        if span.begin < span.end:
            start = self._starts[span.part]
            numbers = range((span.begin - start) // RANGE, (span.end - 1 - start) // RANGE + 1)
            yield from ((span.part, number) for number in numbers)

    def _bounds(self, key: tuple[int, int]) -> tuple[int, int]:
        begin = self._starts[key[0]] + key[1] * RANGE
        return begin, min(begin + RANGE, self._ends[key[0]])


class Placed(Protocol):
    """A source that says where its tensors lie."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by name."""

    def place(self, name: str) -> Span:
        """Where its bytes are."""

    def home(self, name: str) -> Path:
        """What its file is called."""


class RemoteReader:
    """Reads tensors by name; what ``read`` and ``read_rows`` return is valid until the second next call of either."""

    transient = True

    def __init__(self, source: Placed, chunks: Chunks) -> None:
        self._source, self._chunks = source, chunks
        self._slots = deque(torch.empty(0, dtype=torch.uint8) for _ in range(LIVES))

    def read(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype; not to be modified."""
        info = self._source.tensors[name]
        return self._tensor(self._source.place(name), info.dtype, info.shape)

    def read_rows(self, name: str, first: int, stop: int) -> torch.Tensor:
        """Rows ``first`` to ``stop`` (not included) of a tensor, [stop - first, ...]; a scalar has none."""
        info, span = self._source.tensors[name], self._rows(name, first, stop)
        return self._tensor(span, info.dtype, (stop - first, *info.shape[1:]), rows=span != self._source.place(name))

    def expect(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """Ask for rows (name, first, stop) that will be read, each once, at the same time."""
        spans = ((self._rows(*each), self._source.place(each[0])) for each in rows)
        self._chunks.expect(span for span, whole in spans if span != whole)

    def forget(self) -> None:
        """Give back what came for the next reads, when none will follow."""
        self._chunks.forget()

    def _rows(self, name: str, first: int, stop: int) -> Span:
        info, whole = self._source.tensors[name], self._source.place(name)
        check_rows(self._source.home(name), info, first, stop)
        row = math.prod(info.shape[1:]) * info.dtype.itemsize
        return Span(whole.part, whole.begin + first * row, whole.begin + stop * row)

    def _tensor(self, span: Span, dtype: torch.dtype, shape: tuple[int, ...], rows: bool = False) -> torch.Tensor:
        size = span.end - span.begin
        self._slots.rotate(-1)
        if len(self._slots[0]) < size:
            self._slots[0] = torch.empty(0, dtype=torch.uint8)  # the old one goes before the new one comes
            self._slots[0] = torch.empty(size, dtype=torch.uint8)
        data = self._slots[0][:size]
        if size:
            self._chunks.copy(span, data, rows)
        return data.view(dtype).reshape(shape)
