"""What a file is, as plain data: a LoRA or a base model, told from its header and a few small tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...engine.errors import FoundryError
from ...engine.findings import EVIDENCE
from ...engine.json_merge import MERGE_KEY
from ...engine.json_verbs import AdaptersJSON, FactsJSON, InspectedBaseJSON, InspectedLoRAJSON
from ...engine.lineage import UNKNOWN, Lineage
from ...engine.plan import Adapter
from ...engine.smoothed import PRE_QUANT_SCALE
from ...engine.texts.say import say
from ..bases.checkpoint import Checkpoint, is_lora, open_model
from ..bases.families import detect_base, variant_of_lora
from ..disk.source import FileSource, base_fingerprint
from ..lineage.contents import made_by
from ..lineage.identity import identify_file
from ..lineage.provenance import lineage_of, lineage_of_lora
from ..lineage.record import lineage_json
from ..loras.alphas import has_rank
from ..loras.file import LoRAFile
from ..loras.layouts import layout
from ..loras.roles import Role, by_block, guess_role, tell_training
from ..names.dialects import identify
from ..remote.fetching import Fetched, at_hand
from ..remote.names import Remote, Where
from ..remote.objects import ANYTHING, Asking
from ..remote.source import RemoteSource

MERGED_HERE = "LoRA Foundry (merge)"  # in the layout of whoever else writes it so


def describe(where: Where, asking: Asking = ANYTHING) -> InspectedLoRAJSON | InspectedBaseJSON:
    """Facts about a LoRA or a base model (a file, an index, a folder of shards); ``kind`` says which of the two.

    Of a base elsewhere header and edges are read, a LoRA is loaded. A LoRA that cannot be used is described all the
    same, with the reason in ``findings``. Raises FoundryError ``file`` or ``remote`` for what is missing, damaged or no
    safetensors.
    """
    address = where.url if isinstance(where, Remote) else ""
    if is_lora(where, asking):
        return describe_lora(at_hand(where, asking), address)
    return describe_base(open_model(where, asking), address)


def describe_lora(file: Fetched, address: str = "") -> InspectedLoRAJSON:
    """Everything a LoRA file tells of itself, its hash and its lineage; what its metadata says are claims."""
    path, source = file.path, FileSource(file.path, label=file.name)
    sha256 = identify_file(path).sha256
    lora, error = _opened(source, sha256, path)
    lineage = lineage_of_lora(lora) if lora else lineage_of(path)
    found = lora.findings if lora else [error.finding(source.label)] if error else []
    findings = [*file.notes, *found]
    about: AdaptersJSON = _adapter_facts(lora, role_of(lora, lineage)) if lora else {}
    written = layout(source.tensors)
    return {
        "kind": "lora",
        **common_facts(source, address),
        "sha256": sha256,
        "dialect": identify(source.tensors),
        "layout": written.name if written else None,
        "writers": MERGED_HERE if MERGE_KEY in source.metadata else written.writers if written else None,
        **tell_training(source.metadata),
        "lineage": lineage_json(lineage),
        **about,
        "findings": [finding.to_json() for finding in findings],
    }


def _opened(source: FileSource, sha256: str, path: Path) -> tuple[LoRAFile | None, FoundryError | None]:
    """The file as a LoRA, or why it cannot be used as one."""
    try:
        return LoRAFile(source, source.label, sha256, source.metadata, path), None
    except FoundryError as error:
        return None, error


def role_of(lora: LoRAFile, lineage: Lineage) -> Role:
    """What its lineage says it is for, unless nobody does; else a guess by signs."""
    return _better(lineage, guess_role(lora.info.name, lora.metadata, lora.adapters))


def _better(lineage: Lineage, guess: Role) -> Role:
    role, level = lineage.role
    if role == UNKNOWN or EVIDENCE.index(level) > EVIDENCE.index(guess.evidence):
        return guess
    saying = (each.evidence.source for each in lineage.claims if (each.role, each.evidence.level) == (role, level))
    known = lineage.accelerator.why if lineage.accelerator else ""
    return Role(role, next(saying, known), level)


def role_at(path: Path | None, name: str, lineage: Lineage) -> Role:
    """``role_of`` the LoRA in a file; of one that is not there or cannot be used, by its name as by its lineage."""
    try:
        if path is not None:
            source = FileSource(path)
            return role_of(LoRAFile(source, path.name, "", source.metadata, path), lineage)
    except FoundryError:  # told where it is used
        pass
    return _better(lineage, guess_role(re.split(r"[\\/]", name)[-1], {}, ()))


def _adapter_facts(lora: LoRAFile, role: Role) -> AdaptersJSON:
    adapters = lora.adapters
    scaled = [adapter for adapter in adapters if has_rank(adapter)]
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
        "rank": span_of([adapter.rank for adapter in scaled]),
        "alpha": span_of([adapter.alpha for adapter in scaled if adapter.alpha is not None]),
        "alpha_from": dict(lora.alpha_sources),
        "scale": span_of([adapter.scale for adapter in scaled]),
        "unused": list(lora.unused),
    }


def _kind(adapter: Adapter) -> str:
    """``lora``, ``lora + magnitude`` (DoRA), ``diff of bias`` ..."""
    extra = [part for part, _ in adapter.parts if part in ("mid", "magnitude", "reshape")]
    target = next((name for name in ("bias", "modulation", "scale") if adapter.module.endswith(f".{name}")), "")
    return " + ".join([adapter.kind, *extra]) + (f" of {target}" if target else "")


def describe_base(model: Checkpoint, address: str = "") -> InspectedBaseJSON:
    """Family, prefix and quantization of a base model, and the recipe in it when this pack made it."""
    everything, how = model.source.tensors, model.quantized
    told = common_facts(model.source, address)
    if how and PRE_QUANT_SCALE in how:
        told["findings"] = [say("LF201.no_lora", subject=model.label, base=model.label, quantized=how).to_json()]
    return {
        "kind": "base",
        **told,
        "family": detect_base(model.tensors),
        "prefix": model.prefix,
        "other_tensors": len(everything) - len(model.tensors),
        "quantized": how,
        "fingerprint": base_fingerprint(model),
        "made_by": made_by(model.metadata),
    }


def common_facts(source: FileSource | RemoteSource, address: str = "") -> FactsJSON:
    """What is told of every file, by its name for people; ``address``: where it comes from, if that is elsewhere."""
    dtypes = Counter(str(info.dtype).removeprefix("torch.") for info in source.tensors.values())
    files = [address] if address and source.files else [str(file) for file in source.files]
    nbytes = sum(file.stat().st_size for file in source.files)
    if isinstance(source, RemoteSource):
        files, nbytes = source.addresses, source.nbytes
    return {
        "file": source.label,
        "files": files,
        "bytes": nbytes,
        "tensors": len(source.tensors),
        "dtypes": dict(dtypes.most_common()),
        "metadata": dict(source.metadata),
        "findings": [],
    }


def span_of(values: Sequence[float]) -> list[float] | None:
    """The least and the most of some values; None where there are none."""
    return [min(values), max(values)] if values else None
