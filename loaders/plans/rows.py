"""What a row of a stack tells of its LoRA before a run, and how it fits a base: from headers, nothing is hashed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from ...engine.lineage import Lineage
from ...engine.plan import Base
from ...validator.use import usual_strength
from ..bases.checkpoint import open_checkpoint
from ..bases.families import detect_base, differ
from ..disk.header import disk_errors
from ..disk.source import FileSource
from ..evidence.triggers import trigger_words
from ..lineage.provenance import lineage_at_sight
from ..loras.alphas import has_rank
from ..loras.file import LoRAFile
from ..loras.matching import match
from ..loras.previews import find_preview
from ..names.blocks import each_block, parse_blocks
from ..names.lookup import BaseNames
from .describe import role_of, span_of

FITS, PART, OTHER = "fits", "part", "other"  # all modules of a LoRA, some, or it is for another model


def row_facts(path: Path, base: Path | None = None, lineage: Lineage | None = None) -> dict[str, Any]:
    """Role, rank, alpha, parts, trigger words and recommended strengths of a LoRA file, and whether it has a preview.

    ``matched`` and ``fit`` where a base is given. ``lineage`` is what is known of a file that was hashed before;
    without one it is what can be told at sight. A LoRA that cannot be used has ``error``, one sentence, and
    ``refused``, the same as data. Raises FoundryError ``file`` for a base that cannot be read.
    """
    try:
        source = FileSource(path)
        lora = LoRAFile(source, path.name, "", source.metadata, path)
    except FoundryError as error:
        return {"error": str(error), "refused": error.to_json()}
    known = lineage or lineage_at_sight(lora)
    role = role_of(lora, known)
    scaled = [adapter for adapter in lora.adapters if has_rank(adapter)]
    facts: dict[str, Any] = {"role": role.role, "role_why": role.why, "role_evidence": role.evidence}
    facts |= {"family": lora.info.family, "rank": span_of([adapter.rank for adapter in scaled])}
    facts |= {"alpha": span_of([adapter.alpha for adapter in scaled if adapter.alpha is not None])}
    facts |= {"modules": len(lora.modules), "text_encoder": len(lora.text_encoder)}
    facts |= {"trigger_words": ", ".join(trigger_words(path, lora.metadata)) or None}
    facts |= {"hashed": lineage is not None, "recommended": usual_strength(known)}
    facts |= {"preview": find_preview(path, lora.metadata) is not None}
    return facts if base is None else {**facts, **_fit(lora, base)}


def _fit(lora: LoRAFile, path: Path) -> dict[str, Any]:
    base, names = _base(path, *_state(path))
    found = match(base, lora, names, parse_blocks("", base.family))
    matched = len(lora.modules) - len({*found.nameless, *found.misfits})
    fit = FITS if matched == len(lora.modules) else PART
    if not matched or found.misfits or differ(base.family, lora.info.family):  # a run would refuse it
        fit = OTHER
    return {"base": path.name, "base_family": base.family, "matched": matched, "fit": fit}


def _state(path: Path) -> tuple[int, int]:
    """Time and size of a base; FoundryError ``file`` for one that went since it was looked up."""
    with disk_errors(path):
        state = path.stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=4)
def _base(path: Path, mtime: int, size: int) -> tuple[Base, BaseNames]:
    """The header of a base, for all rows that are asked about while the file stays as it is."""
    source = open_checkpoint(path)
    base = Base(path.name, detect_base(source.tensors), source, source.quantized)
    return base, BaseNames(source.tensors, base.family)


def block_facts(path: Path, text: str) -> dict[str, Any]:
    """Every block of a base in its order and the factor that a text gives it; ``text_encoder`` is the one for CLIP.

    A text without a meaning for this base has ``error``, one sentence, ``refused``, the same as data, and factors of 1.
    Raises FoundryError ``file``.
    """
    base, _ = _base(path, *_state(path))
    told: dict[str, Any] = {"error": ""}
    try:
        weights = parse_blocks(text, base.family)
        weights.require(base.source.tensors)
    except FoundryError as refused:
        weights, told = parse_blocks("", base.family), {"error": str(refused), "refused": refused.to_json()}
    blocks = [[name, weights.of(name)] for name in each_block(base.source.tensors, base.family)]
    return {"family": base.family, "blocks": blocks, "text_encoder": weights.text, **told}
