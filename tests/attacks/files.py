"""Hostile and broken safetensors files, each named after the attack."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Attack(NamedTuple):
    """The bytes of a file, and words its refusal must hold."""

    content: bytes
    says: str


def pack(header: Any, data: bytes = b"") -> bytes:
    """A file from a header (plain data, or JSON text as it is to stand there) and its data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(*offsets: Any, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    """One entry of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def write(folder: Path, content: bytes, name: str = "attack.safetensors") -> Path:
    """The file on disk."""
    path = folder / name
    path.write_bytes(content)
    return path


def many(count: int) -> bytes:
    """A header of this many empty tensors, without building them as objects."""
    entry = b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return pack(b"{" + b",".join(entry % i for i in range(count)) + b"}")


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}, 2))
    return buffer.getvalue()


GOOD = pack({"a": tensor(0, 8), "b": tensor(8, 16)}, bytes(16))

ATTACKS: dict[str, Attack] = {
    "empty file": Attack(b"", "is empty (0 bytes)"),
    "five bytes": Attack(b"\x05\0\0\0\0", "it has only 5 bytes"),
    "truncated data": Attack(GOOD[:-1], f"its header says {len(GOOD)} bytes, the file has {len(GOOD) - 1}"),
    "truncated header": Attack(GOOD[:40], "the file has 40"),
    "trailing bytes": Attack(GOOD + b"!", f"its header says {len(GOOD)} bytes, the file has {len(GOOD) + 1}"),
    "header longer than the file": Attack((10**6).to_bytes(8, "little") + b"{}", "its header would be 1000000 bytes"),
    "header of 2**64 - 1 bytes": Attack(b"\xff" * 8 + b"{}", "its header would be 18446744073709551615 bytes"),
    "header of no bytes": Attack(bytes(8) + b"{}", "its header would be 0 bytes"),
    "header that is a list": Attack(pack(b"[1]"), "is damaged"),
    "header after a space": Attack(pack(b' {"a":1}'), "is damaged"),
    "header that is not JSON": Attack(pack(b"{nonsense}"), "damaged header"),
    "header that is not UTF-8": Attack(pack(b'{"\xff\xfe":1}'), "damaged header"),
    "depth bomb": Attack(pack(b'{"a":' + b"[" * 200_000), "damaged header"),
    "half a surrogate pair": Attack(
        pack(rb'{"\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'), "damaged header"
    ),
    "number of 5000 digits": Attack(pack({"a": tensor(0, 8)}).replace(b"[2]", b"[" + b"9" * 5000 + b"]"), "damaged"),
    "infinity as a size": Attack(pack(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}'), "Infinity"),
    "header bomb": Attack(many(400_000), "lists more than 100000 tensors"),
    "one tensor too many": Attack(many(100_001), "lists more than 100000 tensors"),
    "key listed twice": Attack(
        pack(b'{"a":%(one)s,"a":%(one)s}' % {b"one": json.dumps(tensor(0, 8)).encode()}, bytes(8)),
        "'a' is listed twice",
    ),
    "field listed twice": Attack(pack(b'{"a":{"dtype":"U8","dtype":"F32"}}'), "'dtype' is listed twice"),
    "overlap": Attack(pack({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)), "'b' overlaps"),
    "the same bytes twice": Attack(pack({"a": tensor(0, 8), "b": tensor(0, 8)}, bytes(8)), "'b' overlaps"),
    "hole": Attack(pack({"a": tensor(0, 8), "b": tensor(9, 17)}, bytes(17)), "'b' leaves a hole"),
    "data that starts late": Attack(pack({"a": tensor(8, 16)}, bytes(16)), "'a' leaves a hole"),
    "negative offset": Attack(pack({"a": tensor(-8, 0)}), "'a' has impossible offsets"),
    "overflowing offset": Attack(pack({"a": tensor(0, 2**64 + 8)}, bytes(8)), "'a' has impossible offsets"),
    "offsets the wrong way": Attack(pack({"a": tensor(8, 0)}, bytes(8)), "'a' has impossible offsets"),
    "offsets that are true": Attack(
        pack({"a": tensor(False, True, shape=[1], dtype="U8")}, b"1"), "impossible offsets"
    ),
    "one offset": Attack(pack({"a": tensor(8)}, bytes(8)), "impossible offsets"),
    "more bytes than the shape": Attack(
        pack({"a": tensor(0, 12)}, bytes(12)), "has 12 bytes where its shape and dtype need 8"
    ),
    "shape that overflows": Attack(pack({"a": tensor(0, 8, shape=[2**62, 2**62])}, bytes(8)), "impossible shape"),
    "nothing times too much": Attack(pack({"a": tensor(0, 0, shape=[0, 2**62, 4])}), "impossible shape"),
    "negative shape": Attack(pack({"a": tensor(0, 8, shape=[-2])}, bytes(8)), "impossible shape"),
    "shape of a fraction": Attack(pack({"a": tensor(0, 8, shape=[2.0])}, bytes(8)), "impossible shape"),
    "65 dimensions": Attack(pack({"a": tensor(0, 4, shape=[1] * 65)}, bytes(4)), "impossible shape"),
    "shape that is text": Attack(pack({"a": tensor(0, 8, shape="2")}, bytes(8)), "impossible shape"),
    "unknown dtype": Attack(
        pack({"layer.q": tensor(0, 8, dtype="F6_E2M3")}, bytes(8)), "'layer.q' has the dtype F6_E2M3"
    ),
    "dtype that is a list": Attack(pack({"a": tensor(0, 8, dtype=["F32"])}, bytes(8)), "has the dtype ['F32']"),
    "entry that is a number": Attack(pack({"a": 3}), "'a' has impossible offsets"),
    "metadata that is a number": Attack(pack({"__metadata__": {"rank": 4}}), "metadata is not a list of texts"),
    "metadata that is a list": Attack(pack({"__metadata__": []}), "metadata is not a list of texts"),
    "zip pickle renamed": Attack(_zip(), "pickle file: refused, it could run code; convert it first"),
    "bare pickle renamed": Attack(pickle.dumps({"a": 1}, 2), "pickle file: refused"),
    "protocol 5 pickle renamed": Attack(pickle.dumps({"a": 1}, 5), "pickle file: refused"),
    "GGUF renamed": Attack(b"GGUF\x03\0\0\0" + bytes(64), "GGUF file: refused"),
}

# Valid files that others trip over: they must be read.
HARMLESS: dict[str, Callable[[], bytes]] = {
    "metadata only": lambda: pack({"__metadata__": {"format": "pt"}}),
    "no tensors at all": lambda: pack({}),
    "zero-size and 0-d tensors": lambda: pack({"a": tensor(0, 0, shape=[0, 7]), "b": tensor(0, 4, shape=[])}, bytes(4)),
    "header of 640 bytes, which looks like a pickle": lambda: pack(
        json.dumps({"a": tensor(0, 8)}).encode().ljust(640), bytes(8)
    ),
    "names of another world": lambda: pack({"../../etc/passwd\0\u202e\x1b[31m": tensor(0, 8)}, bytes(8)),
    "file order is not header order": lambda: pack({"b": tensor(8, 16), "a": tensor(0, 8)}, bytes(16)),
    "header padded with spaces": lambda: pack(json.dumps({"a": tensor(0, 8)}).encode() + b"   ", bytes(8)),
}
