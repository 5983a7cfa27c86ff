"""Where in a safetensors file what lies, before a byte is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate

from ...engine.tensors import TensorInfo
from ...engine.texts.say import refuse
from .header import DTYPES, MAX_HEADER, shown

_CODES = {dtype: code for code, dtype in DTYPES.items()}


def layout(
    entries: Sequence[TensorInfo], metadata: Mapping[str, str], room: int = 0, as_listed: bool = False
) -> tuple[bytes, dict[str, int]]:
    """The file's beginning (length and header, padded to 8 bytes) and where in the file each tensor starts.

    ``room``: more spaces behind the header.

    Wide dtypes come first, as in the reference writer: then every tensor lies at a multiple of its element size, and
    readers that map the file need not copy. Otherwise the order of ``entries`` is kept; ``as_listed``: all of it, where
    every tensor then lies so too.
    """
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    starts, end = {}, 0
    for info in entries if as_listed and _fit(entries) else sorted(entries, key=lambda info: -info.dtype.itemsize):
        if info.name in table or info.name == "__metadata__":
            raise refuse("file.twice", tensor=shown(info.name))
        if info.dtype not in _CODES:
            raise refuse("file.dtype", tensor=shown(info.name), dtype=info.dtype)
        starts[info.name], begin, end = end, end, end + info.nbytes
        table[info.name] = {"dtype": _CODES[info.dtype], "shape": list(info.shape), "data_offsets": [begin, end]}
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (room + -(len(text) + room) % 8)
    if len(text) > MAX_HEADER:
        raise refuse("file.header", bytes=len(text), most=MAX_HEADER)
    return len(text).to_bytes(8, "little") + text, {name: 8 + len(text) + start for name, start in starts.items()}


def _fit(entries: Sequence[TensorInfo]) -> bool:
    """Whether side by side each starts at a multiple of its element size."""
    starts = accumulate((info.nbytes for info in entries), initial=0)
    return all(start % info.dtype.itemsize == 0 for start, info in zip(starts, entries, strict=False))
