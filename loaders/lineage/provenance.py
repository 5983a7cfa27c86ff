"""What is known of a LoRA's training, collected from every source there is; each source makes claims of its own.

The store (what people told us), the file's own header, the files beside it, the registry of known accelerators. What
lies inside a base is in ``contents.py``. Nothing is decided here: which claim counts is the engine's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...engine.errors import FoundryError
from ...engine.lineage import (
    DERIVED,
    GUESSED,
    KNOWN_ID,
    LINEAGE_KEY,
    TENSORS_ID,
    UNKNOWN,
    Accelerator,
    Claim,
    Contained,
    Evidence,
    Ingredient,
    Lineage,
    Sketch,
)
from ...engine.texts.say import refuse
from ..disk.header import read_header, regular_file, shown
from ..disk.process import PROCESS
from ..evidence.claims import checked
from ..evidence.configs import parse_json as parse_config
from ..evidence.configs import read_config
from ..evidence.reading import beside
from ..loras.file import LoRAFile, open_lora
from . import store as lineages
from .accelerators import known_as, known_name, recognise, recognise_fingerprint
from .contents import recognised
from .fingerprints import lora_fingerprint
from .identity import identify_file
from .record import MAX_RECORD, Record, parse_json, parse_record
from .registry import registry, registry_fault, users_file

# Where a record may stand, which is told before its source; a file of records may stand beside a LoRA.
HEADER, SIDECAR = "its header", "its lineage file"
SIDECARS = ("{0.name}.lineage.json", "{0.stem}.lineage.json")
# What the names of ready-made models carry beside the name of the LoRA that was fused into them.
NOISE = re.compile(r"[-_ .]?(?:fp8|fp16|bf16|e4m3fn|e5m2|scaled|fused|merged|comfyui)(?=[-_ .]|$)", re.IGNORECASE)
CONFIG = "ot_config"
COMMENTS = ("ss_training_comment", "modelspec.description", "modelspec.comment")
TRAINED_ON = re.compile(
    r"(?<!not )\btrained (?:on top of|on|with|over) (?:the )?(.{3,80}?)(?:[,;!]|\.(?:\s|$)|$)", re.IGNORECASE
)


def lineage_of(path: Path, name: str = "") -> Lineage:
    """Everything that is known of a LoRA file; a file that cannot be used as a LoRA has a lineage all the same.

    ``name``: what it is called where it comes from, if that is elsewhere; names tell something of known LoRAs.
    The file is hashed once, seconds for a large one; what was collected is kept until the file, a file beside it or a
    record changes. Raises FoundryError ``file`` for a missing or damaged file.
    """
    return _lineage_of(path, name, lambda: _opened(path))


def lineage_of_lora(lora: LoRAFile) -> Lineage:
    """The same for an open LoRA; one that is no file has what its metadata says."""
    if lora.path is None:
        return _collect(lora.info.name, (), (), lora.metadata, lora)
    name = "" if Path(lora.info.name).name == lora.path.name else lora.info.name
    return _lineage_of(lora.path, name, lambda: (lora.metadata, lora))


def lineage_at_sight(lora: LoRAFile) -> Lineage:
    """What an open LoRA and the files beside it tell without its tensors: by name, metadata and structure."""
    near = beside(lora.path) if lora.path else ()
    name = f"{lora.path.absolute().parent.name}/{lora.path.name}" if lora.path else lora.info.name
    known = recognise(name, (), lora.metadata, lora.adapters)
    claims = _once(near, tuple(_from_training(lora.metadata)), tuple(_from_config(lora.metadata)))
    return Lineage((), tuple(claim.naming(known_as) for claim in claims), known)


def _lineage_of(path: Path, name: str, opened: Callable[[], tuple[Mapping[str, str], LoRAFile | None]]) -> Lineage:
    identity = identify_file(path)
    name = name or f"{path.absolute().parent.name}/{path.name}"
    near = beside(path, identity.sha256)
    places = (path, lineages.find_place(identity.ids), users_file(), *_sidecars(path))
    state = (identity, name, near, *map(_stamp, places))
    lineage: Lineage | None = PROCESS.files.get("lineage", path.absolute(), state)
    if lineage is None:
        near = (*_in_sidecars(path, identity.ids), *near)
        lineage = _collect(name, identity.ids, near, *opened())
        PROCESS.files.put(lineage, "lineage", path.absolute(), state)
    return lineage


def _opened(path: Path) -> tuple[Mapping[str, str], LoRAFile | None]:
    try:
        lora = open_lora(path)
    except FoundryError:
        return read_header(path).metadata, None
    return lora.metadata, lora


def _stamp(path: Path | None) -> tuple[int, ...]:
    """What changes when a file does; nothing where there is none."""
    try:
        state = regular_file(path) if path else None
    except FoundryError:
        state = None
    return (state.st_size, state.st_mtime_ns, state.st_ino) if state else ()


def _collect(
    name: str, ids: tuple[str, ...], near: tuple[Claim, ...], metadata: Mapping[str, str], lora: LoRAFile | None
) -> Lineage:
    known, faults = _recognised(name, ids, metadata, lora)
    header = tuple(_recorded(metadata.get(LINEAGE_KEY, ""), HEADER, ids))
    trained = (*_from_training(metadata), *_from_config(metadata))
    claims = _once(lineages.load(ids), header, near, trained, faults)
    # with the registry's id on every LoRA they name, so that two spellings of one can be seen to be one
    inside = tuple(map(recognised, _merged(metadata.get(LINEAGE_KEY, ""), ids)))
    return Lineage(ids, tuple(claim.naming(known_as) for claim in claims), known, _sketch(lora), inside)


def _merged(text: str, ids: tuple[str, ...]) -> tuple[Contained, ...]:
    """The LoRAs a merged file says are inside it; a record that was copied into another file says nothing of that."""
    with suppress(FoundryError):
        record = parse_record(parse_json(text if len(text) <= MAX_RECORD else "", HEADER), HEADER)
        return record.contains if _is_own(record, ids) else ()
    return ()


def _is_own(record: Record, ids: tuple[str, ...]) -> bool:
    hash = record.hash_of(TENSORS_ID)
    return hash is not None and f"{TENSORS_ID}{hash}" in ids


def _sketch(lora: LoRAFile | None) -> Sketch:
    """What the LoRA is recognised by when it was saved again; none of a file that cannot be read to its end."""
    try:
        return lora_fingerprint(lora).sketch() if lora and lora.adapters else ()
    except FoundryError:
        return ()


def _once(*sources: tuple[Claim, ...]) -> list[Claim]:
    """The claims of all sources, without what an earlier one has: a stamped file and the store say the same."""
    claims: list[Claim] = []
    for source in sources:
        told = {unpacked(claim.evidence) for claim in claims}
        claims += [claim for claim in source if unpacked(claim.evidence) not in told]
    return claims


def _recognised(
    name: str, ids: tuple[str, ...], metadata: Mapping[str, str], lora: LoRAFile | None
) -> tuple[Accelerator | None, tuple[Claim, ...]]:
    """The registry's entry for a file; what of it cannot be read is told as a claim that says nothing else."""
    fault = registry_fault()
    partly = "a part of the registry of accelerators is not used"
    told = (Claim(Evidence(UNKNOWN, partly, fault.what)),) if fault else ()
    known = recognise(name, ids, metadata, lora.adapters if lora else ())
    if lora and (known is None or known.level != DERIVED) and any(e.fingerprints for e in registry()):
        with suppress(FoundryError):  # a file that cannot be read to its end, which others tell
            known = recognise_fingerprint(lora_fingerprint(lora)) or known
    return known, told


