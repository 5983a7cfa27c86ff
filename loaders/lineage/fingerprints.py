"""The fingerprint of a LoRA file, taken once: kept in the user's home under the hash of its tensors."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from ...engine.adapters import NOT_READ
from ...validator.fingerprint import Fingerprint, make_fingerprint
from ..disk.home import home, keep, recall, seal, unseal
from ..disk.temps import remove
from ..loras.file import LoRAFile
from .identity import identifies, identify_file

FOLDER = "fingerprints"
MOST = 200  # kept (30 kB each for a large LoRA); the oldest go first


def lora_fingerprint(lora: LoRAFile) -> Fingerprint:
    """What the diffusion model's part of a LoRA does, tolerant of re-saving; text encoders do not count.

    Reads every factor the first time: seconds for a large file. Raises FoundryError for a file that cannot be read.
    """
    place = _place(lora)
    found = _recalled(place) if place else None
    if found is None:
        found = make_fingerprint(
            (adapter, {part: lora.read(name) for part, name in adapter.parts if part not in NOT_READ})
            for adapter in lora.adapters
        )
        if place:
            keep(place, seal(found.to_json()))
            _drop_old(place.parent)
    return found


def _place(lora: LoRAFile) -> Path | None:
    """By the tensors' bytes and what they are read as: names, shapes and scales, which the metadata may state."""
    tensors = identify_file(lora.path).tensor_sha256 if lora.path else ""
    reading = hashlib.sha256(repr(lora.adapters).encode()).hexdigest()[:16]
    return home() / FOLDER / f"{tensors}-{reading}.json" if identifies(tensors) else None


def _recalled(place: Path) -> Fingerprint | None:
    data = unseal(recall(place))
    with suppress(KeyError, TypeError, ValueError):  # of another version, or no fingerprint
        return Fingerprint.from_json(data)
    return None


def _drop_old(folder: Path) -> None:
    with suppress(OSError):
        aged = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in aged[:-MOST]:
            remove(path)
