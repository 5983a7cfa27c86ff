"""A finished merge as JSON (docs/merge.schema.json) and as sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...engine.adapters import LORA
from ...engine.errors import FoundryError
from ...engine.json_merge import MergeHeaderJSON, MergeJSON, VerifiedJSON
from ...engine.texts.say import counted
from ..loras.file import open_lora
from .merging import Gathered, Request, Result, recipe_for
from .record import ranks_told
from .verifying import stated_in


def merge_json(merged: Result, verified: VerifiedJSON | None = None) -> MergeJSON:
    """File, recipe, proof, ranks and findings as plain data, and what verifying it gave."""
    header: MergeHeaderJSON = {
        "recipe": merged.recipe.to_json(), "recipe_sha256": merged.recipe.sha256, "proof": merged.proof
    }  # fmt: skip
    there = [entry.rank for entry in merged.entries.values() if entry.rank != 0]
    return _json(merged.path, header, there, merged.gathered, verified)


def find_merged(request: Request, gathered: Gathered) -> MergeJSON | None:
    """The same of a file beside ``request.out`` that this merge would make; None where there is none.

    One that lost more than is allowed now is none. What was merged on a base is never found: the recipe has no more
    than the base's name.
    """
    folder, recipe, allowed = request.out.parent, recipe_for(request, gathered), request.allowed
    if gathered.ground.named or not folder.is_dir():
        return None
    for path in sorted(folder.glob("*.safetensors")):
        with suppress(FoundryError):
            told = stated_in(path)
            if told is None or told["recipe_sha256"] != recipe.sha256 or not _has_numbers(told["proof"]):
                continue
            if allowed is None or told["proof"]["error"] <= allowed:
                lora = open_lora(path)
                adapters = (*lora.adapters, *lora.text_adapters)
                there = [each.rank if each.kind == LORA else None for each in adapters]
                return _json(path, {**told, "recipe": recipe.to_json()}, there, gathered, None)
    return None


def _has_numbers(proof: Any) -> bool:
    """Whether what a file states as its proof can be told: anybody may have written it."""
    try:
        shares = {str(each["name"]): each["share"] for each in proof["shares"]}
        numbers = (proof["error"], proof["norm_ratio"], *(share for share in shares.values() if share is not None))
        return all(map(math.isfinite, numbers))
    except (KeyError, TypeError, OverflowError):
        return False


def _json(
    path: Path, header: MergeHeaderJSON, there: Sequence[int | None], gathered: Gathered, verified: VerifiedJSON | None
) -> MergeJSON:
    """``there``: the rank of every module of the file, None of those that are stored as a whole."""
    ranks = [rank for rank in there if rank is not None]
    return {
        **header,
        "out": str(path),
        "bytes": path.stat().st_size,
        "modules": len(there),
        "rank": [min(ranks), max(ranks)] if ranks else None,
        "whole": len(there) - len(ranks),
        "apart": [{"name": each.name, "strength": each.strength} for each in gathered.apart],
        "findings": [finding.to_json() for finding in gathered.findings],
        "verified": verified,
    }


def merge_sentences(told: MergeJSON) -> Iterator[str]:
    """What was merged, how large it became, what is left of each LoRA and what stayed beside the file."""
    recipe, proof = told["recipe"], told["proof"]
    ranks = ranks_told(told["rank"])
    goal = (recipe["policy"] or "").partition(",")[0]
    if told["rank"] is not None and len({*told["rank"]}) > 1 and goal.startswith("rank") and "everywhere" not in goal:
        ranks += f", together as many numbers as {goal} everywhere"
    kept = ", ".join(f"{each['name']} {each['share']:.1%}" for each in proof["shares"] if each["share"] is not None)
    how = recipe["method"] if recipe["policy"] is None else f"{recipe['method']}, then cut to {recipe['policy']}"
    yield f"{counted(len(recipe['inputs']), 'LoRA')} merged ({how}): {told['modules']} modules{ranks}"
    yield f"kept: {kept}; error to the live stack {proof['error']:.2g}, norm {proof['norm_ratio']:.4f} of it"
    for each in told["apart"]:
        yield f"kept apart: {each['name']} at {each['strength']:g}; use it beside the merged file"