def _sidecars(path: Path) -> list[Path]:
    return [path.with_name(name.format(path)) for name in SIDECARS]


def _in_sidecars(path: Path, ids: tuple[str, ...]) -> Iterator[Claim]:
    for place in _sidecars(path):
        with suppress(FoundryError, OSError):  # there is none, or none to be had
            regular_file(place)
            with place.open("rb") as file:
                yield from _recorded(file.read(MAX_RECORD + 1).decode("utf-8", "replace"), SIDECAR, ids)


def _recorded(text: str, where: str, ids: tuple[str, ...]) -> Iterator[Claim]:
    """The record in the file's header or beside it. Tools copy both, so its hash must be that of the file."""
    if not text:
        return
    try:
        if len(text) > MAX_RECORD:
            raise refuse("lineage.long", most=MAX_RECORD)
        record = parse_record(parse_json(text, where), where)
    except FoundryError as error:
        yield Claim(Evidence(UNKNOWN, f"the record in {where} is not used", error.what))
        return
    own = _is_own(record, ids)
    for claim in record.claims:
        told = claim.evidence
        told = replace(told, source=f"{where}: {told.source}") if own else _copied(told, record, where)
        yield replace(claim, evidence=told)


def unpacked(evidence: Evidence) -> Evidence:
    """Evidence as it stood before it went into a header or a file beside it."""
    source = evidence.source
    for where in (HEADER, SIDECAR):
        source = source.removeprefix(f"{where}: ")
    return replace(evidence, source=source)


def _copied(evidence: Evidence, record: Record, where: str) -> Evidence:
    """What a record of another file says is no more than a hint, and never more than that file's word."""
    level = UNKNOWN if evidence.level == UNKNOWN else GUESSED
    whose = f"of another file, {record.name}" if record.hash_of(TENSORS_ID) else "of no certain file"
    return replace(evidence, level=level, source=f"a record in {where} that is {whose}: {evidence.source}")


def _from_training(metadata: Mapping[str, str]) -> Iterator[Claim]:
    """Names in the training metadata that the registry knows: a base with an accelerator inside, or a comment."""
    named = [("ss_sd_model_name", metadata.get("ss_sd_model_name", ""))]
    for key in COMMENTS:
        named += [(key, found[1].strip()) for found in TRAINED_ON.finditer(metadata.get(key, "")[:2000])]
    for key, text in named:
        if known := known_name(NOISE.sub("", text)):
            quote = shown(text, 200)
            ingredient = Ingredient(quote, (f"{KNOWN_ID}{known.id}",) if known.id else ())
            yield Claim(Evidence(GUESSED, f"'{key}' in its metadata", quote), (ingredient,))


def _from_config(metadata: Mapping[str, str]) -> Iterator[Claim]:
    """OneTrainer writes its whole config into the file."""
    text, where = metadata.get(CONFIG, ""), f"'{CONFIG}' in its metadata"
    with suppress(FoundryError):
        config = parse_config(checked(text, where), where) if text else None
        if isinstance(config, dict):
            yield from (statement.claim for statement in read_config(config, where))
