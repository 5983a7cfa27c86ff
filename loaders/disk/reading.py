"""Reading weights for as long as a bake runs: files mapped once, or read into a ring of reused buffers.

Mapping costs the least CPU time; where it is wrong (``drives.py``) or fails, plain reads do the same.
"""

from __future__ import annotations

import ctypes
import errno
import io
import math
import mmap
import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from ...engine.errors import FoundryError
from ...engine.tensors import Extent, FillingReader, Reader, TensorInfo, expect_rows
from .drives import may_map
from .filling import Filler
from .header import Header, disk_errors, file_error, shown

LIVES = 2  # a tensor is valid until this many reads later
FETCH = 1 << 23  # bytes that are in this process twice at most while the next tensor is fetched
AROUND = 1 << 16  # bytes that Linux maps around one that is looked at, when they are in memory already
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
# Advice to madvise, the same number on Linux and macOS (Windows names none); the last one is Linux 5.14's: bring the
# pages in now, and report a fault as an error instead of a signal.
_WILL_NEED, _DONT_NEED, _POPULATE_READ = 3, 4, 22


@contextmanager
def open_reader(homes: Mapping[str, Header], mapped: bool | None = None) -> Iterator[FileReader]:
    """A reader over the files of these headers (tensor name -> header), for the length of a ``with`` block.

    ``mapped``: None maps files where that is safe, False never, True always. Leaving the block without an error checks
    once more that no file changed. One thread at a time may read.
    """
    with ExitStack() as opened:
        reader = FileReader(homes, mapped, opened)
        yield reader
        reader.check()


