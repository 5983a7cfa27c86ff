"""The streamed safetensors writer: tensor by tensor into a hidden file beside the target, then in the target's place.

Whatever happens, the target is either the complete old file or the complete new one.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from ..engine.errors import FoundryError
from ..engine.tensors import TensorInfo, TensorSink
from .header import DTYPES, MAX_HEADER, SUFFIXES, disk_errors, file_error, shown

_CODES = {dtype: code for code, dtype in DTYPES.items()}
_HOST = re.sub(r"\W", "", platform.node())[:32] or "here"
_TEMP = re.compile(r"\.lora_foundry-(\w+)-(\d+)-\w+\.tmp")


@contextmanager
def write_safetensors(path: Path, entries: Sequence[TensorInfo], metadata: Mapping[str, str]) -> Iterator[TensorSink]:
    """Write a file as a ``with`` block: the sink takes every announced tensor once, and leaving the block publishes it.

    An exception in the block, a missing tensor or a full disk leaves no new file and the old one untouched. The mode
    follows the umask. Raises FoundryError ``file``.
    """
    header, offsets = layout(entries, metadata)
    size = len(header) + sum(info.nbytes for info in entries)
    check_target(path, size)
    temp = path.with_name(f".lora_foundry-{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        with _writing(path, size):
            file = temp.open("xb", buffering=0)  # unbuffered: closing it has nothing left to write, so cannot fail
        with file:
            sink = _Sink(file, path, size, {info.name: (info, offsets[info.name]) for info in entries})
            sink.put(header, 0)
            yield sink
            sink.finish()
        with _writing(path, size):
            temp.replace(path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temp.unlink(missing_ok=True)


def layout(entries: Sequence[TensorInfo], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """The file's beginning (length and header, padded to 8 bytes) and where in the file each tensor starts.

    Wide dtypes come first, as in the reference writer: then every tensor lies at a multiple of its element size, and
    readers that map the file need not copy. Otherwise the order of ``entries`` is kept.
    """
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    starts, end = {}, 0
    for info in sorted(entries, key=lambda info: -info.dtype.itemsize):
        if info.name in table or info.name == "__metadata__":
            raise FoundryError("file", f"Two tensors would be stored as '{shown(info.name)}'.")
        if info.dtype not in _CODES:
            raise FoundryError("file", f"Tensor '{shown(info.name)}' is {info.dtype}, which safetensors cannot store.")
        starts[info.name], begin, end = end, end, end + info.nbytes
        table[info.name] = {"dtype": _CODES[info.dtype], "shape": list(info.shape), "data_offsets": [begin, end]}
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise FoundryError("file", f"The header would be {len(text)} bytes; readers accept {MAX_HEADER}.")
    return len(text).to_bytes(8, "little") + text, {name: 8 + len(text) + start for name, start in starts.items()}


class _Sink:
    """Takes tensors in any order and puts each where the layout says."""

    on_disk = True

    def __init__(self, file: io.FileIO, path: Path, size: int, missing: dict[str, tuple[TensorInfo, int]]) -> None:
        self._file, self._path, self._size, self._missing = file, path, size, missing

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Store one tensor, from any device and with any strides; it must be as announced, and come once."""
        if name not in self._missing:
            raise file_error(self._path, f"was given the tensor '{shown(name)}' twice or unannounced")
        info, offset = self._missing[name]
        if (tensor.dtype, tuple(tensor.shape)) != (info.dtype, info.shape):
            seen = f"{tensor.dtype} {tuple(tensor.shape)} instead of {info.dtype} {info.shape}"
            raise file_error(self._path, f"was given the tensor '{shown(name)}' as {seen}")
        flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        self.put(flat.numpy().data, offset)
        del self._missing[name]

    def put(self, data: bytes | memoryview, offset: int) -> None:
        """Write bytes at a place in the file."""
        rest = memoryview(data)
        with _writing(self._path, self._size):
            self._file.seek(offset)
            while rest:
                rest = rest[self._file.write(rest) :]  # one call takes at most 2 GiB

    def finish(self) -> None:
        """Check that nothing is missing and bring every byte to the disk."""
        if self._missing:
            name = next(iter(self._missing))
            raise file_error(self._path, f"lacks {len(self._missing)} announced tensors, the first is '{shown(name)}'")
        with _writing(self._path, self._size):
            os.fsync(self._file.fileno())


@contextmanager
def _writing(path: Path, size: int) -> Iterator[None]:
    """What the operating system refuses, as one sentence that says what was needed."""
    try:
        yield
    except OSError as error:
        what = f"could not be written: {error.strerror or error}"
        fix = f"It needs {_megabytes(size)} in {shown(str(path.parent))}, and nothing else may hold the old file open."
        raise file_error(path, what, fix) from error


def check_target(path: Path, size: int = 0) -> None:
    """Refuse before the first byte what cannot succeed; sweep up after writers that were killed."""
    if path.suffix.lower() not in SUFFIXES:
        raise file_error(path, "would not be read by any loader", f"Let the name end in {SUFFIXES[0]}.")
    if path.is_dir():
        raise file_error(path, "is a folder", "Name a file in it.")
    if not path.parent.is_dir():
        raise file_error(path, "cannot be written: its folder does not exist", f"Make {shown(str(path.parent))} first.")
    _sweep(path.parent)
    with disk_errors(path):
        free = shutil.disk_usage(path.parent).free
    if free < size:
        what = f"needs {_megabytes(size)} and {_megabytes(free)} are free in {shown(str(path.parent))}"
        raise file_error(path, what, "Make room or write elsewhere; nothing was written.")


def _sweep(folder: Path) -> None:
    """Remove what killed writers of this machine left; the files of other machines on a shared drive are theirs."""
    with suppress(OSError):
        for entry in folder.iterdir():
            match = _TEMP.fullmatch(entry.name)
            if match and match[1] == _HOST and not _is_alive(int(match[2])):
                with suppress(OSError):  # on Windows: its writer lives and holds it open
                    entry.unlink()


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there; an open file cannot be unlinked anyway
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # another user's
    return True


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where folders can be synced at all."""
    if os.name == "nt":
        return
    with suppress(OSError):  # some network drives refuse; the file is complete all the same
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
