"""The header of a .safetensors file, read with checks of our own before any tensor is touched.

Layout: 8 bytes of little-endian header length, that many bytes of JSON, then the data without holes. The reference
reader accepts repeated keys, hundreds of thousands of entries and folders given as files; this one does not.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import torch

from ...engine.errors import FoundryError
from ...engine.near import near
from ...engine.tensors import TensorInfo
from ...engine.texts.say import refuse
from .suffixes import SUFFIXES

MAX_HEADER = 100_000_000
MAX_TENSORS = 100_000
MAX_NAME = 1000  # characters; the longest names of models have 200
MAX_DIMS = 64  # torch's own limit
DTYPES: Mapping[str, torch.dtype] = {
    code: getattr(torch, name)
    for code, name in {
        "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64", "BOOL": "bool",
        "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
        "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
        "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    }.items()
    if hasattr(torch, name)
}  # fmt: skip
_PICKLE_SUFFIXES = (".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl")
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# How what is put in a file's place begins, in lower case: what a clone without Git LFS leaves, and a site's answer.
_INSTEAD = {b"version h": "file.pointer", b"<!doctype": "file.page", b"<html": "file.page"}
SHOWN = 3  # names shown where many could be


@dataclass(frozen=True)
class Header:
    """What a file says about itself. ``tensors`` are in file order; ``offsets`` are absolute ``(begin, end)`` in bytes.

    ``size`` (bytes) and ``mtime_ns`` are those of the file the header was read from.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    offsets: Mapping[str, tuple[int, int]]
    metadata: Mapping[str, str]
    size: int
    mtime_ns: int


def read_header(path: Path) -> Header:
    """Read and check a file's header. Every fault is a FoundryError ``file`` that names the file and what was seen."""
    state = regular_file(path)
    with disk_errors(path), path.open("rb") as file:
        return parse_header(path, file.read, state.st_size, state.st_mtime_ns)


def parse_header(path: Path, read: Callable[[int], bytes], size: int, mtime_ns: int = 0) -> Header:
    """The same from wherever the bytes of a file of ``size`` come: ``read(n)`` gives the next ``n`` of them."""
    _check_name(path)
    start = read(9)
    length = _header_length(path, start, size)
    entries = _parse(path, start[8:] + read(length - 1))
    metadata = _metadata(path, entries.pop("__metadata__", {}))
    tensors, offsets, end = _tensors(path, entries, 8 + length)
    if end != size:
        raise file_error(path, "file.incomplete" if end > size else "file.longer", said=end, there=size)
    return Header(path, tensors, offsets, metadata, size, mtime_ns)


def shown(text: str, limit: int = 160) -> str:
    """Text from a file made safe to print: control, ANSI and direction characters escaped, long text cut."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return safe if len(safe) <= limit else f"{safe[: limit // 2]}...{safe[-limit // 3 :]}"


def quoted(names: Sequence[str], most: int = SHOWN) -> str:
    """The first names of a list, and how many more there are: ``'a', 'b', 'c' and 2 more``."""
    first = ", ".join(f"'{shown(name)}'" for name in names[:most])
    return first + (f" and {len(names) - most} more" if len(names) > most else "")


def file_error(path: Path, key: str, **values: object) -> FoundryError:
    """The error of a file: ``refuse`` with its name, as it can be printed, in the blank ``file``."""
    return refuse(key, file=shown(path.name or str(path)), **values)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the operating system refuses (missing, no permission, I/O error) into one named FoundryError."""
    try:
        yield
    except FileNotFoundError as error:
        raise _absent(path) from error
    except OSError as error:
        raise file_error(path, "file.refused", reason=error.strerror or error) from error


