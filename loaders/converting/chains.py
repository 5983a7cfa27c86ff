"""Chains of nodes that put LoRAs on a model, on one level: where each begins, its LoRAs, and who takes the result.

A tree is what grows from one output of a model; each of its ends is a chain of its own. A tree that cannot be taken
apart without changing what is computed is refused as a whole, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ..workflows.graph import BYPASSED, ON, Graph, GraphNode
from ..workflows.lora_kinds import LOW, NO_LORA
from ..workflows.node_kinds import FILE_ENDINGS
from ..workflows.node_values import Named, number, written_loras
from ..workflows.tracing import list_nodes
from ..workflows.unread import is_blind
from .kinds import CLIP_OUT, MODEL_OUT, NEUTRAL, PIPE_SAMPLERS, PIPED, SINGLES, STACKERS, TAKEN_APART, Applier
from .level import Level, Out, Taker
from .ways import Ways

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
    the members that do so, None where nobody takes it; ``clip_ends`` the outputs it was taken from. ``piped`` are the
    inputs for a model of samplers that get this one in a pipe.
    """

    source: Out
    members: tuple[str, ...]
    rows: tuple[Written, ...]
    between: tuple[str, ...] = ()
    clip: Out | None = None
    clip_ends: tuple[Out, ...] = ()
    piped: tuple[Taker, ...] = ()


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
            key: TAKEN_APART[piece.kind]
            for key, piece in level.pieces.items()
            if key
            and piece.kind in TAKEN_APART
            and piece.mode in (ON, BYPASSED)
            and self._puts_on(key)  # "" is no node
        }
        self._places = {key: number for number, key in enumerate(self._appliers)}
        self._ways = Ways(graph, level, self._appliers, self._acts_on_clip)

    def trees(self) -> list[Tree]:
        """Every tree, in the order of its first node."""
        found: dict[Out, Tree] = {}
        for key, source in self._ways.sources().items():
            found.setdefault(source, Tree(source)).members.add(key)
        for tree in found.values():
            tree.passed = self._ways.passed(tree.members)
            try:
                tree.chains = list(self._chains(tree))
            except FoundryError as error:
                tree.problem = error
        return sorted(found.values(), key=lambda tree: min(map(self._place, tree.members)))

    # --- the chains of a tree

    def _chains(self, tree: Tree) -> Iterator[Chain]:
        ends = [key for key in sorted(tree.members, key=self._place) if self._is_end(key)]
        if not ends:  # a ring: nothing comes out of it
            return
        for key in sorted(tree.members):
            self._check(key, tree)
        ways = {end: self._ways.down(end) for end in ends}
        clips = self._clips_by_end(tree, {end: members for end, (members, _) in ways.items()})
        crossed: set[str] = set()
        shown: set[str] = set()
        for end, (down, between) in ways.items():
            if crossed & set(between):
                raise refuse("convert.between", at=self._called(between[0]))
            crossed |= set(between)
            members = tuple(reversed(down))
            for key in shown & set(members):  # a widget that is shown outside is one widget
                raise refuse(
                    "convert.wired", inputs=", ".join(self._level.held(self._level.pieces[key])), at=self._called(key)
                )
            shown |= {key for key in members if any(self._level.held(self._level.pieces[key]))}
            mine = clips.get(end, [])
            clip, on_clip = self._clip(mine, members)
            rows = tuple(self._rows(members, on_clip, tree))
            piped = tuple(self._piped(end))
            yield Chain(tree.source, members, rows, tuple(reversed(between)), clip, tuple(mine), piped)

    def _is_end(self, key: str) -> bool:
        uses = list(self._level.uses((key, self._appliers[key].out)))
        piped = next(self._piped(key), None)
        if not uses and piped is None:
            raise refuse("convert.unused", at=self._called(key))
        return piped is not None or any(not self._leads_on(use) for use in uses)

    def _piped(self, key: str) -> Iterator[Taker]:
        """The inputs for a model of all who sample what is in the pipe of a loader.

        FoundryError ``convert`` where the pipe leads elsewhere, or a sampler has another model.
        """
        waiting = [(key, self._appliers[key].pipe)] if self._appliers[key].pipe >= 0 else []
        for out in waiting:
            for taker, _ in self._level.uses(out):
                piece = self._level.pieces.get(taker)
                kind = piece.kind if piece else ""
                name = PIPE_SAMPLERS.get(kind, "")
                if kind in PIPED and (taker, 0) not in waiting:
                    waiting.append((taker, 0))
                elif piece is None or not name or name in piece.wires or self._level.outputs(taker) & {0}:
                    raise refuse("convert.pipe", at=self._called(key), by=self._called(taker))
                else:
                    yield taker, name

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

    # --- CLIP

    def _clips_by_end(self, tree: Tree, ways: dict[str, list[str]]) -> dict[str, list[Out]]:
        """End -> the CLIP outputs of members that others than members take, and its stack makes: its own and, of
        members that are no end, those that it is the first end above."""
        nearest: dict[str, str] = {}
        for end, members in ways.items():
            for member in members:
                nearest.setdefault(member, end)
        found: dict[str, list[Out]] = {}
        for key in sorted(tree.members, key=self._place):
            uses = self._level.uses((key, CLIP_OUT)) if self._appliers[key].clip else ()
            if any(use[0] not in tree.members for use in uses):
                found.setdefault(key if key in ways else nearest[key], []).append((key, CLIP_OUT))
        return found

    def _clip(self, ends: list[Out], members: tuple[str, ...]) -> tuple[Out | None, set[str] | None]:
        """(the CLIP below, the members that change it) of a chain; (None, None) where nobody takes its CLIP."""
        feet = {self._ways.foot(key) for key, _ in ends}
        if not feet:
            return None, None
        if len(feet) > 1:
            raise refuse("convert.clips", at=self._called(ends[0][0]))
        ((source, _),) = feet
        on_clip = self._ways.acting(ends[0][0]) if source else set()
        if source is None or not on_clip <= set(members):
            raise refuse("convert.clip", at=self._called(ends[0][0]))
        return source, on_clip

    def _acts_on_clip(self, key: str) -> bool:
        return any(clip_of(each) for each in self._written(key) if each.on)

    # --- rows

    def _rows(self, members: tuple[str, ...], on_clip: set[str] | None, tree: Tree) -> Iterator[Written]:
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
                clip = 0.0 if (silent and not off) or not self._appliers[key].clip else clip_of(each)
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
            here = (each for each in written_loras(above) if each.half != LOW)  # of two models there is only the first
            yield from ((self._local(above.id), each) for each in here)

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
        if applier.own:  # the rest of it stays
            name, set_elsewhere = applier.own[0], set_elsewhere & set(applier.own)
            if not set_elsewhere and name in node.values:  # it has the value already: can it be set at all?
                set_elsewhere = set() if self._level.set_value(key, name, node.values[name]) else {name}
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
        known = {applier.out, *applier.others, *((CLIP_OUT,) if applier.clip else ())}
        if others := self._level.outputs(key) - known:
            raise refuse("convert.outputs", at=self._called(key), output=min(others))

    # --- names

    def _puts_on(self, key: str) -> bool:
        """Whether a node is in the graph, and names a LoRA if it is a loader."""
        node, piece = self._graph.nodes.get(self._level.path + key), self._level.pieces[key]
        if node is not None and piece.kind in SINGLES:
            return self._is_single(key, node)
        if node is None or not TAKEN_APART[piece.kind].own:
            return node is not None
        try:
            named = [each for above in (*list_nodes(self._graph, node), node) for each in written_loras(above)]
        except FoundryError:
            return False
        return piece.mode == ON and any(each.name.strip().lower() not in NO_LORA for each in named)

    def _is_single(self, key: str, node: GraphNode) -> bool:
        """Whether a node for two models has only the first, and no row that is for the second alone: versions differ
        in what they do with that."""
        alone = any(isinstance(row, Mapping) and row.get("low_only") for row in (*node.values.values(), *node.unnamed))
        wires = {*self._level.pieces[key].wires, *self._level.held(self._level.pieces[key])}
        first = wires <= {SINGLES[node.kind].model} and self._level.outputs(key) <= {MODEL_OUT}
        return first and not alone and self._level.pieces[key].mode == ON

    def _place(self, key: str) -> int:
        """Its place among the members of all trees."""
        return self._places[key]

    def _settled(self, key: str) -> GraphNode:
        return self._graph.nodes[self._level.path + key]

    def _local(self, identity: str) -> str:
        return identity.removeprefix(self._level.path)

    def _called(self, key: str) -> str:
        piece = self._level.pieces.get(key)
        title = (piece.title or piece.kind) if piece else ""
        return f"{title} (node {self._level.path}{key})"


def clip_of(named: Named) -> float:
    """The strength of a LoRA on the text encoders."""
    return named.strength if named.clip is None else named.clip
