"""What is known of the files a workflow names: from their headers and records where they are found, else from names.

A file that cannot be read becomes a finding, never an exception: a workflow is checked as far as it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...engine.adapters import KINDS, MAGNITUDE
from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.lineage import GUESSED, NOTHING_KNOWN, Contained, Ingredient, Lineage, plain_name
from ...engine.texts.say import say
from ...validator.named import Variant, variant_by_name, variant_of
from ..bases.checkpoint import Checkpoint, is_code, open_checkpoint
from ..bases.dequantize import SCALES
from ..bases.families import detect_base, variant_of_base
from ..disk.header import read_header
from ..disk.process import PROCESS
from ..lineage.accelerators import known_name
from ..lineage.contents import contained_in
from ..loras.file import open_lora
from ..names.dialects import ALPHA, split
from ..remote.fetching import cached
from ..remote.names import is_remote, parse_remote
from ..workflows.node_kinds import LORAS
from ..workflows.trail import Applied, Source
from .alike import by_plain_name, has_ending, most_alike, stem

Find = Callable[[str, str], Path | None]  # (kind of folder, name) -> the file, None: it is not there
LineageOf = Callable[[Path], Lineage]
# (a base, a LoRA) -> LF305 of it under a name, at a strength
LoudnessOf = Callable[[Path, Path], Callable[[str, float], Sequence[Finding]]]
# A scale that the file's own header contradicts: so it is wherever it goes.
CONTRADICTED = ("LF305.dense_noted", "LF305.split_qkv", "LF305.noted")


@dataclass(frozen=True)
class LoraFacts:
    """What is known of a LoRA. ``dependent``: what it does depends on the weights below it."""

    lineage: Lineage = NOTHING_KNOWN
    dependent: bool = False
    findings: tuple[Finding, ...] = ()


@runtime_checkable
class Lists(Protocol):
    """A ``Find`` that can also say what is there."""

    def names(self, kind: str) -> Iterable[str]:
        """The names in a kind of folder."""


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base. ``quantized`` is how its file stores it, ``scaled`` whether as fp8 with scales; ``seen``
    whether that was looked at.
    """

    family: str | None = None
    quantized: str | None = None
    contains: tuple[Contained, ...] = ()
    findings: tuple[Finding, ...] = ()
    seen: bool = False
    scaled: bool = False
    variant: Variant = Variant()


