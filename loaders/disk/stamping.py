"""A safetensors file with more ``__metadata__``: the header is new, every tensor byte stays where it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from .header import Header, disk_errors, read_header
from .reading import check_unchanged
from .temps import sync_file, sync_folder, temporary
from .writer import check_target, writing

CHUNK = 1 << 22  # bytes copied at once


def stamp(source: Path, out: Path, metadata: Mapping[str, str]) -> None:
    """Write ``out``: ``source`` with these entries added to its metadata, or put in the place of those it had.

    The bytes after the header are the same, and so is their hash. ``out`` may be ``source`` itself; it is the old file
    until the new one is complete. Raises FoundryError ``file``.
    """
    header = read_header(source)
    start = _header(header, metadata)
    size = header.size + len(start)  # at most
    check_target(out, size)
    with temporary(out.parent) as temp, writing(out, size):
        with source.open("rb") as file, temp.open("xb") as copy:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            copy.write(start)
            shutil.copyfileobj(file, copy, CHUNK)
            copy.flush()
            sync_file(copy.fileno())
            state = os.fstat(file.fileno())
        check_unchanged(source, (state.st_size, state.st_mtime_ns), (header.size, header.mtime_ns))
        temp.replace(out)
        sync_folder(out.parent)


def _header(header: Header, metadata: Mapping[str, str]) -> bytes:
    """Length and text of the new header: the entries of the old one as they are, padded to 8 bytes."""
    with disk_errors(header.path), header.path.open("rb") as file:
        entries = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    entries["__metadata__"] = {**header.metadata, **metadata}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
