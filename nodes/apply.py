"""Stage 3 without quantization: a MODEL with the LoRAs on it, as host patches or as baked weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..engine.bake import AUTO, BakeReport
from ..engine.finish import Finish
from ..engine.fuse import Term, canonical_key, fused_weight, is_as_trained, make_term, merge_terms
from ..engine.plan import Layer, Patch, Plan
from . import host
from .common import HIDDEN, StageNode, stage_input
from .making import (
    KEEP,
    MEMORY,
    MEMORY_MODE,
    Settings,
    baked_model,
    finished,
    ledger_of,
    made_reply,
    ready,
    recipe_hash,
)
from .sockets import ANY
from .sources import plan_of

PATCHES, BAKE = "patches", "bake"
Pairs = tuple[tuple[Layer, Patch], ...]


class FoundryApply(StageNode):
    """The plan as a MODEL in its own precision."""

    DESCRIPTION = "Finishes the plan without quantizing. patches: exact, no extra memory. bake: fused weights."
    RETURN_TYPES = ("MODEL", "STRING")
    RETURN_NAMES = ("MODEL", "report")
    OUTPUT_TOOLTIPS = ("A MODEL with all LoRAs on it.", "What was done, as text.")
    INPUTS = {
        "required": {
            "model": stage_input(ANY, "The plan to finish."),
            "how": (
                [PATCHES, BAKE],
                {"tooltip": "patches: added at every model load. bake: fused once, faster when offloading."},
            ),
        },
        "optional": {"memory": MEMORY_MODE, "keep": KEEP},
        "hidden": HIDDEN,
    }

    def run(self, model: Any, how: str, memory: str = AUTO, keep: str = MEMORY, **_: Any) -> dict[str, Any]:
        """(MODEL, report)."""
        plan = plan_of(model)
        findings = ready(plan)
        finish = Finish()
        sha256 = recipe_hash(plan, finish)
        if how == BAKE:
            return made_reply(plan, findings, baked_model(plan, finish, Settings(memory, keep)), sha256, how=how)
        result, report = patched_model(plan, finish, sha256, host.progress())
        done = f"{report.touched} of {report.tensors} tensors get a patch"
        return finished(plan, findings, report, sha256, (result,), done, how=how)


def patched_model(plan: Plan, finish: Finish, sha256: str, step: Callable[[int, int], None]) -> tuple[Any, BakeReport]:
    """A clone of the MODEL (or the file as ComfyUI loads it) with one patch per weight and place."""
    source: Any = plan.base.source
    model = source.model.clone() if source.model is not None else source.load_model()
    work = plan.by_weight()
    for done, (name, pairs) in enumerate(work.items()):
        step(done, len(work))
        for patches in host_patches(source.read, name, pairs):
            host.add_patches(model, patches)
    step(1, 1)
    model.set_attachments(host.LEDGER, ledger_of(plan, finish, sha256))
    return model, BakeReport(tensors=len(source.tensors), touched=len(work), gains=[None] * len(plan.layers))


def host_patches(read: Callable[[str], torch.Tensor], name: str, pairs: Pairs) -> Iterator[dict[Any, Any]]:
    """Patches of one weight, in order: the weight ``match training`` rounded, then one adapter per place."""
    trained = [pair for pair in pairs if is_as_trained(pair[0])]
    if trained:
        yield {name: ("set", (fused_weight(read(name), trained, [make_term(*pair) for pair in trained]),))}
    additive = [(pair, make_term(*pair)) for pair in pairs if not is_as_trained(pair[0])]
    places: dict[Any, list[Term]] = defaultdict(list)
    for pair, term in sorted(additive, key=canonical_key):
        piece = pair[1].target.slice
        places[name if piece is None else (name, piece)].append(term)
    for key, terms in places.items():
        (merged,) = merge_terms(terms)
        yield {key: host.lora_patch(merged.up, merged.down)}
