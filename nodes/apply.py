"""Stage 3 without quantization: a MODEL with the LoRAs on it, as host patches or as baked weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..engine.adapters import RESHAPE
from ..engine.bake import BakeReport
from ..engine.blueprint import Blueprint
from ..engine.finish import Finish
from ..engine.fuse import any_needs_weight, fused_weight, make_terms
from ..engine.memory import AUTO
from ..engine.plan import Layer, Patch
from ..engine.progress import Progress
from ..engine.tensors import TensorSource
from ..engine.terms import (
    WHOLE,
    AnyTerm,
    Dense,
    Term,
    canonical_key,
    is_as_trained,
    merge_products,
)
from ..loaders.bakes.baking import BakeResult, resolve
from . import host
from .common import HIDDEN, StageNode, stage_input
from .making import (
    KEEP,
    MEMORY,
    MEMORY_MODE,
    PICTURE,
    REPRODUCIBLE,
    baked_model,
    exactly,
    finished,
    ledger_of,
    made_reply,
    ready,
)
from .news import KEPT, changes
from .sockets import ANY
from .sources import host_source, plan_of

PATCHES, BAKE = "patches", "bake"
Pairs = tuple[tuple[Layer, Patch], ...]


class FoundryApply(StageNode):
    """The plan as a MODEL in its own precision."""

    DESCRIPTION = (
        "Finishes the plan without quantizing. patches: exact; plain LoRAs cost no memory, other kinds 4 bytes "
        "for each number they change. bake: fused weights."
    )
    SEARCH_ALIASES = ["apply lora", "lora patches", "bake lora"]
    RETURN_TYPES = ("MODEL", "STRING", "IMAGE")
    RETURN_NAMES = ("MODEL", "report", "image")
    OUTPUT_TOOLTIPS = ("A MODEL with all LoRAs on it.", "What was done, as text.", PICTURE)
    INPUTS = {
        "required": {
            "model": stage_input(ANY, "The plan to finish."),
            "how": (
                [PATCHES, BAKE],
                {"tooltip": "patches: added at every model load. bake: fused once, faster when offloading."},
            ),
        },
        "optional": {"memory": MEMORY_MODE, "keep": KEEP, "reproducible": REPRODUCIBLE},
        "hidden": HIDDEN,
    }

    @classmethod
    def IS_CHANGED(cls, unique_id: str | None = None, **_: Any) -> int:
        """Runs again when the file it kept its result in turned out to be damaged."""
        return changes(KEPT, str(unique_id))

    def run(
        self,
        model: Any,
        how: str,
        memory: str = AUTO,
        keep: str = MEMORY,
        reproducible: bool = False,
        unique_id: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """(MODEL, report, image [1, height, width, 3])."""
        plan = plan_of(model)
        findings = ready(plan)
        wanted = resolve(plan, Finish(arithmetic=exactly(reproducible and how == BAKE, memory)))
        if how == BAKE:
            return made_reply(wanted, findings, *baked_model(wanted, memory, keep, unique_id), how=how)
        result, made = patched_model(wanted, host.progress())
        done = f"{made.report.touched} of {made.report.tensors} tensors get a patch"
        return finished(plan, findings, made, (result,), done, how=how)


def patched_model(wanted: Blueprint, on_step: Progress) -> tuple[Any, BakeResult]:
    """A clone of the MODEL (or the file as ComfyUI loads it) with one patch per weight and place."""
    source, origin = wanted.plan.base.source, host_source(wanted.plan)
    model = origin.load_model() if origin.model is None else origin.model.clone()
    work = [fate for fate in wanted.fates.values() if fate.patches]
    for done, fate in enumerate(work):
        on_step(done, len(work))
        for patches in host_patches(source, fate.info.name, fate.patches):
            host.add_patches(model, patches)
    on_step(1, 1)
    record = {**ledger_of(wanted), "patches": str(model.patches_uuid)}  # changes with every further patch
    model.set_attachments(host.LEDGER, record)
    report = BakeReport(tensors=len(source.tensors), touched=len(work), gains=[None] * len(wanted.plan.layers))
    return model, BakeResult(report, wanted.recipe_sha256)


def host_patches(source: TensorSource, name: str, pairs: Pairs) -> Iterator[dict[Any, Any]]:
    """Patches of one weight, in order: the weight as ``match training`` leaves it, then for each place one adapter of
    all plain LoRAs, and one difference of all other kinds.

    A difference holds 4 bytes for each number of its place as long as the MODEL lives. Handed over as they are, some
    kinds would come out other than their trainers made them, and DoRA, OFT ... would see what other patches left.
    """
    trained = [pair for pair in pairs if is_as_trained(pair[0])]
    weight = source.read(name) if trained or any_needs_weight(pairs) else None
    if weight is not None and trained:
        yield {name: ("set", (fused_weight(weight, trained, make_terms(weight, trained)),))}
    places: dict[Any, list[AnyTerm]] = defaultdict(list)
    ordered = sorted(zip(pairs, make_terms(weight, pairs), strict=True), key=lambda each: canonical_key(each[0]))
    for (layer, patch), term in ordered:
        if not is_as_trained(layer):
            places[name if patch.target.slice is None else (name, patch.target.slice)].append(term)
    whole = torch.empty(source.tensors[name].shape, device="meta")
    larger = any(RESHAPE in dict(patch.adapter.parts) for _, patch in pairs)
    for key, terms in places.items():
        shape = whole.shape if isinstance(key, str) else whole.narrow(*key[1]).shape
        yield from ({key: patch} for patch in place_patches(terms, shape, larger))


def place_patches(terms: Sequence[AnyTerm], shape: torch.Size, larger: bool = False) -> Iterator[Any]:
    """The patches of one place, a part of a weight, of this shape; ``larger`` than in the host's model: it pads."""
    products = [term for term in terms if isinstance(term, Term) and not larger]
    if products:
        (merged,) = merge_products(products)
        yield host.lora_patch(merged.up, merged.down)
    if dense := [term for term in terms if isinstance(term, Dense) or larger]:
        total = dense[0].delta(WHOLE, torch.float32)
        for term in dense[1:]:
            term.add_to(total, WHOLE)
        yield ("diff", (total.reshape(shape), *([{"pad_weight": True}] if larger else [])))
