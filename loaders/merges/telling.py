"""A finished merge as JSON (docs/merge.schema.json) and as sentences."""

from __future__ import annotations

from collections.abc import Iterator

from ...engine.json_merge import MergeJSON, VerifiedJSON
from .merging import Result
from .record import proof_json


def merge_json(merged: Result, verified: VerifiedJSON | None = None) -> MergeJSON:
    """File, recipe, proof, ranks and findings as plain data, and what verifying it gave."""
    ranks = [entry.rank for entry in merged.entries.values() if entry.rank is not None]
    return {
        "out": str(merged.path),
        "bytes": merged.size,
        "modules": len(merged.entries),
        "rank": [min(ranks), max(ranks)] if ranks else None,
        "whole": len(merged.entries) - len(ranks),
        "recipe": merged.recipe.to_json(),
        "recipe_sha256": merged.recipe.sha256,
        "proof": proof_json(merged.proof),
        "apart": [{"name": each.name, "strength": each.strength} for each in merged.apart],
        "findings": [finding.to_json() for finding in merged.findings],
        "verified": verified,
    }


def merge_sentences(merged: Result) -> Iterator[str]:
    """What was merged, how large it became, what is left of each LoRA and what stayed beside the file."""
    ranks = [entry.rank for entry in merged.entries.values() if entry.rank is not None]
    span = f", ranks {min(ranks)} to {max(ranks)}" if ranks else ""
    total, settings = merged.proof.total, merged.recipe.settings
    shares = zip(merged.proof.names, total.shares, strict=True)
    kept = ", ".join(f"{name} {share:.1%}" for name, share in shares if share is not None)
    yield f"{len(merged.recipe.inputs)} LoRAs merged ({settings['method']}): {len(merged.entries)} modules{span}"
    yield f"kept: {kept}; error to the live stack {total.error:.2g}, norm {total.norm_ratio:.4f} of it"
    for each in merged.apart:
        yield f"kept apart: {each.name} at {each.strength:g}; use it beside the merged file"
