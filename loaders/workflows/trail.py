"""A trail as data: the loader a model begins with, and what is applied on it. Equal beginnings are shared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ...engine.findings import Finding
from ...engine.plan import STACK
from .lora_kinds import HALVES
from .node_values import LoraRow


@dataclass(frozen=True)
class Source:
    """The loader a trail begins with. ``quantized`` says how it makes 8 bits or less of any file, None if not.

    ``beside``: LoRAs stay apart from its quantized weights. ``dequantize``: ours, told to take a quantized file.
    """

    node: str = ""
    name: str = ""
    folders: tuple[str, ...] = ()
    quantized: str | None = None
    beside: bool = False
    ours: bool = False
    dequantize: bool = False


@dataclass(frozen=True)
class Applied:
    """A LoRA on a trail. ``native``: by no node of ours. ``beside``: apart from the weights. ``late``: the node that
    quantized the model before this LoRA came."""

    row: LoraRow
    node: str
    stage: str = STACK
    native: bool = True
    beside: bool = False
    late: str = ""


class Chain:
    """Values, each on top of others. Trails that begin alike share that beginning: a step costs no copy of it."""

    __slots__ = ("_halves", "below", "halved", "size", "value")

    def __init__(self, value: Any = None, below: Chain | None = None, halved: bool = False) -> None:
        self.value, self.below, self.halved = value, below, halved
        self._halves: tuple[Chain, ...] = ()
        self.size: int = 0 if below is None else below.size + 1

    def values(self) -> tuple[Any, ...]:
        """All of them, the lowest first."""
        found = []
        here = self
        while here.below is not None:
            found.append(here.value)
            here = here.below
        return tuple(reversed(found))

    def split(self) -> tuple[Chain, ...]:
        """Of LoRAs, those on each of two halves, the same chains each time."""
        if not self._halves:
            made = []
            for half in HALVES:
                top = BARE
                for applied in self.values():
                    top = Chain(applied, top) if applied.row.half in ("", half) else top
                made.append(top)
            self._halves = tuple(made)
        return self._halves


BARE = Chain()


@dataclass(frozen=True)
class Trail:
    """One model: its source, the LoRAs on it, bottom first, the nodes passed. ``vanilla``: a choice to fuse none.

    ``top`` and ``path`` are those LoRAs and nodes as chains; equal tops of one graph are one object. ``left_out``
    counts the LoRAs beyond ``MAX_ROWS``. ``policy`` is that of the last Stack Validator passed; ``strict``: one stops
    at warnings.
    """

    source: Source = Source()
    top: Chain = BARE
    path: Chain = field(default=BARE, compare=False)
    vanilla: bool = False
    quantized_at: str = ""
    problems: tuple[Finding, ...] = ()
    fused: bool = False
    left_out: int = field(default=0, compare=False)
    policy: str = field(default="", compare=False)
    strict: bool = field(default=False, compare=False)

    @cached_property
    def applied(self) -> tuple[Applied, ...]:
        """The LoRAs, bottom first."""
        return self.top.values()

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The nodes passed, the loader first."""
        return self.path.values()


def nodes_passed(found: Iterable[Trail]) -> set[str]:
    """The nodes that any of these trails passed; a beginning that several share is read once."""
    nodes, seen = set[str](), set[int]()
    for trail in found:
        here = trail.path
        while here.below is not None and id(here) not in seen:
            seen.add(id(here))
            nodes.add(here.value)
            here = here.below
    return nodes


def halves(trail: Trail) -> tuple[Trail, ...]:
    """A trail once for each model that it stands for: nodes may hold those of high and of low noise as one."""
    return tuple(replace(trail, top=top) for top in trail.top.split()) if trail.top.halved else (trail,)