def _absent(path: Path) -> FoundryError:
    """What is not there, with the names beside it that look like it."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        names = []
    alike = " or ".join(shown(name) for name in near(path.name, names, 3, 0.75))
    return file_error(path, "file.absent_near", near=alike) if alike else file_error(path, "file.absent")


def regular_file(path: Path) -> os.stat_result:
    """``stat`` of a regular file; a folder, pipe or device is refused before it is opened, so nothing can hang."""
    try:
        with disk_errors(path):
            state = path.stat()
    except ValueError as error:  # a NUL in the name
        raise file_error(path, "file.impossible") from error
    if not stat.S_ISREG(state.st_mode):
        raise file_error(path, "file.irregular")
    return state


def _check_name(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in _PICKLE_SUFFIXES:
        _refuse_pickle(path)
    if suffix == ".gguf":
        _refuse_gguf(path)
    if suffix not in SUFFIXES:
        raise file_error(path, "file.suffix", suffix=SUFFIXES[0])


def _header_length(path: Path, start: bytes, size: int) -> int:
    """The header's length from the first nine bytes, or the reason why this is another kind of file."""
    length = int.from_bytes(start[:8], "little")
    if start[8:] == b"{" and 2 <= length <= min(size - 8, MAX_HEADER):
        return length
    if start.startswith(_PICKLE_MAGIC):
        _refuse_pickle(path)
    if start.startswith(b"GGUF"):
        _refuse_gguf(path)
    if key := next((key for first, key in _INSTEAD.items() if start.lower().startswith(first)), ""):
        raise file_error(path, key, there=size)
    if not start:
        raise file_error(path, "file.empty")
    if size > 8:
        raise file_error(path, "file.long_header", said=length, there=size, most=MAX_HEADER)
    raise file_error(path, "file.no_header", there=size, most=MAX_HEADER)


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    # Counting first keeps a header bomb from costing a gigabyte: a tensor needs fewer than ten commas.
    if raw.count(b",") > 10 * MAX_TENSORS:
        _refuse_crowd(path)
    try:
        entries: dict[str, Any] = json.loads(raw.decode(), object_pairs_hook=unique, parse_constant=_no_constant)
        if b"\\u" in raw:  # half of a surrogate pair could be neither printed nor hashed later
            json.dumps(entries, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # includes bad UTF-8 and bad JSON
        raise file_error(path, "file.bad_header", reason=shown(str(error))) from error
    if len(entries) - ("__metadata__" in entries) > MAX_TENSORS:
        _refuse_crowd(path)
    return entries


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object. Raises ValueError for a key that stands there twice: one of the two would be lost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"'{twice}' is listed twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise file_error(path, "file.bad_metadata")
    return metadata


def _tensors(
    path: Path, entries: dict[str, Any], start: int
) -> tuple[dict[str, TensorInfo], dict[str, tuple[int, int]], int]:
    """Tensors in file order, their absolute offsets, and where the data ends; no overlap, no hole."""
    if long := next((name for name in entries if len(name) > MAX_NAME), None):
        _refuse_tensor(path, long, f"has a name of {len(long)} characters ({MAX_NAME} are accepted)")
    spans = {name: _span(path, name, entry) for name, entry in entries.items()}
    tensors, offsets, end = {}, {}, 0
    for name in sorted(spans, key=spans.__getitem__):
        begin, stop = spans[name]
        info = _info(path, name, entries[name])
        if begin != end:
            fault = "overlaps the tensor before it" if begin < end else "leaves a hole before it"
            _refuse_tensor(path, name, f"{fault} ({begin} instead of {end})")
        if stop - begin != info.nbytes:
            _refuse_tensor(path, name, f"has {stop - begin} bytes where its shape and dtype need {info.nbytes}")
        tensors[name], offsets[name], end = info, (start + begin, start + stop), stop
    return tensors, offsets, start + end


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not _counts(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] < 2**63:
        _refuse_tensor(path, name, f"has impossible offsets {shown(str(offsets))}")
    return offsets[0], offsets[1]


def _info(path: Path, name: str, entry: dict[str, Any]) -> TensorInfo:
    code, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(code, str) or code not in DTYPES:
        _refuse_tensor(path, name, f"has the dtype {shown(str(code))}, which this version cannot read")
    if not _counts(shape) or len(shape) > MAX_DIMS or math.prod(max(size, 1) for size in shape) >= 2**60:
        _refuse_tensor(path, name, f"has an impossible shape {shown(str(shape))}")
    return TensorInfo(name, DTYPES[code], tuple(shape))


def _counts(values: Any) -> TypeGuard[list[int]]:
    """Whether this is a list of whole numbers from 0 on (``True`` is not one)."""
    return isinstance(values, list) and {*map(type, values)} <= {int} and min(values, default=0) >= 0


def _refuse_tensor(path: Path, name: str, what: str) -> NoReturn:
    raise file_error(path, "file.bad_tensor", tensor=shown(name), what=what)


def _refuse_crowd(path: Path) -> NoReturn:
    raise file_error(path, "file.crowd", most=MAX_TENSORS)


def _refuse_pickle(path: Path) -> NoReturn:
    raise file_error(path, "file.pickle")


def _refuse_gguf(path: Path) -> NoReturn:
    raise file_error(path, "file.gguf")
