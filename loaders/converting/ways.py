"""The ways of models and CLIPs down through the nodes of a level that put LoRAs on them, each step looked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..workflows.graph import Graph
from .kinds import CLIP_OUT, DTYPES, LOADERS, MODEL_OUT, NEUTRAL, Applier
from .level import Level, Out

Foot = tuple[Out | None, str]  # what a CLIP begins with, None where nothing is wired, and the last that changes it


@dataclass(frozen=True)
class Step:
    """One step down from a member: ``below`` is the next member, "" where the chain begins, with ``source``.

    ``crossed`` are nodes between that change no weight, ``walked`` the wires that were followed.
    """

    below: str
    source: Out
    crossed: tuple[str, ...] = ()
    walked: tuple[Out, ...] = ()


class Ways:
    """Ways of one level. ``appliers`` are the members; ``acts`` says whether one changes the CLIP that is wired in."""

    def __init__(
        self, graph: Graph, level: Level, appliers: Mapping[str, Applier], acts: Callable[[str], bool]
    ) -> None:
        self._graph, self._level, self._appliers, self._acts = graph, level, appliers, acts
        self._steps: dict[str, Step] = {}
        self._feet: dict[str, Foot] = {}

    def step(self, key: str) -> Step:
        """The step down from a member."""
        if key not in self._steps:
            self._steps[key] = self._step(key)
        return self._steps[key]

    def sources(self) -> dict[str, Out]:
        """Member -> the output that its chain begins with. Members of a ring begin with themselves."""
        found: dict[str, Out] = {}
        for start in self._appliers:
            path: dict[str, None] = {}
            key = start
            while key and key not in found and key not in path:
                path[key] = None
                key = self.step(key).below
            if key in path:
                ring = list(path)[list(path).index(key) :]
                found.update({each: (each, MODEL_OUT) for each in ring})
            source = found[key] if key else self.step(list(path)[-1]).source
            found.update({each: source for each in path if each not in found})
        return found

    def down(self, key: str) -> tuple[list[str], list[str]]:
        """(the members from one down to the lowest, the nodes between them that change no weight, from the top)."""
        members, between, seen = [key], list[str](), {key}
        while (step := self.step(members[-1])).below and step.below not in seen:
            between += step.crossed
            members.append(step.below)
            seen.add(step.below)
        return members, [*between, *(() if step.below else step.crossed)]

    def passed(self, keys: Iterable[str]) -> set[str]:
        """Reroutes and their like on the ways of these members."""
        seen: set[Out] = set()
        for out in (out for key in keys for out in self.step(key).walked):
            while out not in seen and (further := self._level.handed_on(out)) is not None:
                seen.add(out)
                out = further
        return {out[0] for out in seen}

    def foot(self, key: str) -> Foot:
        """What the CLIP of a member begins with, and the uppermost member on its way that changes it, "" for none."""
        path: dict[str, None] = {}
        foot: Foot | None = None
        while foot is None:
            if key in self._feet:
                foot = self._feet[key]
                break
            path[key] = None
            wire = self._level.pieces[key].wires.get(self._appliers[key].clip)
            below = self._level.origin(wire) if wire else ("", 0)
            if below[0] not in self._appliers or below[1] != CLIP_OUT or below[0] in path:
                foot = (None if below[0] in path else wire, "")
            key = below[0]
        for each in reversed(path):
            foot = (foot[0], each if foot[0] and self._acts(each) else foot[1])
            self._feet[each] = foot
        return foot

    def acting(self, key: str) -> set[str]:
        """The members on the way of a CLIP that change it; ``foot`` has told that it begins somewhere."""
        found: set[str] = set()
        while key in self._appliers and self.foot(key)[1]:
            last = self.foot(key)[1]
            found.add(last)
            below = self._level.origin(self._level.pieces[last].wires[self._appliers[last].clip])
            key = below[0] if below[1] == CLIP_OUT else ""
        return found

    def _step(self, key: str) -> Step:
        if self._appliers[key].own:
            return Step("", (key, self._appliers[key].out))
        wire = self._level.pieces[key].wires.get(self._appliers[key].model)
        if wire is None:
            return Step("", (key, -1))
        crossed, walked, out = list[str](), [wire], self._level.origin(wire)
        while further := self._past(out):
            crossed.append(out[0])
            walked.append(further)
            out = self._level.origin(further)
        if out[0] in self._appliers and out[1] == self._appliers[out[0]].out:
            return Step(out[0], out, tuple(crossed), tuple(walked))
        if crossed and self._casts(out):  # nothing may stand before a loader that quantizes is replaced
            return Step("", out, tuple(crossed), tuple(walked))
        return Step("", self._level.origin(wire), (), tuple(walked))

    def _past(self, out: Out) -> Out | None:
        """What is wired into a node that changes no weight and serves nothing else, None for any other."""
        piece = self._level.pieces.get(out[0])
        if piece is None or piece.passing is not None or out[1] or not NEUTRAL.fullmatch(piece.kind):
            return None
        uses = self._level.uses(out)
        alone = next(uses, None) is not None and next(uses, None) is None
        return piece.wires.get("model") if alone else None

    def _casts(self, out: Out) -> bool:
        """Whether an output is that of a native loader that quantizes what it loads."""
        node = self._graph.nodes.get(self._level.path + out[0])
        return node is not None and node.kind in LOADERS and str(node.values.get("weight_dtype")) in DTYPES
