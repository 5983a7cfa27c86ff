"""What a merged file tells of itself: its inputs, how they were merged, what is left of each, and what they need.

All of it stands in ``__metadata__``: recipe and proof, the lineage record, trigger words and tags.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ...engine.findings import EVIDENCE
from ...engine.ingredients import ingredient_of
from ...engine.json_merge import MERGE_KEY, MergeRecipeJSON, ProofJSON, ShareJSON
from ...engine.lineage import (
    DERIVED,
    LINEAGE_KEY,
    SAME,
    TENSORS_ID,
    Claim,
    Contained,
    Evidence,
    Ingredient,
    same_ingredients,
)
from ...engine.merge.proof import Proof
from ...validator.around import requirement_of
from ..bases.families import common_family
from ..evidence.triggers import WORDS
from ..lineage.record import Record
from .matching import Matched

SCHEMA = 1  # raised when what stands under that key changes its meaning
DIGITS = 6
SOURCE = "what was merged into it"
SHARED = ("ss_base_model_version", "ss_sd_model_name", "modelspec.sai_model_spec", "modelspec.architecture")
TRIGGER, TAGS, TITLES = "modelspec.trigger_phrase", "ss_tag_frequency", "modelspec.merged_from"
MOST_TAGS = 1000  # of all folders together, the most frequent
MAX_TEXT = 1 << 20


@dataclass(frozen=True)
class Recipe:
    """All that the numbers of a merged file depend on: ``settings`` of the merge, and one entry an input."""

    settings: Mapping[str, Any]
    inputs: tuple[Mapping[str, Any], ...]

    def to_json(self) -> MergeRecipeJSON:
        """As plain data."""
        data = {"schema": SCHEMA, **self.settings, "inputs": [dict(each) for each in self.inputs]}
        return cast(MergeRecipeJSON, data)

    @property
    def sha256(self) -> str:
        """The hash of recipe and inputs."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def recipe_of(matched: Sequence[Matched], **settings: Any) -> Recipe:
    """The recipe of a merge of these LoRAs."""
    return Recipe(settings, tuple(map(_input, matched)))


def _input(each: Matched) -> dict[str, Any]:
    wanted = each.wanted
    return {
        "name": wanted.file_name,
        "sha256": each.lora.info.sha256,
        "strength": wanted.strength,
        "clip_strength": wanted.clip_strength,
        "blocks": wanted.blocks,
        "whole": each.input.whole,
    }


def merge_metadata(matched: Sequence[Matched]) -> dict[str, str]:
    """What is known before a number was computed: what the inputs agree on, their trigger words and tags."""
    told = [each.lora.metadata for each in matched]
    first = told[0] if told else {}
    shared = {key: first[key] for key in SHARED if key in first and all(each.get(key) == first[key] for each in told)}
    words = dict.fromkeys(word for each in told for word in _words(each))
    tags = _tags(told)
    return {
        "format": "pt",
        **shared,
        TITLES: ", ".join(each.wanted.file_name for each in matched),
        **({TRIGGER: ", ".join(words)} if words else {}),
        **({TAGS: json.dumps(tags)} if tags else {}),
    }


def recorded(recipe: Recipe, proof: ProofJSON, id: str, matched: Sequence[Matched], name: str) -> dict[str, str]:
    """What is known when all numbers are there; ``id`` is the file's own (``tensors:...``)."""
    made = {"recipe": recipe.to_json(), "recipe_sha256": recipe.sha256, "proof": proof}
    return {MERGE_KEY: json.dumps(made), LINEAGE_KEY: json.dumps(record_of(matched, id, name).to_json())}


def room_for(recipe: Recipe, modules: Iterable[str], matched: Sequence[Matched], name: str) -> int:
    """Bytes that ``recorded`` takes at most."""
    longest = -1.23456e-100
    shares: list[ShareJSON] = [{"name": each.wanted.file_name, "share": longest} for each in matched]
    layers = dict.fromkeys(modules, longest)
    proof: ProofJSON = {
        "error": longest,
        "norm_ratio": longest,
        "shares": shares,
        "worst": {"module": max(layers, key=len, default=""), "error": longest},
        "layers": layers,
    }
    return len(json.dumps(recorded(recipe, proof, TENSORS_ID + "0" * 64, matched, name)).encode())


def proof_json(proof: Proof) -> ProofJSON:
    """The proof with numbers of a few digits."""
    return cast(ProofJSON, rounded(proof.to_json()))


def rounded(data: Any) -> Any:
    """Plain data with numbers of a few digits."""
    if isinstance(data, float):
        return float(f"{data:.{DIGITS}g}")
    if isinstance(data, dict):
        return {key: rounded(value) for key, value in data.items()}
    return [rounded(each) for each in data] if isinstance(data, list) else data


