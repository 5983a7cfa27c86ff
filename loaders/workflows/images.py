"""Text that ComfyUI hides in the pictures it saves: the prompt that ran and the workflow that was open.

Read without a picture library: PNG text chunks (also those of animated PNG), EXIF of WebP and JPEG.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ..disk.header import disk_errors, regular_file, shown

NAMES = ("prompt", "workflow")
MAX_TEXT = 32 * 2**20  # bytes of all texts together, unpacked
MAX_TEXTS = 16  # of ours; ComfyUI writes two
MAX_CHUNKS, MAX_TEXT_CHUNKS = 200_000, 1000
LONGEST_NAME = 79  # bytes of the name of a text, by the PNG standard
_IN_EXIF = tuple(f"{name}:".encode() for name in NAMES)
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_JPEG_PICTURE = (0xDA, 0xD9)  # start of scan, end of image: no more metadata


def embedded(path: Path) -> dict[str, str] | None:
    """The texts ``prompt`` and ``workflow`` in a picture; None for a file that is no PNG, WebP or JPEG.

    Raises FoundryError ``workflow`` for a picture that is cut off or damaged, and ``file`` for one that cannot be read.
    """
    regular_file(path)
    with disk_errors(path), path.open("rb") as file:
        head = file.read(12)
        read = next((reader for fits, reader in _READERS if fits(head)), None)
        if read is None:
            return None
        file.seek(0)
        try:
            return _collected(read(file))
        except (struct.error, zlib.error, EOFError) as error:
            raise _damaged(path, str(error)) from error


def _collected(texts: Iterator[tuple[str, str]]) -> dict[str, str]:
    """The last text of each name; a picture that holds more than anybody writes is damaged."""
    found: dict[str, str] = {}
    size = 0
    for number, (name, text) in enumerate(texts, 1):
        size += len(text)
        if number > MAX_TEXTS or size > MAX_TEXT:
            raise EOFError(f"it holds more than {MAX_TEXTS} texts or {MAX_TEXT // 2**20} MB of them")
        found[name] = text
    return found


def _png(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(len(_PNG))
    texts = 0
    for _ in range(MAX_CHUNKS):
        if len(head := file.read(8)) < 8:  # the end; the texts come early, so a cut-off picture still has them
            return
        length, kind = struct.unpack(">I4s", head)
        if kind not in _TEXT_CHUNKS:
            _skip(file, length + 4)
            continue
        texts += 1
        if texts > MAX_TEXT_CHUNKS:
            raise EOFError(f"it holds more than {MAX_TEXT_CHUNKS} texts")
        begin = file.read(min(length, LONGEST_NAME + 1))
        file.seek(-len(begin), os.SEEK_CUR)
        if (name := begin.partition(b"\0")[0].decode("latin-1")) not in NAMES:
            _skip(file, length + 4)
            continue
        data = _exactly(file, _sane(length))
        if zlib.crc32(kind + data) != struct.unpack(">I", _exactly(file, 4))[0]:
            raise EOFError("the checksum of a text is wrong")
        yield name, _text(_TEXT_CHUNKS[kind](data.partition(b"\0")[2]))


def _compressed(rest: bytes) -> bytes:
    return _unpacked(rest[1:])  # after the method, of which there is one


def _international(rest: bytes) -> bytes:
    packed, _, rest = rest[:1], rest[1:2], rest[2:]
    text = rest.split(b"\0", 2)[-1]  # after language and translated name
    return _unpacked(text) if packed == b"\1" else text


def _unpacked(data: bytes) -> bytes:
    """The unpacked text, never more than MAX_TEXT of it."""
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, MAX_TEXT + 1)
    _sane(len(text))
    if not unpacker.eof:
        raise EOFError("a packed text is cut off")
    return text


_TEXT_CHUNKS: dict[bytes, Callable[[bytes], bytes]] = {
    b"tEXt": bytes,
    b"comf": bytes,  # ComfyUI's own, in animated PNG
    b"zTXt": _compressed,
    b"iTXt": _international,
}


def _webp(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(12)
    for _ in range(MAX_CHUNKS):
        if len(head := file.read(8)) < 8:
            return
        kind, length = struct.unpack("<4sI", head)
        if kind == b"EXIF":
            yield from _exif(_exactly(file, _sane(length)))
            return
        _skip(file, length + length % 2)


def _jpeg(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(2)
    for _ in range(MAX_CHUNKS):
        if len(head := file.read(4)) < 4:
            return
        mark, marker, length = struct.unpack(">BBH", head)
        if mark != 0xFF or marker in _JPEG_PICTURE or length < 2:
            return
        data = _exactly(file, length - 2)
        if marker == 0xE1 and data.startswith(b"Exif\0\0"):
            yield from _exif(data)  # there is one
            return


def _exif(data: bytes) -> Iterator[tuple[str, str]]:
    """Texts of the form ``prompt:{...}`` among the fields of the first directory: ComfyUI borrows Make and Model."""
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise EOFError("its EXIF data cannot be read")
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    for position in range(first + 2, first + 2 + 12 * count, 12):
        size, offset = struct.unpack_from(f"{order}II", data, position + 4)
        if data.startswith(_IN_EXIF, offset, offset + size):  # all may point at the same bytes: what is ours is copied
            name, _, text = data[offset : offset + size].partition(b":")
            yield name.decode(), _text(text.rstrip(b"\0"))


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO], Iterator[tuple[str, str]]]], ...] = (
    (lambda head: head.startswith(_PNG), _png),
    (lambda head: head[:4] == b"RIFF" and head[8:] == b"WEBP", _webp),
    (lambda head: head.startswith(_JPEG), _jpeg),
)


def _text(data: bytes) -> str:
    """UTF-8 as most programs write it, else the Latin-1 that PNG asks for."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("it is cut off")
    return data


def _skip(file: BinaryIO, size: int) -> None:
    file.seek(size, os.SEEK_CUR)


def _sane(size: int) -> int:
    if size > MAX_TEXT:
        raise EOFError(f"a text in it is larger than {MAX_TEXT // 2**20} MB")
    return size


def _damaged(path: Path, what: str) -> FoundryError:
    return refuse("workflow.damaged", file=shown(path.name), what=what)
