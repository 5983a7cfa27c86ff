"""A base model elsewhere as a source of tensors: its header now, its weights by ranges while a bake asks for them.

Ranges lie side by side, each is read once, some ahead of what is asked for; the whole file is never here. A file that
is replaced meanwhile is a FoundryError at the next range, never other weights.
"""

from __future__ import annotations

import threading
import uuid
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...engine.errors import FoundryError
from ...engine.tensors import TensorInfo
from ...engine.texts.say import refuse
from ..disk.header import Header, file_error, parse_header, shown
from ..disk.shards import shard_names
from ..disk.source import EDGE
from ..disk.store import key_of
from .names import Remote
from .objects import Asking, Facts, RemoteObject, server_of
from .opening import object_of
from .ranged import AHEAD, RANGE, Chunks, RemoteReader, Span
from .workers import wait, workers

AT_ONCE, NEAR = 32, 1 << 16  # small requests under way; bytes between two of them that are read along
HEAD = 1 << 17  # bytes of a file that are asked for first: most headers are shorter
SMALL = 1 << 16  # bytes of a tensor that comes together with all as small


class Part(NamedTuple):
    """One file of a model: where it is, in which state, and what its header says."""

    object: RemoteObject
    facts: Facts
    header: Header

    def read(self, begin: int, end: int) -> memoryview:
        """Bytes of that state."""
        return self.object.read(begin, end, self.facts)


def shards_of(remote: Remote) -> list[Remote]:
    """Every shard of the numbered set an address is one of, or the file alone."""
    folder, slash, name = remote.key.rpartition("/")
    return [replace(remote, key=f"{folder}{slash}{each}") for each in shard_names(name)]


class RemoteSource:
    """The tensors of one file elsewhere, or of several shards, under their names in the files and in file order."""

    on_disk = True
    files: tuple[Path, ...] = ()

    def __init__(self, remotes: Sequence[Remote], asking: Asking, label: str = "") -> None:
        self.label, self._asking = label or remotes[0].file, asking
        self._stopped = threading.Event()
        with workers(min(AT_ONCE, len(remotes))) as threads:
            coming = [threads.submit(partial(_open, remote, asking)) for remote in remotes]
            self.parts = tuple(wait(each, self._pulse) for each in coming)
        self._homes: dict[str, int] = {}
        for number, part in enumerate(self.parts):
            if twice := part.header.tensors.keys() & self._homes.keys():
                other = self.parts[self._homes[min(twice)]].header.path.name
                raise file_error(part.header.path, "file.in_two", tensor=shown(min(twice)), other=shown(other))
            self._homes.update(dict.fromkeys(part.header.tensors, number))
        self.tensors: Mapping[str, TensorInfo] = {
            name: self.parts[number].header.tensors[name] for name, number in self._homes.items()
        }
        states = [(server_of(p.object.remote), p.object.remote.url, _state(p.facts), p.facts.size) for p in self.parts]
        self.identity: str | None = key_of("remote", states)
        self._wanted = tuple(self.tensors)
        self._edges, self._small = dict[str, bytearray](), dict[str, bytearray]()

    @property
    def metadata(self) -> Mapping[str, str]:
        """``__metadata__`` of all files; where they disagree the first one counts."""
        return {key: text for part in reversed(self.parts) for key, text in part.header.metadata.items()}

    @property
    def addresses(self) -> list[str]:
        """Where its files are."""
        return [part.object.remote.url for part in self.parts]

    @property
    def nbytes(self) -> int:
        """The size of all of them."""
        return sum(part.facts.size for part in self.parts)

    def want(self, names: Iterable[str]) -> None:
        """Which tensors will be asked for, in that order: nothing else is read ahead."""
        self._wanted = tuple(names)

    def home(self, name: str) -> Path:
        """What the file is called that a tensor is in."""
        return self.parts[self._homes[name]].header.path

    def place(self, name: str) -> Span:
        """Where the bytes of a tensor lie."""
        number = self._homes[name]
        return Span(number, *self.parts[number].header.offsets[name])

    def read(self, name: str) -> torch.Tensor:
        """One tensor, contiguous, in its stored dtype and in memory of its own."""
        info, span = self.tensors[name], self.place(name)
        found = torch.empty(span.end - span.begin, dtype=torch.uint8)  # an empty one of numpy's has no other dtype
        if len(found) > SMALL:
            self._fill(found, span)
        else:
            if name not in self._small:  # scales come by the hundred, and lie side by side
                small = [each for each in self._wanted if self.tensors[each].nbytes <= SMALL]
                self._small = self._read_together({each: [self.place(each)] for each in (name, *small)})
            found.numpy()[:] = np.frombuffer(self._small[name], dtype=np.uint8)
        return found.view(info.dtype).reshape(info.shape)

    @contextmanager
    def reader(self, mmap: bool | None = None) -> Iterator[RemoteReader]:
        """A reader of these tensors for one ``with`` block, as ``FileSource.reader``; nothing can be mapped."""
        self._stopped.clear()
        with self._chunks() as chunks:
            yield RemoteReader(self, chunks)

    def stop(self) -> None:
        """Let a read that waits for the server end now, with an error."""
        self._stopped.set()

    def edges(self, name: str) -> bytes:
        """The first and the last 4 KiB of a tensor's bytes; those of all wanted tensors are asked for at once."""
        if name not in self._edges:
            names = dict.fromkeys((name, *self._wanted))
            self._edges = self._read_together({each: list(_edge_spans(self.place(each))) for each in names})
        return bytes(self._edges[name])

    def _fill(self, found: torch.Tensor, span: Span) -> None:
        """A large tensor in ranges, some at once: one request of gigabytes would outlast what one may take."""
        target, read, coming = found.numpy(), self.parts[span.part].read, deque[tuple[int, Future[memoryview]]]()
        with workers(AHEAD) as threads:
            for begin in (*range(span.begin, span.end, RANGE), *[span.end] * AHEAD):
                if begin < span.end:
                    coming.append((begin, threads.submit(partial(read, begin, min(begin + RANGE, span.end)))))
                if coming and (len(coming) == AHEAD or begin == span.end):
                    at, future = coming.popleft()
                    data = np.frombuffer(wait(future, self._pulse), dtype=np.uint8)
                    target[at - span.begin : at - span.begin + len(data)] = data

    @contextmanager
    def _chunks(self) -> Iterator[Chunks]:
        order = [self.place(name) for name in self._wanted]
        total = sum(span.end - span.begin for span in order)

        def pulse() -> None:
            self._pulse(min(chunks.done, total), total)

        with workers(AHEAD + 1) as few, workers(AT_ONCE) as many:
            chunks = Chunks(self.parts, order, few, many, pulse)
            yield chunks

    def _read_together(self, spans: Mapping[str, Sequence[Span]]) -> dict[str, bytearray]:
        """The bytes of some spans for each name; what is near each other comes in one request."""
        spans = {name: [span for span in each if span.begin < span.end] for name, each in spans.items()}
        runs = _together(sorted(span for each in spans.values() for span in each))
        with workers(AT_ONCE) as threads:
            coming = [threads.submit(partial(self.parts[run.part].read, run.begin, run.end)) for run in runs]
            found = [(run, wait(future, self._pulse)) for run, future in zip(runs, coming, strict=True)]
        starts = [(run.part, run.begin) for run, _ in found]
        return {name: bytearray().join(_cut(found, starts, span) for span in each) for name, each in spans.items()}

    def _pulse(self, done: int = 0, total: int = 0) -> None:
        if self._stopped.is_set():
            raise refuse("remote.stopped", name=self.label)
        if self._asking.on_bytes is not None:
            self._asking.on_bytes(self.label, done, total)


