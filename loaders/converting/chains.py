"""Chains of nodes that put LoRAs on a model, on one level: where each begins, its LoRAs, and who takes the result.

A tree is what grows from one output of a model; each of its ends is a chain of its own. A tree that cannot be taken
apart without changing what is computed is refused as a whole, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ..workflows.graph import BYPASSED, ON, Graph, GraphNode
from ..workflows.lora_kinds import NO_LORA
from ..workflows.node_kinds import FILE_ENDINGS
from ..workflows.node_values import Named, number, written_loras
from ..workflows.tracing import list_nodes
from ..workflows.unread import is_blind
from .kinds import APPLIERS, CLIP_OUT, DTYPES, LOADERS, MODEL_OUT, NEUTRAL, STACKERS, Applier
from .level import Level, Out, Taker

MAX_STRENGTH = 10.0  # of our rows


@dataclass(frozen=True)
class Written:
    """A LoRA of a chain as its node writes it. ``held`` are inputs of ours that are set from elsewhere, and by whom.

    ``writer`` is the node it is written in: ``node``, or a stacker whose list comes to that.
    """

    node: str
    name: str
    strength: float
    clip: float
    on: bool = True
    loose: bool = False
    held: tuple[tuple[str, Taker], ...] = ()
    writer: str = ""


@dataclass(frozen=True)
class Chain:
    """One model of a tree: ``source`` is what it begins with, ``members`` its nodes, the lowest first.

    ``between`` are nodes that stood among them and come after our nodes now. ``clip`` is the CLIP the LoRAs go on and
    the members that do so, None where nobody takes it; ``clip_ends`` the outputs it was taken from.
    """

    source: Out
    members: tuple[str, ...]
    rows: tuple[Written, ...]
    between: tuple[str, ...] = ()
    clip: Out | None = None
    clip_ends: tuple[Out, ...] = ()


@dataclass
class Tree:
    """Chains that begin at one output. ``passed`` are reroutes and their like between the nodes, ``lists`` stackers."""

    source: Out
    chains: list[Chain] = field(default_factory=list)
    members: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    lists: set[str] = field(default_factory=set)
    problem: FoundryError | None = None


class Finder:
    """Finds the trees of one level of a settled graph."""

    def __init__(self, graph: Graph, level: Level) -> None:
        self._graph, self._level = graph, level
        self._appliers = {
            key: APPLIERS[piece.kind]
            for key, piece in level.pieces.items()
            if piece.kind in APPLIERS and piece.mode in (ON, BYPASSED) and self._node(key) is not None
        }

    def trees(self) -> list[Tree]:
        """Every tree, in the order of its first node."""
        found: dict[Out, Tree] = {}
        for key in self._appliers:
            way = self._way_down(key)
            source = self._level.origin(way.source)
            way.passed |= self._passed(way.source, source)
            tree = found.setdefault(source, Tree(source))
            tree.members.add(key)
            tree.passed |= way.passed
        for tree in found.values():
            try:
                tree.chains = list(self._chains(tree))
            except FoundryError as error:
                tree.problem = error
        return list(found.values())

    # --- the ways of models

    def _way_down(self, key: str) -> _Way:
        """From a member down to what its chain begins with."""
        way = _Way(members=[key])
        while True:
            wire = self._level.pieces[way.members[-1]].wires.get(self._appliers[way.members[-1]].model)
            if wire is None:
                way.source = (way.members[-1], -1)
                return way
            below, crossed = self._below(wire, way)
            if below[0] not in self._appliers or below[1] != MODEL_OUT or below[0] in way.members:
                casts = crossed and self._casts(below)  # nothing may stand before a loader that quantizes is replaced
                way.source, way.between = (below, way.between + crossed) if casts else (wire, way.between)
                return way
            way.between += crossed
            way.members.append(below[0])

    def _below(self, wire: Out, way: _Way) -> tuple[Out, list[str]]:
        """What a wire comes from, past nodes that change no weight and serve nothing else; and these."""
        crossed: list[str] = []
        while True:
            out = self._level.origin(wire)
            way.passed |= self._passed(wire, out)
            piece = self._level.pieces.get(out[0])
            alone = piece is not None and piece.passing is None and len(list(self._level.uses(out))) == 1
            if piece is None or not alone or out[1] or not NEUTRAL.fullmatch(piece.kind) or "model" not in piece.wires:
                return out, crossed
            crossed.append(piece.id)
            wire = piece.wires["model"]

    def _casts(self, out: Out) -> bool:
        """Whether an output is that of a native loader that quantizes what it loads."""
        node = self._node(out[0])
        return node is not None and node.kind in LOADERS and str(node.values.get("weight_dtype")) in DTYPES

    def _passed(self, wire: Out, origin: Out) -> set[str]:
        """Nodes on the way from an output up to the real one behind it."""
        found: set[str] = set()
        while wire != origin and wire[0] not in found:
            found.add(wire[0])
            piece = self._level.pieces[wire[0]]
            wire = piece.wires[(piece.passing or {})[wire[1]]]
        return found

    # --- the chains of a tree

    def _chains(self, tree: Tree) -> Iterator[Chain]:
        ends = [key for key in self._appliers if key in tree.members and self._is_end(key)]
        for key in sorted(tree.members):
            self._check(key, tree)
        clips = self._clip_ends(tree)
        crossed: set[str] = set()
        shown: set[str] = set()
        for end in ends:
            way = self._way_down(end)
            if crossed & set(way.between):
                raise refuse("convert.between", at=self._called(way.between[0]))
            crossed |= set(way.between)
            members = tuple(reversed(way.members))
            for key in shown & set(members):  # a widget that is shown outside is one widget
                raise refuse(
                    "convert.wired", inputs=", ".join(self._level.held(self._level.pieces[key])), at=self._called(key)
                )
            shown |= {key for key in members if any(self._level.held(self._level.pieces[key]))}
            mine = [out for out in clips if out[0] in members and self._nearest(out[0], ends) == end]
            clip, on_clip = self._clip(mine, members)
            rows = tuple(self._rows(members, on_clip, tree))
            yield Chain(tree.source, members, rows, tuple(reversed(way.between)), clip, tuple(mine))

    def _is_end(self, key: str) -> bool:
        uses = list(self._level.uses((key, MODEL_OUT)))
        outside = [use for use in uses if not self._leads_on(use)]
        if not uses:
            raise refuse("convert.unused", at=self._called(key))
        return bool(outside)

    def _leads_on(self, use: Taker) -> bool:
        """Whether a use of a member's model is another member, be it past nodes that change no weight."""
        key, name = use
        while key not in self._appliers:
            piece = self._level.pieces.get(key)
            further = list(self._level.uses((key, 0))) if piece and NEUTRAL.fullmatch(piece.kind) else []
            if len(further) != 1:
                return False
            ((key, name),) = further
        return name == self._appliers[key].model

    def _nearest(self, member: str, ends: list[str]) -> str:
        """The end whose stack also makes the CLIP of a member: itself, else the first above it."""
        return member if member in ends else next(end for end in ends if member in self._way_down(end).members)

    # --- CLIP

    def _clip_ends(self, tree: Tree) -> list[Out]:
        """The CLIP outputs of members that others than members take."""
        found = []
        for key in self._appliers:
            if key not in tree.members or not self._appliers[key].clip:
                continue
            out = (key, CLIP_OUT)
            uses = list(self._level.uses(out))
            if [use for use in uses if use[0] not in tree.members]:
                found.append(out)
        return found

    def _clip(self, ends: list[Out], members: tuple[str, ...]) -> tuple[Out | None, tuple[str, ...] | None]:
        """(the CLIP below, the members that change it) of a chain; (None, None) where nobody takes its CLIP."""
        ways = {self._clip_way(out[0]) for out in ends}
        if not ways:
            return None, None
        acting = {(source, tuple(key for key in way if self._acts_on_clip(key))) for source, way in ways}
        if len(acting) > 1:
            raise refuse("convert.clips", at=self._called(ends[0][0]))
        ((source, on_clip),) = acting
        if source is None or not set(on_clip) <= set(members):
            raise refuse("convert.clip", at=self._called(ends[0][0]))
        return source, on_clip

    def _clip_way(self, key: str) -> tuple[Out | None, tuple[str, ...]]:
        """(what the CLIP of a member begins with, the members it went through, the lowest first)."""
        way = [key]
        while wire := self._level.pieces[way[-1]].wires.get(self._appliers[way[-1]].clip):
            below = self._level.origin(wire)
            if below[0] not in self._appliers or below[1] != CLIP_OUT or below[0] in way:
                return wire, tuple(reversed(way))
            way.append(below[0])
        return None, ()

    def _acts_on_clip(self, key: str) -> bool:
        return any(self._level_of_clip(each) for each in self._written(key) if each.on)

    @staticmethod
    def _level_of_clip(named: Named) -> float:
        return named.strength if named.clip is None else named.clip

    # --- rows

    def _rows(self, members: tuple[str, ...], on_clip: tuple[str, ...] | None, tree: Tree) -> Iterator[Written]:
        for key in members:
            node = self._settled(key)
            off = self._level.pieces[key].mode == BYPASSED
            silent = on_clip is not None and key not in on_clip
            held = tuple(self._held(key))
            written = list(self._with_writers(key)) or [(key, each) for each in self._nameless(key)]
            if held and len(written) > 1:  # of several rows it is not known which one is meant
                raise refuse("convert.wired", inputs=", ".join(name for name, _ in held), at=self._called(key))
            for writer, each in written:
                if each.name.strip().lower() in NO_LORA and not held:
                    continue
                clip = 0.0 if (silent and not off) or not self._appliers[key].clip else self._level_of_clip(each)
                if max(abs(each.strength), abs(clip)) > MAX_STRENGTH:
                    raise refuse("convert.strength", lora=each.name, at=self._called(key), most=MAX_STRENGTH)
                if each.name.lower().endswith(FILE_ENDINGS[2:]):
                    raise refuse("convert.pickle", lora=each.name, at=self._called(key))
                loose = not each.name.lower().endswith(FILE_ENDINGS)
                yield Written(key, each.name, each.strength, clip, each.on and not off, loose, held, writer)
            tree.lists |= {self._local(each.id) for each in list_nodes(self._graph, node)}

    def _written(self, key: str) -> list[Named]:
        return [each for _, each in self._with_writers(key)]

    def _with_writers(self, key: str) -> Iterator[tuple[str, Named]]:
        """(the node it is written in, the LoRA) of a member, those of lists first."""
        node = self._settled(key)
        for above in (*list_nodes(self._graph, node), node):
            yield from ((self._local(above.id), each) for each in written_loras(above))

    def _nameless(self, key: str) -> list[Named]:
        """The row of a member whose LoRA only the run knows, with its strengths."""
        node = self._settled(key)
        if not self._appliers[key].held or "lora_name" not in node.links:
            return []
        strength, clip = (number(node, name) for name in ("strength_model", "strength_clip"))
        return [Named("", 1.0 if strength is None else strength, "", clip)]

    def _held(self, key: str) -> Iterator[tuple[str, Taker]]:
        """(input of ours, what sets it) of the values that come from elsewhere."""
        applier, piece = self._appliers[key], self._level.pieces[key]
        names = dict(applier.held)
        for name in (*piece.wires, *self._level.held(piece)):
            if name in names:
                yield names[name], (key, name)

    # --- what cannot be taken apart

    def _check(self, key: str, tree: Tree) -> None:
        """Refuse a member that does more, or knows less before a run, than rows of ours can say."""
        applier, node = self._appliers[key], self._settled(key)
        if tree.source[1] < 0:
            raise refuse("convert.unwired", at=self._called(key))
        self._check_outputs(key, applier)
        known = {applier.model, applier.clip, applier.stack, *(name for name, _ in applier.held)}
        set_elsewhere = {*self._level.pieces[key].wires, *self._level.held(self._level.pieces[key])} - known
        if set_elsewhere:
            raise refuse("convert.wired", inputs=", ".join(sorted(set_elsewhere)), at=self._called(key))
        for each in (node, *list_nodes(self._graph, node)):
            blind = is_blind(self._graph, each) and not (each is node and applier.held)
            if blind or (each is not node and each.kind not in STACKERS):
                raise refuse("convert.unread", at=self._called(self._local(each.id)))
            if each is not node:
                self._check_list(each)

    def _check_list(self, node: GraphNode) -> None:
        piece = self._level.pieces.get(self._local(node.id))
        if piece is None or not node.id.startswith(self._level.path):
            raise refuse("convert.unread", at=self._called(self._local(node.id)))
        set_elsewhere = {*piece.wires, *self._level.held(piece)} - {"lora_stack", "optional_lora_stack"}
        if set_elsewhere:
            raise refuse("convert.wired", inputs=", ".join(sorted(set_elsewhere)), at=self._called(piece.id))

    def _check_outputs(self, key: str, applier: Applier) -> None:
        known = {MODEL_OUT, CLIP_OUT} if applier.clip else {MODEL_OUT}
        taken = {wire[1] for piece in self._level.pieces.values() for wire in piece.wires.values() if wire[0] == key}
        if taken - known:
            raise refuse("convert.outputs", at=self._called(key), output=min(taken - known))

    # --- names

    def _node(self, key: str) -> GraphNode | None:
        return self._graph.nodes.get(self._level.path + key)

    def _settled(self, key: str) -> GraphNode:
        return self._graph.nodes[self._level.path + key]

    def _local(self, identity: str) -> str:
        return identity.removeprefix(self._level.path)

    def _called(self, key: str) -> str:
        piece = self._level.pieces.get(key)
        title = (piece.title or piece.kind) if piece else ""
        return f"{title} (node {self._level.path}{key})"


@dataclass
class _Way:
    """The way from a member down: nodes as they are met, what they stand among, and where it ends."""

    members: list[str]
    between: list[str] = field(default_factory=list)
    passed: set[str] = field(default_factory=set)
    source: Out = ("", 0)
