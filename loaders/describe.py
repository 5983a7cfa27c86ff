"""What a file is, as plain data: a LoRA or a base model, told from its header and a few small tensors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..engine.errors import FoundryError
from ..engine.plan import Adapter
from ..engine.tensors import TensorInfo
from .alphas import is_dense
from .building import SCALED
from .checkpoints import Checkpoint, FileSource, fingerprint, open_checkpoint
from .dialects import adapter_parts, identify
from .families import detect_base, variant_of_lora
from .hashes import file_sha256
from .layouts import layout
from .lora import LoRAFile
from .roles import by_block, guess_role, tell_training
from .shards import INDEX

LINEAGE = "lineage"
MAX_RECORD = 1 << 20


def describe(path: Path) -> dict[str, Any]:
    """Facts about a LoRA or a base model (a file, an index, a folder of shards); ``kind`` says which of the two.

    A LoRA that cannot be used is described all the same, with the reason in ``findings``. Raises FoundryError ``file``
    for what is missing, damaged or no safetensors.
    """
    if path.is_dir() or path.name.endswith(INDEX):
        return describe_base(open_checkpoint(path))
    source = FileSource(path)
    if adapter_parts(source.tensors):
        return describe_lora(source)
    return describe_base(open_checkpoint(path))


def describe_lora(source: FileSource) -> dict[str, Any]:
    """Everything a LoRA file tells of itself, and its hash; a role is a guess, what its metadata says are claims."""
    path = source.files[0]
    sha256 = file_sha256(path)
    found = layout(source.tensors)
    facts = {"kind": "lora", **_common(source.label, source.files, source.tensors), "sha256": sha256}
    facts |= {"dialect": identify(source.tensors), "layout": found.name if found else None}
    facts |= {"writers": found.writers if found else None, **tell_training(source.metadata)}
    facts |= {"lineage": _lineage(path, source.metadata), "metadata": dict(source.metadata)}
    try:
        lora = LoRAFile(source, source.label, sha256, source.metadata, path)
    except FoundryError as error:
        return {**facts, "findings": [error.finding(source.label).to_json()]}
    return {**facts, **_adapter_facts(lora), "findings": [finding.to_json() for finding in lora.findings]}


def _adapter_facts(lora: LoRAFile) -> dict[str, Any]:
    adapters = lora.adapters
    scaled = [adapter for adapter in adapters if adapter.kind in SCALED and not is_dense(adapter)]
    role = guess_role(lora.info.name, lora.metadata, adapters)
    return {
        "role": role.role,
        "role_why": role.why,
        "role_evidence": role.evidence,
        "family": lora.info.family,
        "variant": variant_of_lora(lora.shapes, lora.info.family),
        "modules": len(lora.modules),
        "text_encoder": len(lora.text_encoder),
        "adapters": dict(Counter(_kind(adapter) for adapter in adapters).most_common()),
        "blocks": by_block(lora.modules),
        "rank": _range([adapter.rank for adapter in scaled]),
        "alpha": _range([adapter.alpha for adapter in scaled if adapter.alpha is not None]),
        "alpha_from": dict(lora.alpha_sources),
        "scale": _range([adapter.scale for adapter in scaled]),
        "unused": list(lora.unused),
    }


def _kind(adapter: Adapter) -> str:
    """``lora``, ``lora + magnitude`` (DoRA), ``diff of bias`` ..."""
    extra = [part for part, _ in adapter.parts if part in ("mid", "magnitude", "reshape")]
    target = next((name for name in ("bias", "modulation", "scale") if adapter.module.endswith(f".{name}")), "")
    return " + ".join([adapter.kind, *extra]) + (f" of {target}" if target else "")


def _lineage(path: Path, metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The record of what it was trained with, from the file beside it or from its header; None when there is none."""
    texts = [metadata.get(LINEAGE, "")]
    for beside in (path.with_name(f"{path.name}.{LINEAGE}.json"), path.with_suffix(f".{LINEAGE}.json")):
        with suppress(OSError, UnicodeDecodeError), beside.open(encoding="utf-8") as file:
            texts.insert(0, file.read(MAX_RECORD))
    for text in texts:
        with suppress(ValueError, RecursionError):
            record = json.loads(text)
            if isinstance(record, dict):
                return record
    return None


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
