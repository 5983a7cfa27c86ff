"""The streamed safetensors writer: tensor by tensor into a hidden file beside the target, then in the target's place.

Whatever happens, the target is either the complete old file or the complete new one.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import torch

from ...engine.errors import FoundryError
from ...engine.tensors import Extent, TensorInfo
from .header import disk_errors, file_error, shown
from .layout import layout
from .ranges import copy_range
from .suffixes import SUFFIXES
from .targets import name_fault, path_fault
from .temps import claimed, hidden, hidden_name, sweep, sync_file, sync_folder

LOCKED_WHILE_OPEN = os.name == "nt"  # whether a file that a program holds open cannot be replaced
LARGE = 1 << 20  # bytes that are sent to the disk as soon as they are written
_WRITE = 2  # Linux's SYNC_FILE_RANGE_WRITE: begin to write, wait for nothing


@contextmanager
def write_safetensors(
    path: Path, entries: Sequence[TensorInfo], metadata: Mapping[str, str], room: int = 0, hashed: bool = False
) -> Iterator[FileSink]:
    """Write a file as a ``with`` block: the sink takes every announced tensor once, and leaving the block publishes it.

    ``room``: bytes the header may grow by, for metadata known only when all tensors are written (``restate``).
    ``hashed``: ``sha256`` will be asked for; tensors then lie in the order of ``entries`` where that can be.
    An exception in the block, a missing tensor or a full disk leaves no new file and the old one untouched. The mode
    follows the umask. Raises FoundryError ``file``.
    """
    draft = Draft(path, entries, metadata, room, hashed)
    check_target(path, draft.size)
    with draft.open() as sink:
        yield sink
        sink.finish()
        with writing(path, draft.size):
            draft.temp.replace(path)
            sync_folder(path.parent)


class Draft:
    """A file to be: what will be in it is settled, and ``size`` is that of the whole file in bytes."""

    def __init__(
        self,
        path: Path,
        entries: Sequence[TensorInfo],
        metadata: Mapping[str, str],
        room: int = 0,
        hashed: bool = False,
    ) -> None:
        self.path, self.temp, self._hashed = path, hidden(path.parent), hashed
        self._layout = partial(layout, entries, as_listed=hashed)
        self._header, offsets = self._layout(metadata, room)
        self._places = {info.name: (info, offsets[info.name]) for info in entries}
        self.size = len(self._header) + sum(info.nbytes for info in entries)

    @contextmanager
    def open(self) -> Iterator[FileSink]:
        """The sink of the hidden file ``temp``; what is still under that name when the block ends is removed."""
        with claimed(self.path.parent), self._opened() as sink:
            yield sink

    @contextmanager
    def _opened(self) -> Iterator[FileSink]:
        try:
            with writing(self.path, self.size):
                file = self.temp.open("x+b", buffering=0)
            try:
                with writing(self.path, self.size):
                    reserve(file.fileno(), self.size)
                sink = FileSink(file, self.path, self.size, self._places, self._restated)
                sink.put(self._header, 0)
                if self._hashed:
                    sink.hash_from(len(self._header))
                yield sink
            finally:
                with suppress(OSError):  # what is to stay was closed before; of the rest nobody needs to know
                    file.close()
        finally:
            with suppress(OSError):
                self.temp.unlink(missing_ok=True)

    def _restated(self, metadata: Mapping[str, str]) -> bytes:
        """The file's beginning with other metadata, as long as it was."""
        start = self._layout(metadata)[0]
        room = len(self._header) - len(start)
        if room < 0:
            raise file_error(self.path, "file.room", bytes=-room)
        return (len(self._header) - 8).to_bytes(8, "little") + start[8:] + b" " * room


