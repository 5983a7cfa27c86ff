"""What people call a LoRA: its title, by files that tools keep beside it or by its header. For lists of thousands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from ..disk.header import disk_errors, regular_file
from .configs import parse_json
from .sidecars import small_text
from .triggers import plain

# File beside a LoRA, by its stem or whole name -> where its title stands in it.
# Civitai's helpers, LoRA-Manager, Stability Matrix, rgthree.
PLACES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("{0.stem}.civitai.info", ("model", "name")),
    ("{0.stem}.metadata.json", ("model_name",)),
    ("{0.stem}.cm-info.json", ("ModelName",)),
    ("{0.name}.rgthree-info.json", ("name",)),
)
MAX_HEAD = 1 << 18  # bytes of a header that are looked at: metadata come before the tensors
LONGEST = 200  # characters
_TITLE = re.compile(r'[{,]\s*"modelspec\.title"\s*:\s*("(?:[^"\\]|\\.){0,1000}")')


def title_of(path: Path) -> str:
    """The title of a LoRA file, empty where nothing tells one. At most 256 KB of the file are read. Never raises."""
    told = (_beside(path.parent / name.format(path), way) for name, way in PLACES)
    return next((title for title in (*told, _inside(path)) if title), "")


def _beside(path: Path, way: tuple[str, ...]) -> str:
    with suppress(FoundryError, OSError, ValueError):
        data: Any = parse_json(small_text(path), path.name)
        for key in way:
            data = data.get(key) if isinstance(data, Mapping) else None
        return _shown(data)
    return ""


def _inside(path: Path) -> str:
    with suppress(FoundryError, OSError, ValueError):
        regular_file(path)  # a pipe would hang
        with disk_errors(path), path.open("rb") as file:
            head = file.read(MAX_HEAD)
        length = int.from_bytes(head[:8], "little")
        found = _TITLE.search(head[8 : 8 + length].decode("utf-8", errors="replace"))
        return _shown(json.loads(found[1])) if found else ""
    return ""


def _shown(title: object) -> str:
    return plain(title)[:LONGEST] if isinstance(title, str) else ""