def _open(remote: Remote, asking: Asking) -> Part:
    """A file with its header; FoundryError ``remote`` for what is no safetensors file."""
    found = object_of(remote, asking)
    facts = found.facts()
    start = found.read(0, min(HEAD, facts.size), facts) if facts.size else memoryview(b"")
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        begin, at = at, min(at + count, facts.size)
        more = found.read(max(begin, len(start)), at, facts) if at > max(begin, len(start)) else b""
        return bytes(start[begin:at]) + bytes(more)

    return Part(found, facts, _headed(remote, read, facts.size))


def _headed(remote: Remote, read: Callable[[int], bytes], size: int) -> Header:
    try:
        return parse_header(Path(remote.file), read, size)
    except FoundryError as error:
        if error.code != "file":
            raise
        raise refuse("remote.no_model", name=remote.url, seen=error.what.partition(" ")[2].rstrip(".")) from error


def _state(facts: Facts) -> str:
    """What tells a file from another one of its size; without an etag nobody knows, and it is another each time."""
    return facts.etag or uuid.uuid4().hex


def _edge_spans(whole: Span) -> Iterator[Span]:
    part, begin, end = whole
    yield Span(part, begin, min(end, begin + EDGE))
    yield Span(part, max(begin + EDGE, end - EDGE), end)  # none, where the first has all of it


def _together(spans: Iterable[Span]) -> list[Span]:
    """Sorted spans as runs that are read at once."""
    runs: list[Span] = []
    for span in spans:
        if runs and runs[-1].part == span.part and span.begin - runs[-1].end <= NEAR:
            runs[-1] = runs[-1]._replace(end=max(runs[-1].end, span.end))
        else:
            runs.append(span)
    return runs


def _cut(found: Sequence[tuple[Span, memoryview]], starts: Sequence[tuple[int, int]], span: Span) -> bytes:
    """A span out of the run that holds it."""
    run, data = found[bisect_right(starts, (span.part, span.begin)) - 1]
    return bytes(data[span.begin - run.begin : span.end - run.begin])