class FileSink:
    """Takes tensors, or rows of them, in any order and puts each where the layout says."""

    on_disk = True

    def __init__(
        self,
        file: io.FileIO,
        path: Path,
        size: int,
        places: Mapping[str, tuple[TensorInfo, int]],
        header: Callable[[Mapping[str, str]], bytes],
    ) -> None:
        self._file, self._path, self._size, self._missing = file, path, size, dict(places)
        self._header = header
        self._digest, self._hashed = hashlib.sha256(), -1  # of what lies before that byte; -1: of nothing
        self._rows: dict[str, list[tuple[int, int]]] = {}  # of tensors that came in part: what is there
        self._turn = threading.Lock()

    def hash_from(self, begin: int) -> None:
        """Hash what comes in the order of the file, from its byte ``begin`` on, while it is at hand."""
        self._digest, self._hashed = hashlib.sha256(), begin

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Store one tensor, from any device and with any strides; it must be as announced, and come once."""
        info, offset = self._announced(name, tensor)
        if name in self._rows:
            raise file_error(self._path, "file.given_after_rows", tensor=shown(name))
        if tuple(tensor.shape) != info.shape:
            raise self._odd(tensor, info)
        self.put(_bytes_of(tensor), offset)
        del self._missing[name]

    def write_rows(self, name: str, first: int, rows: torch.Tensor) -> None:
        """Store rows [n, ...] of a tensor from row ``first`` on; all rows must come, in any order and each once."""
        info, offset = self._announced(name, rows)
        if not info.shape:
            raise file_error(self._path, "file.given_number", tensor=shown(name))
        if rows.ndim == 0 or tuple(rows.shape[1:]) != info.shape[1:]:
            raise self._odd(rows, info)
        stop, there = first + len(rows), self._rows.setdefault(name, [])
        known = any(first < end and begin < stop for begin, end in there)
        if known or first < 0 or stop > info.shape[0]:
            key = "file.given_again" if known else "file.given_beyond"
            raise file_error(self._path, key, first=first, stop=stop, tensor=shown(name), rows=info.shape[0])
        self.put(_bytes_of(rows), offset + first * math.prod(info.shape[1:]) * info.dtype.itemsize)
        if there and there[-1][1] == first:
            first = there.pop()[0]
        if first < stop:
            there.append((first, stop))
        if sum(end - begin for begin, end in there) == info.shape[0]:
            del self._missing[name], self._rows[name]

    def copy(self, name: str, extent: Extent) -> None:
        """Store one tensor whose bytes are in another file, without reading them into this process."""
        info, offset = self._place(name)
        size = extent.end - extent.begin
        if name in self._rows or size != info.nbytes:
            raise file_error(self._path, "file.given_bytes", given=size, tensor=shown(name), bytes=info.nbytes)
        with writing(self._path, self._size), _own(extent.file) as source, _own(self._file) as target:
            done = max(copy_range(source, extent.begin, extent.end, target, offset), default=0)
            if size >= LARGE:
                send(target, offset, size)
                if self._replaces(source):
                    forget(source, extent.begin, size)
        if done != size:
            raise file_error(self._path, "file.ends_early", tensor=shown(name))
        del self._missing[name]

    def _replaces(self, handle: int) -> bool:
        """Whether an open file is the one whose place this one takes."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(handle), self._path.stat())
        return False

    def _announced(self, name: str, tensor: torch.Tensor) -> tuple[TensorInfo, int]:
        info, offset = self._place(name)
        if tensor.dtype != info.dtype:
            raise self._odd(tensor, info)
        return info, offset

    def _place(self, name: str) -> tuple[TensorInfo, int]:
        if name not in self._missing:
            raise file_error(self._path, "file.given_twice", tensor=shown(name))
        return self._missing[name]

    def _odd(self, tensor: torch.Tensor, info: TensorInfo) -> FoundryError:
        given, announced = f"{tensor.dtype} {tuple(tensor.shape)}", f"{info.dtype} {info.shape}"
        return file_error(self._path, "file.given_other", tensor=shown(info.name), given=given, announced=announced)

    def put(self, data: bytes | memoryview, offset: int) -> None:
        """Write bytes at a place in the file."""
        rest = memoryview(data)
        with writing(self._path, self._size), self._turn:  # a place and what is written there belong together
            self._file.seek(offset)
            while rest:
                rest = rest[self._file.write(rest) :]  # one call takes at most 2 GiB
            begin, end = offset // LARGE * LARGE, (offset + len(data)) // LARGE * LARGE
            if begin < end:  # in order, all of that has come
                send(self._file.fileno(), begin, end - begin)
            if offset == self._hashed:
                self._digest.update(data)
                self._hashed += len(data)

    def restate(self, metadata: Mapping[str, str]) -> None:
        """Other metadata in the place of that the file was begun with; FoundryError ``file`` where it has no room."""
        self.put(self._header(metadata), 0)

    def sha256(self) -> str:
        """The hash (hex) of what stands behind the header: of all tensors, once they were written."""
        if self._hashed < 0:
            self.hash_from(len(self._header({})))
        with writing(self._path, self._size):
            self._file.seek(self._hashed)
            while piece := self._file.read(LARGE):
                self._digest.update(piece)
                self._hashed += len(piece)
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Check that nothing is missing, bring every byte to the disk and close the file."""
        if self._missing:
            name = next(iter(self._missing))
            rows = sum(end - begin for begin, end in self._rows.get(name, ()))
            part = f" ({rows} of its {self._missing[name][0].shape[0]} rows came)" if rows else ""
            raise file_error(self._path, "file.lacks", count=len(self._missing), tensor=shown(name), part=part)
        with writing(self._path, self._size), self._file:  # Windows moves only closed files
            sync_file(self._file.fileno())


@contextmanager
def _own(file: io.FileIO) -> Iterator[int]:
    """A handle that stays that file's: closed by another thread, its number could become an unrelated file's."""
    handle = os.dup(file.fileno())
    try:
        yield handle
    finally:
        os.close(handle)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data


@contextmanager
def writing(path: Path, size: int) -> Iterator[None]:
    """What the operating system refuses, as one sentence that says what was needed."""
    try:
        yield
    except OSError as error:
        values = {"size": _megabytes(size), "folder": shown(str(path.parent))}
        raise file_error(path, "file.writing", reason=error.strerror or error, **values) from error


def check_target(path: Path, size: int = 0) -> None:
    """Refuse before the first byte what cannot succeed; sweep up after writers that were killed."""
    if path.suffix.lower() not in SUFFIXES:
        raise file_error(path, "file.target_suffix", suffix=SUFFIXES[0])
    if fault := name_fault(path.name):
        raise file_error(path, "file.target_name", fault=fault)
    if fault := path_fault(path.with_name(max(path.name, hidden_name(), key=len))):
        raise file_error(path, "file.target_path", fault=fault)
    if path.is_dir():
        raise file_error(path, "file.target_folder")
    if path.exists() and not path.is_file():
        raise file_error(path, "file.target_device")
    if path.is_symlink():
        raise file_error(path, "file.target_link", target=shown(str(path.readlink())))
    if LOCKED_WHILE_OPEN and path.exists():
        with writing(path, size):  # found now, not after an hour: nobody may hold it open
            os.close(os.open(path, os.O_RDWR))
    if not path.parent.is_dir():
        raise file_error(path, "file.target_nowhere", folder=shown(str(path.parent)))
    sweep(path.parent)
    with disk_errors(path):
        free = shutil.disk_usage(path.parent).free
    if free < size:
        values = {"size": _megabytes(size), "free": _megabytes(free), "folder": shown(str(path.parent))}
        raise file_error(path, "file.space", **values)


def reserve(handle: int, size: int) -> None:
    """Take all of the disk space at once, where the system can: cheaper than block by block, and a full disk shows now.

    Raises OSError for a full disk; a file system that only wants more room to spare is written to all the same.
    (Python's own call writes zeros where the file system cannot reserve.)
    """
    failed = ctypes.get_errno() if _fallocate is not None and _fallocate(handle, 0, 0, size) else 0
    if failed == errno.ENOSPC:
        left = os.fstatvfs(handle)
        failed = failed if left.f_bavail * left.f_frsize < size else 0
    if failed in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(failed, os.strerror(failed))


def send(handle: int, offset: int, size: int) -> None:
    """Begin to write a part of a file to the disk, so that it works while the rest is computed; only a hint."""
    if _sync_range is not None:
        _sync_range(handle, offset, size, _WRITE)


def forget(handle: int, offset: int, size: int) -> None:
    """Let the system use the memory of a part of a file again: what is written next need not look for more."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(handle, offset, size, os.POSIX_FADV_DONTNEED)


def _find(name: str, *arguments: type) -> Callable[..., int] | None:
    """A call of Linux's C library that Python has none for."""
    found = getattr(ctypes.CDLL(None, use_errno=True), name, None) if sys.platform == "linux" else None
    if found is not None:
        found.argtypes = arguments
    return found


_fallocate = _find("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_sync_range = _find("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
