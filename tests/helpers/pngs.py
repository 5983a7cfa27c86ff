"""PNG files by their parts, as pictures with a workflow are, and as no program would write them."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    """One part of a PNG: its length, kind and data, and their checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
PIXELS = chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))


def png(*texts: bytes, pixels: bytes = PIXELS, after: bytes = b"") -> bytes:
    """A PNG of one pixel, or of these ``pixels``, with parts before and after them."""
    return SIGNATURE + HEADER + b"".join(texts) + pixels + after + chunk(b"IEND", b"")
