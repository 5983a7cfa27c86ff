"""The picture of a LoRA: a file beside it, as the tools people use keep them, or the thumbnail in its header."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ..disk.header import disk_errors, read_header, regular_file

MAX_IMAGE = 4 << 20  # bytes
THUMBNAIL = "modelspec.thumbnail"  # a data: address
_IMAGES = (".png", ".jpg", ".jpeg", ".webp")
ENDINGS = (*(f".preview{each}" for each in _IMAGES), *_IMAGES)
MAGIC = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


@dataclass(frozen=True)
class Preview:
    """Where the picture of a LoRA is: a file beside it, or (``inside``) its header. ``state`` changes when it does."""

    path: Path
    inside: bool
    state: str

    def read(self) -> tuple[bytes, str]:
        """(the picture, its media type). FoundryError ``file`` for one that is too large or no PNG, JPEG or WebP."""
        data = _embedded(read_header(self.path).metadata) if self.inside else _file(self.path)
        if len(data) > MAX_IMAGE:
            raise refuse("file.preview_size", file=self.path.name, most=MAX_IMAGE >> 20)
        kind = media_type(data)
        if not kind:
            raise refuse("file.preview_kind", file=self.path.name)
        return data, kind


def find_preview(lora: Path, metadata: Mapping[str, str]) -> Preview | None:
    """The picture of a LoRA file, a file beside it first; nothing is read. None where there is none."""
    return picture_beside(lora) or picture_inside(lora, metadata)


def picture_beside(lora: Path) -> Preview | None:
    """The picture that lies beside a LoRA file, which is not read. None where there is none, and for other files."""
    if lora.suffix.lower() != ".safetensors":  # or a picture would be beside itself
        return None
    for ending in ENDINGS:
        path = lora.with_name(lora.stem + ending)
        try:
            state = regular_file(path)
        except FoundryError:
            continue
        return Preview(path, False, f"{path.name}:{state.st_size}:{state.st_mtime_ns}")
    return None


def picture_inside(lora: Path, metadata: Mapping[str, str]) -> Preview | None:
    """The thumbnail in the header of a LoRA file, by its metadata. None where there is none."""
    if not metadata.get(THUMBNAIL, "").startswith("data:image/"):
        return None
    state = regular_file(lora)
    return Preview(lora, True, f"{lora.name}:{state.st_size}:{state.st_mtime_ns}")


def media_type(data: bytes) -> str:
    """What bytes are, by how they begin; empty for anything but PNG, JPEG and WebP."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for begin, kind in MAGIC if data.startswith(begin)), "")


def _file(path: Path) -> bytes:
    with disk_errors(path), path.open("rb") as file:
        return file.read(MAX_IMAGE + 1)


def _embedded(metadata: Mapping[str, str]) -> bytes:
    """The bytes of a ``data:image/png;base64,...``; none of anything else."""
    _, _, coded = metadata.get(THUMBNAIL, "").partition(";base64,")
    try:
        return base64.b64decode(coded, validate=True) if len(coded) <= 2 * MAX_IMAGE else b""
    except ValueError:  # also of letters that are no ASCII
        return b""