class FileReader:
    """Reads tensors by name; what ``read`` and ``read_rows`` return is valid until the second next call of either.

    A file that was changed, replaced or cut is a FoundryError at the next read, or on leaving. What remains: a mapped
    file that is cut *in place* while its pages are being used ends the process (SIGBUS), as with every reader that
    maps; programs that save models write a new file instead.
    """

    transient = True

    def __init__(self, homes: Mapping[str, Header], mapped: bool | None, opened: ExitStack) -> None:
        self._homes, self._mapped, self._opened = homes, mapped, opened
        self._files: dict[Path, _File] = {}
        self._copied: dict[Path, _Plain] = {}
        self._slots = deque(_Slot() for _ in range(LIVES))
        self._filler = Filler(opened)
        opened.callback(self._let_go)

    def read(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype; not to be modified."""
        header = self._homes[name]
        return self._tensor(header, *header.offsets[name], header.tensors[name].dtype, header.tensors[name].shape)

    def read_rows(self, name: str, first: int, stop: int) -> torch.Tensor:
        """Rows ``first`` to ``stop`` (not included) of a tensor, [stop - first, ...]; a scalar has none."""
        header = self._homes[name]
        info, begin = header.tensors[name], header.offsets[name][0]
        check_rows(header.path, info, first, stop)
        row = math.prod(info.shape[1:]) * info.dtype.itemsize
        shape = (stop - first, *info.shape[1:])
        return self._tensor(header, begin + first * row, begin + stop * row, info.dtype, shape)

    def extent(self, name: str) -> Extent:
        """Where a tensor's bytes lie, in a file that is open for copying and unchanged until now."""
        header = self._homes[name]
        return Extent(self._plain(header).file, *header.offsets[name])

    def fill(self, name: str, at: int, buffer: torch.Tensor) -> None:
        """Copy a tensor's bytes from ``at`` on into all of ``buffer`` (uint8), by several threads."""
        header = self._homes[name]
        file, begin = self._plain(header), header.offsets[name][0]
        self._filler.fill(header, file.file.fileno(), begin + at, buffer)
        file.check()

    def _plain(self, header: Header) -> _Plain:
        """A file that is open for copying and unchanged until now."""
        if header.path not in self._copied:
            self._copied[header.path] = _Plain(header)
            self._opened.callback(self._copied[header.path].close)
        self._copied[header.path].check()
        return self._copied[header.path]

    def forget(self) -> None:
        """Give back all but the last tensor, when no next read will do it."""
        for slot in list(self._slots)[:-1]:
            slot.release()

    def check(self) -> None:
        """FoundryError when a file that was read is no longer the one that was planned."""
        for file in (*self._files.values(), *self._copied.values()):
            file.check()

    def _tensor(self, header: Header, begin: int, end: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        slot = self._slots[0]
        self._slots.rotate(-1)
        slot.release()
        data = self._file(header).take(begin, end, slot)
        if data.storage_offset() % dtype.itemsize:  # rare: a writer that did not align
            data = data.clone()
        return data.view(dtype).reshape(shape)

    def _file(self, header: Header) -> _File:
        if header.path not in self._files:
            wanted = may_map(header.path) if self._mapped is None else self._mapped
            file = _Mapped.open(header, must=bool(self._mapped)) if wanted else None
            self._files[header.path] = file or _Plain(header)
            self._opened.callback(self._files[header.path].close)
        return self._files[header.path]

    def _let_go(self) -> None:
        """Give back pages and buffers; a tensor that somebody still holds keeps what it needs."""
        self._slots.clear()
        self._files.clear()


class Renamed:
    """A reader under other names: ``names`` maps those asked for to those of ``reader``."""

    def __init__(self, reader: Reader, names: Mapping[str, str]) -> None:
        self._reader, self._names = reader, names
        self.transient = reader.transient
        if isinstance(reader, FillingReader):
            self.fill = lambda name, at, buffer: reader.fill(names[name], at, buffer)

    def read(self, name: str) -> torch.Tensor:
        """One tensor, as the reader below gives it."""
        return self._reader.read(self._names[name])

    def read_rows(self, name: str, first: int, stop: int) -> torch.Tensor:
        """Some rows of one tensor, as the reader below gives them."""
        return self._reader.read_rows(self._names[name], first, stop)

    def expect(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """Told on to the reader below."""
        expect_rows(self._reader, ((self._names[name], first, stop) for name, first, stop in rows))

    def forget(self) -> None:
        """As the reader below."""
        self._reader.forget()


def check_unchanged(path: Path, now: tuple[int, ...], before: tuple[int, ...]) -> None:
    """FoundryError when a file's state (size, time, ...) is not what it was."""
    if now != before:
        raise file_error(path, "file.changed")


def read_into(file: io.FileIO, header: Header, begin: int, buffer: torch.Tensor) -> None:
    """Fill ``buffer`` (uint8) from an open file at ``begin``: the one place where weights are copied off the disk."""
    rest = buffer.numpy().data
    file.seek(begin)
    while count := file.readinto(rest):  # one call gives at most 2 GiB
        rest = rest[count:]
    state = os.fstat(file.fileno())
    check_unchanged(header.path, (state.st_size, state.st_mtime_ns, len(rest)), (header.size, header.mtime_ns, 0))


class _Slot:
    """What one of the last reads holds: a reused buffer, or pages of a mapped file."""

    def __init__(self) -> None:
        self._buffer, self.pages = torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.uint8)

    def room(self, size: int) -> torch.Tensor:
        """A buffer of this many bytes; it grows, and is used again."""
        if len(self._buffer) < size:
            self._buffer = torch.empty(0, dtype=torch.uint8)  # the old one goes before the new one comes
            self._buffer = torch.empty(size, dtype=torch.uint8)
        return self._buffer[:size]

    def release(self) -> None:
        """Take the pages out of this process, with those that came along; they come back if somebody looks."""
        _advise(_with_neighbours(self.pages), _DONT_NEED)
        self.pages = self.pages[:0]


class _File(ABC):
    """An open file that must stay what its header was read from."""

    def __init__(self, header: Header) -> None:
        self.header = header
        with disk_errors(header.path):
            self.file = io.FileIO(header.path)

    def check(self) -> None:
        """Both the open file and the one of its name are as they were planned."""
        header = self.header
        with disk_errors(header.path):
            states = os.fstat(self.file.fileno()), header.path.stat()
        for state in states:
            check_unchanged(header.path, (state.st_size, state.st_mtime_ns), (header.size, header.mtime_ns))

    @abstractmethod
    def take(self, begin: int, end: int, slot: _Slot) -> torch.Tensor:
        """Bytes ``begin`` to ``end`` as uint8, in memory that ``slot`` looks after."""

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class _Plain(_File):
    """A file read into buffers."""

    def take(self, begin: int, end: int, slot: _Slot) -> torch.Tensor:
        buffer = slot.room(end - begin)
        with disk_errors(self.header.path):
            read_into(self.file, self.header, begin, buffer)
        self.check()
        return buffer


class _Mapped(_File):
    """A file mapped whole, private to this process: nobody's write reaches the disk."""

    data: torch.Tensor

    @classmethod
    def open(cls, header: Header, must: bool) -> _Mapped | None:
        """The mapped file; None where the system refuses to map it, unless it ``must``."""
        file = cls(header)
        try:
            file.check()
            file.data = torch.frombuffer(_map(file.file, header.size), dtype=torch.uint8)
        except OSError as error:
            file.close()
            if must:
                raise file_error(header.path, "file.not_mapped", reason=error.strerror or error) from error
            return None
        except FoundryError:
            file.close()
            raise
        return file

    def take(self, begin: int, end: int, slot: _Slot) -> torch.Tensor:
        self.check()
        slot.pages = self.data[begin:end]
        self._fetch(slot.pages)
        return slot.pages

    def _fetch(self, pages: torch.Tensor) -> None:
        """Bring pages into the system's memory now, so that the disk is waited for here and not where they are used.

        They leave this process again at once: it would hold a tensor that is not worked on yet.
        """
        _advise(pages, _WILL_NEED)
        for first in range(0, len(pages), FETCH):
            part = pages[first : first + FETCH]
            failed = _advise(part, _POPULATE_READ)
            if failed == errno.EINVAL:  # another system, or an older Linux: look at one byte of every page
                part[:: mmap.PAGESIZE].any()
            elif failed:
                self.check()
                raise file_error(self.header.path, "file.not_read", reason=os.strerror(failed))
            _advise(part, _DONT_NEED)


def _map(file: io.FileIO, size: int) -> mmap.mmap:
    """A private writable map: torch warns about read-only memory, and without reserve it costs no memory of its own."""
    if os.name == "nt":
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    flags, access = mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
    return mmap.mmap(file.fileno(), size, flags=flags, prot=access)


def _advise(pages: torch.Tensor, advice: int) -> int:
    """The system's ``madvise`` on all pages that bytes of this tensor lie in, without the GIL; returns its errno."""
    if not len(pages) or _madvise is None:
        return errno.EINVAL
    begin = pages.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    size = pages.data_ptr() + len(pages) - begin
    return ctypes.get_errno() if _madvise(begin, size, advice) else 0


def _with_neighbours(pages: torch.Tensor) -> torch.Tensor:
    """The same bytes of a map and those around them that Linux maps along with a byte that is looked at."""
    whole = pages.untyped_storage()
    if not len(pages):
        return pages
    begin = pages.data_ptr() - whole.data_ptr()
    first, stop = max(0, begin - AROUND), min(whole.nbytes(), begin + len(pages) + AROUND)
    return pages.as_strided((stop - first,), (1,), first)


def _find_madvise() -> Callable[[int, int, int], int] | None:
    """The C library's function: Python's own keeps the GIL while the disk works."""
    if os.name == "nt":
        return None
    found = ctypes.CDLL(None, use_errno=True).madvise
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return found


_madvise = _find_madvise()


def check_rows(path: Path, info: TensorInfo, first: int, stop: int) -> None:
    """FoundryError ``file`` for rows that a tensor does not have."""
    if not info.shape or not 0 <= first <= stop <= info.shape[0]:
        values = {"first": first, "stop": stop, "tensor": shown(info.name), "shape": list(info.shape)}
        raise file_error(path, "file.no_rows", **values)
