"""The fingerprint of a LoRA file, taken once: kept in the user's home under the hash of its tensors."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from ...engine.adapters import NOT_READ
from ...validator.fingerprint import Fingerprint, make_fingerprint
from ..disk.store import Store
from ..loras.file import LoRAFile
from .identity import identifies, identify_file

STORE = Store("fingerprints", most=200)  # 30 kB each for a large LoRA


def lora_fingerprint(lora: LoRAFile) -> Fingerprint:
    """What the diffusion model's part of a LoRA does, tolerant of re-saving; text encoders do not count.

    Reads every factor the first time: seconds for a large file. Raises FoundryError for a file that cannot be read.
    """
    key = _key(lora)
    found = _recalled(key) if key else None
    if found is None:
        found = make_fingerprint(
            (adapter, {part: lora.read(name) for part, name in adapter.parts if part not in NOT_READ})
            for adapter in lora.adapters
        )
        if key:
            STORE.put(key, found.to_json())
    return found


def _key(lora: LoRAFile) -> str:
    """By the tensors' bytes and what they are read as: names, shapes and scales, which the metadata may state."""
    tensors = identify_file(lora.path).tensor_sha256 if lora.path else ""
    reading = hashlib.sha256(repr(lora.adapters).encode()).hexdigest()[:16]
    return f"{tensors}-{reading}" if identifies(tensors) else ""


def _recalled(key: str) -> Fingerprint | None:
    with suppress(KeyError, TypeError, ValueError):  # of another version, or no fingerprint
        return Fingerprint.from_json(STORE.get(key))
    return None
