"""What is known of LoRAs and bases may change while ComfyUI keeps the plans made of them: is there news?

A validator judges by what is known now, and runs again when that is no longer what it went by. What stands below it
then runs again too, a bake among it, so nothing else may make it: each validator minds only files it looked at.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from ..engine.lineage import Contained, Lineage
from ..engine.plan import Base, Layer, Plan
from ..loaders.bakes.rot import is_damaged
from ..loaders.lineage.contents import contained_in
from ..loaders.lineage.provenance import lineage_of
from ..loaders.loras.file import LoRAFile
from .lineage import hashed_ids
from .session import SESSION, Watch, quietly
from .sources import checkpoint_of

# What is watched: two workflows may have two kinds under one node id.
JUDGED, MERGED, KEPT, CALIBRATED = "judged", "merged", "kept", "calibrated"


def known_now(plan: Plan, node_id: str) -> Plan:
    """The plan with what is known now of its base and its LoRAs; ``changes`` of that node counts from here."""
    watch = SESSION.watches[JUDGED, node_id]
    layers = tuple(replace(layer, lineage=_lineage(layer, watch)) for layer in plan.layers)
    return replace(plan, base=replace(plan.base, contains=_contents(plan.base, watch)), layers=layers)


def changes(what: str, node_id: str) -> int:
    """A number that grows when something else is known of a file than was seen last; costs a look at each.

    ``what`` is JUDGED for ``known_now``, KEPT for ``kept_file``, and for ``seen_file`` what it was told.
    """
    watch = SESSION.watches[what, node_id]
    for path, (look, seen) in list(watch.files.items()):
        now = quietly(look)
        if now is not None and now != seen:
            watch.changes += 1
            watch.files[path] = look, now
    return watch.changes


def seen_file(path: Path, node_id: str, what: str = MERGED) -> None:
    """From here on ``changes`` of that node counts it when the file is replaced or gone."""
    look = partial(_state, path)
    SESSION.watches[what, node_id].seen(path, look, look())


def kept_file(path: Path, node_id: str) -> None:
    """From here on ``changes`` of that node counts it when a file of the bake cache turns out to be damaged."""
    SESSION.watches[KEPT, node_id].seen(path, partial(is_damaged, path), is_damaged(path))


def _state(path: Path) -> tuple[int, ...]:
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_size, state.st_mtime_ns


def _lineage(layer: Layer, watch: Watch) -> Lineage:
    path = layer.factors.path if isinstance(layer.factors, LoRAFile) else None
    return layer.lineage if path is None else watch.seen(path, partial(_of_lora, path), layer.lineage)


def _contents(base: Base, watch: Watch) -> tuple[Contained, ...]:
    checkpoint = checkpoint_of(base)
    if checkpoint is None or not checkpoint.files:
        return base.contains
    return watch.seen(checkpoint.files[0], partial(contained_in, checkpoint), base.contains)


def _of_lora(path: Path) -> Lineage | None:
    """What is known of a LoRA; None for a file that is not hashed: no queue waits for that."""
    return lineage_of(path) if hashed_ids(path) else None
