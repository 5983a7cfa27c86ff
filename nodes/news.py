"""What is known of LoRAs and bases may change while ComfyUI keeps the plans made of them: is there news?

A validator judges by what is known now, and runs again when that is no longer what it went by. What stands below it
then runs again too, a bake among it, so nothing else may make it: each validator minds only files it looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..engine.errors import FoundryError
from ..engine.lineage import Contained, Lineage
from ..engine.plan import Base, Layer, Plan
from ..loaders.lineage.contents import contained_in
from ..loaders.lineage.provenance import lineage_of
from ..loaders.loras.file import LoRAFile
from .lineage import hashed_ids

T = TypeVar("T")
MOST = 512  # files of one validator


@dataclass
class Watch:
    """What one validator saw: by file how to look, and what there was. ``changes`` is how often that was outdated."""

    files: dict[Path, tuple[Callable[[], object], object]] = field(default_factory=dict)
    changes: int = 0

    def seen(self, path: Path, look: Callable[[], T | None], planned: T) -> T:
        """What a look shows now, else what was known while the plan was made."""
        now = _quietly(look)
        seen = planned if now is None else now
        if path not in self.files and len(self.files) >= MOST:
            del self.files[next(iter(self.files))]
        self.files[path] = look, seen
        return seen


_watches: defaultdict[str, Watch] = defaultdict(Watch)  # by node id, which several workflows may have


def known_now(plan: Plan, node_id: str) -> Plan:
    """The plan with what is known now of its base and its LoRAs; ``changes`` of that node counts from here."""
    watch = _watches[node_id]
    layers = tuple(replace(layer, lineage=_lineage(layer, watch)) for layer in plan.layers)
    return replace(plan, base=replace(plan.base, contains=_contents(plan.base, watch)), layers=layers)


def changes(node_id: str) -> int:
    """A number that grows when something else is known of a file than ``known_now`` saw; costs a look at each."""
    watch = _watches[node_id]
    for path, (look, seen) in list(watch.files.items()):
        now = _quietly(look)
        if now is not None and now != seen:
            watch.changes += 1
            watch.files[path] = look, now
    return watch.changes


def _lineage(layer: Layer, watch: Watch) -> Lineage:
    lora: Any = layer.factors
    path = lora.path if isinstance(lora, LoRAFile) else None
    return layer.lineage if path is None else watch.seen(path, partial(_of_lora, path), layer.lineage)


def _contents(base: Base, watch: Watch) -> tuple[Contained, ...]:
    checkpoint = getattr(base.source, "checkpoint", None)
    if checkpoint is None:
        return base.contains
    return watch.seen(checkpoint.files[0], partial(contained_in, checkpoint), base.contains)


def _of_lora(path: Path) -> Lineage | None:
    """What is known of a LoRA; None for a file that is not hashed: no queue waits for that."""
    return lineage_of(path) if hashed_ids(path) else None


def _quietly(look: Callable[[], T | None]) -> T | None:
    """What there is to see; None where the file is gone."""
    try:
        return look()
    except FoundryError:
        return None
