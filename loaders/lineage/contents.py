"""Which LoRAs lie inside a base model already, as far as its header and the store tell. No weight is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ...engine.errors import FoundryError
from ...engine.lineage import DERIVED, FILE_ID, GUESSED, LINEAGE_KEY, Contained, Ingredient
from ..bases.checkpoint import Checkpoint
from ..bases.dequantize import Dequantized
from ..disk.header import regular_file, shown
from ..disk.process import PROCESS
from ..disk.source import base_fingerprint
from ..evidence.sidecars import contained_from_fusion_metadata
from ..workflows.constants import with_constants
from ..workflows.node_kinds import SAVERS
from ..workflows.reading import graph_of
from ..workflows.tracing import trails
from ..workflows.trail import Trail
from . import store as lineages
from .accelerators import known_as, known_name
from .record import BASE_ID, parse_contained, parse_json

MAX_TEXT = 8 << 20  # characters of a workflow in a header
MOST = 100  # LoRAs told from one source
OWN = "the record in its header"
RECIPE = "the recipe in its header"
WORKFLOW = "the ComfyUI workflow in its header"


Model = Checkpoint | Dequantized


def contained_in(model: Model) -> tuple[Contained, ...]:
    """LoRAs inside a base: by our record or recipe in it, the workflow that saved it, merge tools, and the store."""
    metadata = model.metadata
    recipe = (made_by(metadata) or {}).get("recipe", {})
    told = [*_from_record(metadata)] or [*_from_recipe(recipe)] or [*_from_workflow(metadata)]
    told += contained_from_fusion_metadata(model.files[0]) if model.files else ()
    found = (*told, *_from_merge_list(metadata), *_from_store(model, recipe))
    return tuple(map(recognised, found))


def recognised(contained: Contained) -> Contained:
    """The same with what the registry knows of it."""
    named = contained.ingredient
    return replace(contained, ingredient=known_as(named), accelerator=known_name(named.name, named.ids))


def _from_record(metadata: Mapping[str, str]) -> Iterator[Contained]:
    """What this pack wrote into its own results."""
    with suppress(FoundryError, ValueError, OverflowError):
        record = parse_json(metadata.get(LINEAGE_KEY, "{}"), OWN)
        yield from parse_contained(record.get("contains") if isinstance(record, dict) else None, OWN)


def _from_recipe(recipe: Mapping[str, Any]) -> Iterator[Contained]:
    """The layers of a bake of an older version, which wrote no record."""
    layers = recipe.get("layers")
    for layer in layers[:MOST] if isinstance(layers, list) else ():
        if isinstance(layer, dict) and layer.get("strength"):
            entry = {"name": layer.get("lora"), "ids": [f"{FILE_ID}{layer.get('sha256')}"]}
            with suppress(ValueError):
                yield from parse_contained([{**entry, "strength": layer["strength"]}], RECIPE)


def _from_workflow(metadata: Mapping[str, str]) -> Iterator[Contained]:
    """LoRAs on the model that ComfyUI saved; where the workflow saves several, those that are on every one of them."""
    text = metadata.get("prompt", "")
    if not text or len(text) > MAX_TEXT:
        return
    try:
        graph = with_constants(graph_of(parse_json(text, WORKFLOW), WORKFLOW))
    except FoundryError:
        return
    found, savers = trails(graph), [node.id for node in graph.nodes.values() if node.kind in SAVERS]
    saved = [_strengths(trail) for saver in savers for trail in found.get(saver, ())]
    for name in list(saved[0])[:MOST] if saved else ():
        strengths = {each.get(name) for each in saved}
        if None not in strengths:
            strength = strengths.pop() if len(strengths) == 1 else None
            yield Contained(Ingredient(shown(name, 200), strength=strength), DERIVED, WORKFLOW)


def _strengths(trail: Trail) -> dict[str, float]:
    """LoRA -> its strength on a model, summed where it was applied more than once."""
    total: dict[str, float] = {}
    for applied in trail.applied:
        total[applied.row.name] = total.get(applied.row.name, 0.0) + applied.row.strength
    return total


def _from_merge_list(metadata: Mapping[str, str]) -> Iterator[Contained]:
    """What merge tools note: titles and file names of everything merged, LoRAs and models alike."""
    listed = metadata.get("modelspec.merged_from", "")[:MAX_TEXT]
    names = [name.strip() for name in listed.split(",") if name.strip()]
    for name in names[:MOST]:
        yield Contained(Ingredient(shown(name, 200)), GUESSED, "'modelspec.merged_from' in its header")


def _from_store(model: Model, recipe: Mapping[str, Any]) -> Iterator[Contained]:
    """What people said of this base, or of the base that this one was baked from."""
    if not lineages.has_bases():
        return
    below = recipe.get("base")
    baked_from = below.get("fingerprint") if isinstance(below, dict) else None
    for id in (*base_ids(model), f"{BASE_ID}{baked_from}"):
        with suppress(FoundryError):
            record = lineages.read((id,))
            yield from record.contains if record else ()


def made_by(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What this pack writes of a recipe into its results; None when it is not there, or when someone damaged it."""
    with suppress(ValueError, RecursionError):
        made = json.loads(metadata.get("lora_foundry", "null"))
        return made if isinstance(made, dict) and isinstance(made.get("recipe"), dict) else None
    return None


def base_ids(model: Model) -> tuple[str, ...]:
    """What a base model is known by in the store. Reads the edges of its tensors the first time."""
    model = model.source if isinstance(model, Dequantized) else model  # what is stored, however it is read
    stats = [regular_file(path) for path in model.files]
    state = [(each.st_size, each.st_mtime_ns, each.st_ino) for each in stats]
    files, place = PROCESS.files, model.files or model.identity
    found: str | None = files.get("base", place, state)
    return (BASE_ID + (found or files.put(base_fingerprint(model), "base", place, state)),)
