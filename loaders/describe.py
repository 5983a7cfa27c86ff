"""What a file is, as plain data: a LoRA or a base model, told from its header and a few small tensors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine.errors import FoundryError
from ..engine.tensors import TensorInfo
from .checkpoints import Checkpoint, FileSource, fingerprint, open_checkpoint
from .dialects import identify, split
from .families import detect_base
from .hashes import file_sha256
from .lora import LoRAFile
from .shards import INDEX


def describe(path: Path) -> dict[str, Any]:
    """Facts about a LoRA or a base model (a file, an index, a folder of shards); ``kind`` says which of the two.

    A LoRA that cannot be used is described all the same, with the reason in ``findings``. Raises FoundryError ``file``
    for what is missing, damaged or no safetensors.
    """
    if path.is_dir() or path.name.endswith(INDEX):
        return describe_base(open_checkpoint(path))
    source = FileSource(path)
    if is_lora(source.tensors):
        return describe_lora(source)
    return describe_base(open_checkpoint(path))


def is_lora(tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether most tensors are parts of adapters."""
    parts = [name for name in tensors if (part := split(name)) and part.kind]
    return 2 * len(parts) > len(tensors)


def describe_lora(source: FileSource) -> dict[str, Any]:
    """Dialect, family, ranks, alphas, scales and modules of a LoRA file, and its hash."""
    path = source.files[0]
    sha256 = file_sha256(path)
    facts = {"kind": "lora", **_common(source.label, source.files, source.tensors), "sha256": sha256}
    facts |= {"dialect": identify(source.tensors), "metadata": dict(source.metadata)}
    try:
        lora = LoRAFile(source, source.label, sha256, source.metadata)
    except FoundryError as error:
        return {**facts, "findings": [error.finding(source.label).to_json()]}
    adapters = lora.adapters
    return {
        **facts,
        "family": lora.info.family,
        "modules": len(lora.modules),
        "text_encoder": len(lora.text_encoder),
        "rank": _range([adapter.rank for adapter in adapters]),
        "alpha": _range([adapter.alpha for adapter in adapters if adapter.alpha is not None]),
        "scale": _range([adapter.scale for adapter in adapters]),
        "findings": [finding.to_json() for finding in lora.findings],
    }


def describe_base(model: Checkpoint) -> dict[str, Any]:
    """Family, prefix and quantization of a base model, and the recipe in it when this pack made it."""
    everything = model.source.tensors
    return {
        "kind": "base",
        **_common(model.label, model.files, everything),
        "family": detect_base(model.tensors),
        "prefix": model.prefix,
        "other_tensors": len(everything) - len(model.tensors),
        "quantized": model.quantized,
        "fingerprint": fingerprint(model),
        "made_by": _recipe(model.metadata),
        "metadata": dict(model.metadata),
        "findings": [],
    }


def _common(label: str, files: tuple[Path, ...], tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    dtypes = Counter(str(info.dtype).removeprefix("torch.") for info in tensors.values())
    return {
        "file": label,
        "files": [str(file) for file in files],
        "bytes": sum(file.stat().st_size for file in files),
        "tensors": len(tensors),
        "dtypes": dict(dtypes.most_common()),
    }


def _range(values: list[Any]) -> list[Any] | None:
    return [min(values), max(values)] if values else None


def _recipe(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The record this pack writes into its results; None when there is none, or when someone damaged it."""
    try:
        record = json.loads(metadata.get("lora_foundry", "null"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("recipe"), dict) else None