# --- lineage


def record_of(matched: Sequence[Matched], id: str, name: str) -> Record:
    """What is inside the file, and what its inputs were trained with and are to be used with."""
    family = common_family(each.lora.info.family for each in matched)
    return Record((id,), name, family, tuple(_claims(matched)), tuple(_inside(matched)))


def _inside(matched: Sequence[Matched]) -> Iterator[Contained]:
    """Every input at its strength, and what is inside those that are merged files themselves."""
    for each in matched:
        coverage, strength = each.layer.coverage, each.wanted.strength
        lineage = each.layer.lineage
        inner = ingredient_of(each.wanted.file_name, lineage, strength, coverage.matched, coverage.modules)
        yield Contained(inner, DERIVED, SOURCE)
        for contained in lineage.contains:
            deep = contained.ingredient
            scaled = None if deep.strength is None else deep.strength * strength
            yield replace(contained, ingredient=replace(deep, strength=scaled))


def _claims(matched: Sequence[Matched]) -> Iterator[Claim]:
    """The union of what the inputs need, and beside it every input that says something else: shown, not resolved."""
    names = ", ".join(each.wanted.file_name for each in matched)
    trained = [(each, each.layer.lineage.trained) for each in matched]
    told = [(each, claim, claim.trained_with or ()) for each, claim in trained if claim is not None]
    yield from (replace(claim, trained_with=listed) for claim, listed in _union(told, names))
    if any(each.layer.lineage.used is not None for each in matched):
        needs = [(each, requirement_of(each.layer.lineage)) for each in matched]
        told = [(each, need.claim, need.ingredients) for each, need in needs if need is not None]
        yield from (replace(claim, use_with=listed) for claim, listed in _union(told, names))


def _union(
    told: Sequence[tuple[Matched, Claim, tuple[Ingredient, ...]]], names: str
) -> Iterator[tuple[Claim, tuple[Ingredient, ...]]]:
    """(a claim, its list): one for all on the best level that is there, then those that differ from it."""
    best = min((claim.evidence.level for _, claim, _ in told), key=EVIDENCE.index, default="")
    among = [listed for _, claim, listed in told if claim.evidence.level == best]
    union = _distinct(ingredient for listed in among for ingredient in listed)
    if told:
        ask = any(claim.ask for _, claim, _ in told)
        yield Claim(Evidence(best, f"the union of what was merged: {names}"), ask=ask), union
    for each, claim, listed in told:
        if claim.evidence.level != best or not same_ingredients(listed, union):
            source = f"{each.wanted.file_name}, which is merged in: {claim.evidence.source}"
            yield Claim(replace(claim.evidence, source=source), ask=claim.ask), listed


def _distinct(ingredients: Iterable[Ingredient]) -> tuple[Ingredient, ...]:
    kept: list[Ingredient] = []
    for each in ingredients:
        if not any(each.compare(other) == SAME for other in kept):
            kept.append(each)
    return tuple(kept)


# --- what people look for in a file


def _words(metadata: Mapping[str, str]) -> Iterator[str]:
    text = next((metadata[key] for key in WORDS if metadata.get(key, "").strip()), "")
    yield from (word.strip() for word in text.split(",") if word.strip())


def _tags(told: Sequence[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """Folders of training with their tags and how often, as trainers write them; the sum where two have one name."""
    found: Counter[tuple[str, str]] = Counter()
    for metadata in told:
        for folder, tags in _folders(metadata.get(TAGS, "")).items():
            for tag, count in tags.items() if isinstance(tags, dict) else ():
                if type(count) is int:
                    found[folder, tag] += count
    merged: dict[str, dict[str, int]] = {}
    for (folder, tag), count in found.most_common(MOST_TAGS):
        merged.setdefault(folder, {})[tag] = count
    return merged


def _folders(text: str) -> dict[str, Any]:
    if not text or len(text) > MAX_TEXT:
        return {}
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def told_apart(error: float, allowed: float) -> dict[str, str]:
    """An ``error`` above what is ``allowed``, and that, as texts of two digits, or of as many as tell them apart."""
    digits = next((count for count in range(2, 17) if f"{error:.{count}g}" != f"{allowed:.{count}g}"), 17)
    return {"error": f"{error:.{digits}g}", "allowed": f"{allowed:.{digits}g}"}


def ranks_told(rank: Sequence[int] | None) -> str:
    """The least and the largest rank of a file, behind a comma; nothing for one without factors."""
    if rank is None:
        return ""
    least, most = rank
    return f", rank {least}" if least == most else f", ranks {least} to {most}"