class Files:
    """The files of one check. Each is looked at once; without ``find`` there are only names."""

    def __init__(
        self, find: Find | None, lineage_of: LineageOf | None = None, loudness_of: LoudnessOf | None = None
    ) -> None:
        self._find, self._lineage_of = find, lineage_of
        self.lora = cache(self._lora)
        self.base = cache(self._base)
        self._by_name = cache(known_name)
        self._path = cache(self._looked_for)
        self._known = cache(self._read)
        self._loudness = cache(loudness_of) if loudness_of else None
        self._plain_names = cache(self._listed)

    def spelled(self, name: str, loose: bool) -> str:
        """The name by which a LoRA is listed, where one is written without its folder and ending."""
        found = self._find is not None and loose and not is_remote(name) and self._find(LORAS, name) is None
        return (self._near(LORAS, name) if found else "") or name

    def is_missing(self, name: str) -> bool:
        """Whether a LoRA was looked for and is not there; elsewhere none is looked for."""
        return self._find is not None and not is_remote(name) and self._path(LORAS, name) is None

    def path(self, name: str) -> Path | None:
        """The file of a LoRA, where it was looked for and found."""
        return self._path(LORAS, name)

    def loud(self, source: Source, applied: Applied) -> Iterator[Finding]:
        """LF305 of a LoRA on the base of its model, as far as that is known of both files; without block weights."""
        row, base = applied.row, self._base_path(source)
        path = self._path(LORAS, row.name, row.loose)
        if self._loudness is not None and base is not None and path is not None and row.strength and not row.blocks:
            for each in self._loudness(base, path)(row.name, row.strength):
                yield replace(each, node=applied.node)

    def _base_path(self, source: Source) -> Path | None:
        return next((found for kind in source.folders if (found := self._path(kind, source.name))), None)

    def _lora(self, applied: Applied) -> LoraFacts:
        name = applied.row.name
        path = self._path(LORAS, name, applied.row.loose)
        if path is None:
            missing = tuple(self._missing(applied, (LORAS,)))
            return LoraFacts(Lineage(accelerator=self._by_name(name)), False, missing)
        known = self._known(path)
        if isinstance(known, FoundryError):
            bad = unreadable(known, name, applied.node, ours=not applied.native)
            return LoraFacts(Lineage(accelerator=self._by_name(name)), False, (bad,))
        lineage, depends = known
        if lineage is None or (is_remote(name) and lineage.accelerator is None):  # its copy here has another name
            lineage = replace(lineage or Lineage(), accelerator=self._by_name(name))
        told = _contradicted(path) if applied.row.strength else ()
        return LoraFacts(lineage, depends, tuple(replace(each, subject=name, node=applied.node) for each in told))

    def _read(self, path: Path) -> tuple[Lineage | None, bool] | FoundryError:
        """(what is known of a LoRA file, whether it depends on the weights below it), or why that cannot be told."""
        try:
            return self._lineage_of(path) if self._lineage_of else None, _depends(path)
        except FoundryError as error:
            return error

    def _base(self, source: Source) -> BaseFacts:
        if not source.name:
            return BaseFacts()
        path = self._base_path(source)
        known = self._by_name(source.name)
        guessed = (Contained(Ingredient(known.name), GUESSED, "its file name", known),) if known else ()
        if path is None:
            missing = tuple(self._missing(source, source.folders))
            return BaseFacts(contains=guessed, findings=missing, variant=variant_by_name(source.name))
        try:
            checkpoint = open_checkpoint(path)
            family = detect_base(checkpoint.tensors)
            variant = variant_of(source.name, variant_of_base(checkpoint.tensors, family))
            inside = contained_in(checkpoint) or guessed
            return BaseFacts(family, checkpoint.quantized, inside, (), True, _has_scales(checkpoint), variant)
        except FoundryError as error:
            bad = unreadable(error, source.name, source.node, source.ours)
            return BaseFacts(contains=guessed, findings=(bad,))

    def _looked_for(self, kind: str, name: str, loose: bool = False) -> Path | None:
        if is_remote(name):
            return _here(name)
        if self._find is None:
            return None
        found = self._find(kind, name)
        if found is None and loose:
            alike = (each for each in self._alike(kind, name) if stem(each) == stem(name))
            found = self._find(kind, near) if (near := next(alike, "")) else None
        return found

    def _near(self, kind: str, name: str) -> str:
        """What is there under the same plain name, of several the most alike; empty when nothing is."""
        return most_alike(self._alike(kind, name), name)

    def _alike(self, kind: str, name: str) -> list[str]:
        return self._plain_names(kind).get(plain_name(name), [])

    def _listed(self, kind: str) -> dict[str, list[str]]:
        return by_plain_name(self._find.names(kind) if isinstance(self._find, Lists) else ())

    def _missing(self, wanted: Applied | Source, folders: tuple[str, ...]) -> Iterator[Finding]:
        """LF306, where it was looked for; names that need not be whole can only be checked against a list."""
        name, loose = (wanted.row.name, wanted.row.loose) if isinstance(wanted, Applied) else (wanted.name, False)
        blind = loose and not self._plain_names(LORAS)
        if self._find is None or not folders or blind or is_remote(name) or name.lower().endswith(".gguf"):
            return
        near = next((found for kind in folders if (found := self._near(kind, name))), "")
        if loose and not has_ending(name):
            near = stem(near)  # a name without its ending may be looked for as it is written
        key = "LF306.near" if near else "LF306.missing"
        where = " or ".join(folders)
        at = (isinstance(wanted, Applied) and wanted.row.at) or wanted.node  # where the name is to be changed
        yield say(key, subject=name, node=wanted.node, name=name, at=at, folder=where, near=near)


def _here(name: str) -> Path | None:
    """The copy of a file from elsewhere that is here already: a check loads nothing."""
    try:
        return cached(parse_remote(name))
    except FoundryError:
        return None


def _has_scales(checkpoint: Checkpoint) -> bool:
    """Whether all codes of a file are fp8, and scales stand beside them."""
    codes = [info.dtype for info in checkpoint.tensors.values() if is_code(info)]
    scales = any(name.endswith(SCALES) for name in checkpoint.tensors)
    return bool(codes) and scales and all(dtype.is_floating_point for dtype in codes)


def unreadable(error: FoundryError, subject: str, node: str, ours: bool) -> Finding:
    """An error as a finding: what our nodes cannot read stops them, a native loader may still know the file."""
    return error.finding(subject, "error" if ours else "note", node)


def _contradicted(path: Path) -> tuple[Finding, ...]:
    """LF305 where a file's header says another scale than its factors have; by their header most files cannot."""
    try:
        header = read_header(path)
        whole = {name.rpartition(".")[2] for name in header.tensors} >= {"lokr_w1", "lokr_w2"}
        unstated = not any(name.endswith(f".{ALPHA}") for name in header.tensors)
        odd = whole or unstated or "split_qkv" in header.metadata.get("ss_network_args", "")
        if not odd or "ss_network_alpha" not in header.metadata:
            return ()
        state = header.size, header.mtime_ns
        known: tuple[Finding, ...] | None = PROCESS.files.get("contradicted", path, state)
        if known is None:  # alphas are read, no factors
            told = tuple(finding for finding in open_lora(path).findings if finding.text in CONTRADICTED)
            known = PROCESS.files.put(told, "contradicted", path, state)
        return known
    except FoundryError:  # whether it can be used is not asked here
        return ()


def _depends(path: Path) -> bool:
    """Whether the header shows an adapter whose effect depends on the weight it goes to (DoRA, OFT, set ...)."""
    parts = [part for name in read_header(path).tensors if (part := split(name))]
    kinds = {part.kind for part in parts} & KINDS.keys()
    return any(part.part == MAGNITUDE for part in parts) or any(KINDS[kind].needs_weight for kind in kinds)
