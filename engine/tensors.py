"""What the engine needs to know about tensors that live somewhere else (a file, shards, a loaded model)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)


@dataclass(frozen=True)
class TensorInfo:
    """Name, dtype and shape of one tensor; no data."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes when stored contiguously."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorSource(Protocol):
    """Tensors that can be listed for free and read one at a time.

    ``read`` returns a tensor in its stored dtype that the caller must not modify (it may be a view of a mapped file).
    Sources on a disk also are ``StreamedSource``: a bake reads through their ``reader()``. ``InMemory`` and ``Over``
    have what most sources say of where they are.
    """

    label: str

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it is in; none for tensors in memory."""

    @property
    def identity(self) -> str | None:
        """What stands for the contents of a model in memory, which no file vouches for."""

    @property
    def on_disk(self) -> bool:
        """Whether reading waits for a disk, so that it pays to read ahead."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by name, in file order."""

    def read(self, name: str) -> torch.Tensor:
        """One tensor, contiguous, in its stored dtype."""


class InMemory:
    """What a source, or a sink, says that has no files."""

    files: tuple[Path, ...] = ()
    identity: str | None = None
    on_disk = False


class StateDict(InMemory):
    """A sink that keeps what a bake gives it, on one device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._device = device

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Keep one tensor."""
        self.tensors[name] = tensor.to(self._device)


class Nowhere:
    """A sink that forgets what it gets: for a bake that only measures."""

    on_disk = True

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Nothing."""


class Over:
    """What a source says that shows the tensors of another one, ``source``, in its own way."""

    source: TensorSource

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it is in."""
        return self.source.files

    @property
    def identity(self) -> str | None:
        """What stands for the contents of a model in memory."""
        return self.source.identity

    @property
    def on_disk(self) -> bool:
        """Whether reading waits for a disk."""
        return self.source.on_disk


class Reader(Protocol):
    """Reads for as long as a bake runs; what it returns is not to be modified.

    ``transient``: a tensor is valid only until the second next call of ``read`` or ``read_rows``.
    """

    transient: bool

    def read(self, name: str) -> torch.Tensor:
        """One tensor, contiguous, in its stored dtype."""

    def read_rows(self, name: str, first: int, stop: int) -> torch.Tensor:
        """Rows ``first`` to ``stop`` (not included) of one tensor: [stop - first, ...]; a scalar has no rows."""

    def forget(self) -> None:
        """Give back all but the tensor read last, because no read will follow."""


@runtime_checkable
class FillingReader(Protocol):
    """A reader that can put a stored tensor's bytes where they are wanted."""

    def fill(self, name: str, at: int, buffer: torch.Tensor) -> None:
        """Copy its bytes from ``at`` on into all of ``buffer`` (uint8)."""


@runtime_checkable
class ExpectingReader(Protocol):
    """A reader of what has to come from far away: it asks for many things at a time."""

    def expect(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """Rows (name, first, stop) that ``read_rows`` will be asked for, each once: they may come all at once."""


def expect_rows(reader: Reader, rows: Iterable[tuple[str, int, int]]) -> None:
    """Tell a reader that can make use of it what it will be asked for."""
    if isinstance(reader, ExpectingReader):
        reader.expect(rows)


@runtime_checkable
class StreamedSource(Protocol):
    """A source that can be read without new memory for every tensor, by one thread at a time."""

    def reader(self, mmap: bool | None = None) -> AbstractContextManager[Reader]:
        """A reader for one ``with`` block. ``mmap``: None maps files where that is safe, False never, True always."""


@runtime_checkable
class SampledSource(Protocol):
    """A source that can tell the edges of a tensor without reading all of it."""

    def edges(self, name: str) -> bytes:
        """The first and the last 4 KiB, or all of a smaller tensor."""


@runtime_checkable
class StoppableSource(Protocol):
    """A source whose reads may wait for long, as for a server."""

    def stop(self) -> None:
        """Let the read that waits end now, with an error."""


def stop_reading(source: TensorSource) -> None:
    """Let no read of a source be waited for, whatever it is shown through."""
    while isinstance(source, Over):
        source = source.source
    if isinstance(source, StoppableSource):
        source.stop()


@dataclass(frozen=True)
class Extent:
    """The bytes ``begin`` to ``end`` (not included) of an open file."""

    file: FileIO
    begin: int
    end: int


@runtime_checkable
class PlacedReader(Protocol):
    """A reader that can say where the bytes of a stored tensor lie."""

    def extent(self, name: str) -> Extent:
        """Its bytes in a file that is open, and nobody else's, for as long as the reader is."""


class TensorSink(Protocol):
    """Where a bake puts its result; entries arrive in the order they were announced.

    ``on_disk``: it is done with a tensor when ``write`` returns, as a file is; else it keeps what it gets.
    """

    @property
    def on_disk(self) -> bool:
        """Whether it keeps no tensor."""

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Store one finished tensor."""


@runtime_checkable
class RowSink(TensorSink, Protocol):
    """A sink (a file) that takes a tensor also in pieces."""

    def write_rows(self, name: str, first: int, rows: torch.Tensor) -> None:
        """Store rows [n, ...] of a tensor from row ``first`` on; every row must come once, in any order."""


@runtime_checkable
class HandedSink(TensorSink, Protocol):
    """A sink whose work has a part that the thread must do that made the tensor."""

    def handed(self, name: str, tensor: torch.Tensor) -> Callable[[], None]:
        """Take one finished tensor; the call that is returned stores it, in whichever thread."""


@runtime_checkable
class CopySink(TensorSink, Protocol):
    """A sink (a file) that takes a tensor also out of another file, without its passing through this program."""

    def copy(self, name: str, extent: Extent) -> None:
        """Store a tensor whose bytes are there already."""
