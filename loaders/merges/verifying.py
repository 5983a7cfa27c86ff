"""The proof of a merged file worked out again, from the file and its inputs alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from ...engine.json_merge import MERGE_KEY, MergeHeaderJSON, ProofJSON, VerifiedJSON
from ...engine.merge.deltas import Delta
from ...engine.merge.fold import Stored
from ...engine.merge.parts import modules_of, read_parts
from ...engine.merge.proof import Proof, Sums, measure
from ...engine.progress import Progress
from ...engine.texts.say import refuse
from ..disk.hashes import file_sha256
from ..disk.header import read_header
from ..loras.file import open_lora
from ..remote.names import Where
from ..remote.objects import ANYTHING, Asking
from .matching import Matched, Wanted, match_all
from .merging import Request, gather
from .record import proof_json

CLOSE = 1e-6  # of errors and shares that are worked out again; the file's own have six digits
Find = Callable[[str, str], Path | None]  # name, sha256 -> the file


@dataclass(frozen=True, eq=False)
class Verified:
    """The proof as it is now, as the file states it, and whether the two agree."""

    proof: Proof
    stated: ProofJSON | None

    @property
    def agrees(self) -> bool:
        """Whether error and shares are what the file says; one that says none, or no numbers, does not agree."""
        stated: Any = self.stated  # of a file: anything
        try:
            told = [stated["error"], *(each["share"] for each in stated["shares"])]
            found = [self.proof.total.error, *self.proof.total.shares]
            return all(_close(one, other) for one, other in zip(told, found, strict=True))
        except (KeyError, TypeError, ValueError, OverflowError):
            return False

    def to_json(self) -> VerifiedJSON:
        """As plain data."""
        return {"agrees": self.agrees, "proof": proof_json(self.proof)}


def stated_in(path: Path) -> MergeHeaderJSON | None:
    """What a merged file tells of its merge: ``recipe``, ``recipe_sha256`` and ``proof``; None for any other file."""
    try:
        told = json.loads(read_header(path).metadata.get(MERGE_KEY, "null"))
    except (ValueError, RecursionError):
        return None
    fits = _has(told, MergeHeaderJSON) and _has(told["proof"], ProofJSON)
    return cast(MergeHeaderJSON, told) if fits else None


def _has(told: Any, wanted: Any) -> bool:
    return isinstance(told, dict) and wanted.__required_keys__ <= told.keys()


def request_of(path: Path, find: Find, base: Where | None = None) -> Request:
    """The merge that made a file, with its inputs where they are now; ``out`` is the file itself.

    Raises FoundryError ``LF504`` for a file that tells of none, ``file`` for an input that is not found.
    """
    told = stated_in(path)
    if told is None:
        raise refuse("LF504.no_recipe", file=path.name)
    recipe: Any = told["recipe"]  # of a file: anything
    try:
        loras = tuple(_wanted(each, find) for each in recipe["inputs"])
        fuse = tuple(_wanted(each, find) for each in recipe.get("fuse") or ())
        method, dialect, dtype = (str(recipe[key]) for key in ("method", "dialect", "dtype"))
    except (KeyError, TypeError, ValueError) as error:
        raise refuse("LF504.no_recipe", file=path.name) from error
    if recipe.get("base") and base is None:
        raise refuse("LF504.base", file=path.name, base=recipe["base"])
    return Request(loras, path, fuse, base, method, dialect, dtype)


def verify(request: Request, on_step: Progress | None = None, asking: Asking = ANYTHING) -> Verified:
    """Measure the file ``request.out`` against the LoRAs of the request. Nothing is written.

    Raises FoundryError for files that cannot be opened or do not fit together.
    """
    gathered = gather(request, asking=asking)
    merged = open_lora(request.out)
    (one,) = match_all(gathered.ground, [(Wanted(request.out.name, request.out), merged)], lambda _: False)
    inputs = [each.input for each in gathered.matched]
    sums: dict[str, Sums] = {}
    modules = modules_of([*inputs, one.input])
    for done, module in enumerate(modules):
        if on_step is not None:
            on_step(done, len(modules))
        sums[module] = measure(read_parts(inputs, module), _stored(one, module, modules[module]))
    told = stated_in(request.out)
    return Verified(Proof.of([each.name for each in inputs], sums), None if told is None else told["proof"])


def _wanted(entry: dict[str, Any], find: Find) -> Wanted:
    name, sha256 = str(entry["name"]), str(entry["sha256"])
    path = find(name, sha256)
    if path is None:
        raise refuse("file.merged_of", file=name)
    strength = float(entry["strength"])
    return Wanted(name, path, strength, float(entry.get("clip_strength", strength)), str(entry.get("blocks", "")))


def _stored(merged: Matched, module: str, shape: tuple[int, ...]) -> Stored:
    """What the file holds of a module, put together as the engine measures it; nothing where it holds nothing."""
    if module not in merged.input.modules:
        return Stored(shape, up=torch.zeros(shape[0], 1), down=torch.zeros(1, *shape[1:]), alpha=1.0)
    delta: Delta = merged.input.read(module).times(merged.input.strength(module))
    if delta.replaces is not None:
        return Stored(shape, replaces=delta.replaces)
    if not delta.is_low_rank:
        rows = torch.cat([delta.rows(rows) for rows in delta.blocks()])
        return Stored(shape, diff=rows.reshape(shape))
    up = torch.cat([product.up.double() * product.scale for product in delta.products], 1)
    down = torch.cat([product.down.double() for product in delta.products], 0)
    return Stored(shape, up=up, down=down, alpha=float(delta.rank))


def found_near(path: Path, others: Sequence[Path]) -> Find:
    """Looks for inputs among ``others`` and beside a merged file, by their contents."""

    def find(name: str, sha256: str) -> Path | None:
        near = [path.parent / Path(name.replace("\\", "/")).name, *others]  # no path that a file's header says
        return next((each for each in near if each.is_file() and file_sha256(each) == sha256), None)

    return find


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= CLOSE + 1e-4 * abs(other)
