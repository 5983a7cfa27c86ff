"""Single LoRAs moved between the stages of a workflow: into 1 Fuse Base LoRA, into the stack, or out of it.

Each move changes one level, and says whether it could be made: where a LoRA does more than a row of ours can say, or
the stage it belongs to is not there, nothing is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from ...engine.errors import FoundryError
from ..documents.document import Row, parse_rows
from ..lint.files import Files
from ..workflows.graph import Graph, GraphNode
from ..workflows.node_kinds import FUSE_NODE, SCHEDULERS, STACK_NODE
from ..workflows.node_values import Named, written_loras
from ..workflows.tracing import list_nodes
from .building import rows_text
from .canvas_level import CanvasLevel
from .foreign import row_of
from .ground import may_change_clip
from .kinds import APPLIERS, CLIP_OUT, LIST_NODE, MODEL_OUT, ROW_NODE
from .layout import arrange, box_of
from .level import Level, Out

VANILLA = "none: vanilla base"  # in 1 Fuse Base LoRA
Move = Callable[["Mover", str, str], bool]


class Mover:
    """Moves LoRAs on one level of a workflow, whose graph is settled."""

    def __init__(self, graph: Graph, level: Level, files: Files) -> None:
        self._graph, self._level, self._files = graph, level, files

    def fuse(self, node: str, lora: str) -> bool:
        """A base LoRA goes into 1 Fuse Base LoRA below the stack a node belongs to, and out of that stack.

        Fusing leaves CLIP alone: what the LoRA does to a CLIP of the stack stays there, in a row at 0 on the model.
        """
        stack = self._stack_below(node)
        below = self._level.pieces[stack].wires.get("model") if stack else None
        name = self._files.spelled(lora, loose=True)
        if below is None or self._files.is_missing(name):
            return False
        if self._is_fused(stack, name):  # for another LoRA that needs it too
            return True
        on_clip = "clip" in self._level.pieces[stack].wires and may_change_clip(self._files, name)
        strength = self._take_out(stack, lora, on_clip)
        if strength is None:
            return False
        at = self._level.origin(below)[0]
        free = self._kind(at) == FUSE_NODE and self._value(at, "lora_name") == VANILLA
        if free and len(list(self._level.uses((at, MODEL_OUT)))) == 1:
            return self._set(at, "strength", strength) and self._set(at, "lora_name", name)
        made = self._level.add(FUSE_NODE, {"lora_name": name, "strength": strength})
        self._level.wire(below, made, "model")
        self._level.wire((made, MODEL_OUT), stack, "model")
        self._place(made, stack)
        return True

    def remove(self, node: str, lora: str) -> bool:
        """A LoRA goes: its row, or its node, whose model and CLIP come from below it then."""
        kind = self._kind(node)
        if kind in (LIST_NODE, ROW_NODE):
            return bool(self._take_row(node, lora))
        names = [_plain(each.name) for each in written_loras(self._settled(node))]
        if names != [_plain(lora)] or list_nodes(self._graph, self._settled(node)):
            return False
        return self._splice(node, "model", APPLIERS[kind].clip if kind in APPLIERS else "")

    def to_stack(self, node: str, lora: str) -> bool:
        """A native loader's LoRAs go into the stack of the same model, and the loader goes."""
        applier, below = APPLIERS.get(self._kind(node)), self._stack_below(node)
        stack = below or next((key for key in self._below(node) if self._kind(key) == STACK_NODE), "")
        if applier is None or applier.own or not stack or any(self._is_given(node, name) for name, _ in applier.held):
            return False
        settled, clip = self._settled(node), self._level.pieces[node].wires.get(applier.clip)
        lists = list_nodes(self._graph, settled)
        taken = clip is not None and any(self._level.uses((node, CLIP_OUT)))
        others = [use for use in self._level.uses((stack, CLIP_OUT)) if use[0] != node]
        if lists or (taken and (clip is None or others or self._level.origin(clip) != (stack, CLIP_OUT))):
            return False
        if not (self._ends_in(node, stack) if below else self._ends_in(stack, node)):
            return False  # others, who take the model between the two, would get another one
        on_clip = bool(applier.clip) and (taken or "clip" not in self._level.pieces[stack].wires)
        rows = [row_of(each, self._files, on_clip) for each in written_loras(settled)]
        return self._splice(node, applier.model, applier.clip) and self._append(stack, rows)

    # --- the stack of a model

    def _stack_below(self, node: str) -> str:
        """The first 2 Stack LoRAs that a node leads to, itself included; "" where there is none."""
        waiting = [node]
        for key in waiting:
            if self._kind(key) == STACK_NODE:
                return key
            outs = {wire for piece in self._level.pieces.values() for wire in piece.wires.values() if wire[0] == key}
            takers = (taker for out in sorted(outs) for taker, _ in self._level.uses(out))
            waiting += [taker for taker in takers if taker in self._level.pieces and taker not in waiting]
        return ""

    def _below(self, node: str) -> Iterator[str]:
        """The nodes that the model of a node comes from, the nearest first."""
        for _ in range(len(self._level.pieces)):
            wire = self._level.pieces[node].wires.get("model") if node in self._level.pieces else None
            if wire is None:
                return
            node = self._level.origin(wire)[0]
            yield node

    def _is_fused(self, stack: str, name: str) -> bool:
        fused = (self._value(key, "lora_name") for key in self._below(stack) if self._kind(key) == FUSE_NODE)
        return any(_plain(str(each)) == _plain(name) for each in fused)

    def _ends_in(self, node: str, end: str) -> bool:
        """Whether everything the model of a node goes through comes to one other node; a scheduler may look on."""
        waiting = [node]
        for key in waiting:
            uses = self._level.uses((key, MODEL_OUT))
            takers = [taker for taker, _ in uses if self._kind(taker) not in SCHEDULERS]
            if not takers:
                return False
            waiting += [taker for taker in dict.fromkeys(takers) if taker != end and taker not in waiting]
        return True

    # --- rows

    def _take_out(self, stack: str, lora: str, on_clip: bool) -> float | None:
        """Take a LoRA out of the lists of a stack: its strength there, 1 where it is not among them.

        None where it cannot be taken out of one of them, or acts by block, which 1 Fuse Base LoRA cannot. ``on_clip``:
        what it does to the CLIP stays.
        """
        total: list[float] = []
        for each in list_nodes(self._graph, self._settled(stack)):
            if not any(row.on and _plain(row.name) == _plain(lora) for row in _written(each)):
                continue
            rows = self._take_row(each.id.removeprefix(self._level.path), lora, on_clip)
            if not rows or any(row.blocks for row in rows):
                return None
            total += [row.strength for row in rows]
        return sum(total) if total else 1.0

    def _take_row(self, node: str, lora: str, on_clip: bool = False) -> list[Row]:
        """Take a LoRA out of a list, or switch a LoRA node off: its rows that are on; none where that cannot be done.

        A list that serves several models stays as it is. ``on_clip``: its row stays, at 0 on the model, where it has a
        strength on the CLIP.
        """
        if not self._serves_one(node):
            return []
        if self._kind(node) == ROW_NODE:
            return self._switch_off(node, lora, on_clip)
        rows, written = self._rows_of(node) if self._kind(node) == LIST_NODE else ((), [])
        if any(row.solo for row in rows):  # the others might be heard without it
            return []
        here = [row.on and _plain(row.path) == _plain(lora) for row in rows]
        left = [
            _left(row, each, on_clip) if gone else each for row, each, gone in zip(rows, written, here, strict=True)
        ]
        if not any(here) or not self._set(node, "loras", rows_text([each for each in left if each is not None])):
            return []
        return [row for row, gone in zip(rows, here, strict=True) if gone]

    def _switch_off(self, node: str, lora: str, on_clip: bool) -> list[Row]:
        """The same of a LoRA node."""
        name, strength, blocks = (self._value(node, key) for key in ("lora_name", "strength_model", "blocks"))
        if _plain(str(name)) != _plain(lora) or not isinstance(strength, int | float):
            return []
        acts = self._is_given(node, "strength_clip") or bool(self._value(node, "strength_clip"))
        change = ("strength_model", 0.0) if on_clip and acts else ("enabled", False)
        return [Row(lora, float(strength), blocks=str(blocks or ""))] if self._set(node, *change) else []

    def _serves_one(self, node: str) -> bool:
        """Whether a list comes to one taker at most, be it through other lists."""
        waiting, ends = [node], set[tuple[str, str]]()
        for key in waiting:
            for taker in self._level.uses((key, MODEL_OUT)):
                if self._kind(taker[0]) not in (LIST_NODE, ROW_NODE):
                    ends.add(taker)
                elif taker[0] not in waiting:
                    waiting.append(taker[0])
        return len(ends) <= 1

    def _rows_of(self, node: str) -> tuple[tuple[Row, ...], list[Any]]:
        """The rows of a LoRA Stack, and each as it is written; none of a text that is no plain list."""
        text = self._value(node, "loras")
        try:
            written = json.loads(text) if isinstance(text, str) else None
            return (parse_rows(text, node), written) if isinstance(written, list) else ((), [])
        except (FoundryError, ValueError):
            return (), []

    def _append(self, stack: str, rows: list[dict[str, Any]]) -> bool:
        """Put rows behind those of a stack: into its LoRA Stack, or into a new one after what is wired."""
        above = self._level.pieces[stack].wires.get("lora_stack")
        at = self._level.origin(above)[0] if above else ""
        if self._kind(at) == LIST_NODE and self._serves_one(at) and not self._is_given(at, "loras"):
            others, written = self._rows_of(at)
            plain = bool(written) or self._value(at, "loras") in ("[]", "")
            if plain and not any(row.solo for row in others):  # which would silence what comes
                return self._set(at, "loras", rows_text([*written, *rows]))
        made = self._level.add(LIST_NODE, {"loras": rows_text(rows)})
        if above:
            self._level.wire(above, made, "lora_stack")
        self._level.wire((made, MODEL_OUT), stack, "lora_stack")
        self._place(made, stack)
        return True

    # --- nodes

    def _splice(self, node: str, model: str, clip: str) -> bool:
        """Take a node away: who took its model and CLIP takes what came into it."""
        wires = self._level.pieces[node].wires
        ways: list[tuple[Out, Out | None]] = [((node, MODEL_OUT), wires.get(model))]
        if clip:
            ways.append(((node, CLIP_OUT), wires.get(clip)))
        if ways[0][1] is None or any(source is None and self._level.takers(out) for out, source in ways):
            return False
        for out, source in ways:
            if source is not None:
                self._level.hand_over(out, source)
        self._level.remove([node])
        return True

    def _is_given(self, node: str, name: str) -> bool:
        """Whether an input has its value by wire, or from the subgraph's own node."""
        piece = self._level.pieces[node]
        return name in piece.wires or name in self._level.held(piece)

    def _set(self, node: str, name: str, value: object) -> bool:
        return not self._is_given(node, name) and self._level.set_value(node, name, value)

    def _place(self, made: str, beside: str) -> None:
        level = self._level
        if isinstance(level, CanvasLevel):
            arrange(level.saved, level.nodes, [[made]], box_of(level.nodes[beside]), "")

    def _kind(self, node: str) -> str:
        piece = self._level.pieces.get(node)
        return piece.kind if piece else ""

    def _settled(self, node: str) -> Any:
        return self._graph.nodes[self._level.path + node]

    def _value(self, node: str, name: str) -> Any:
        return self._settled(node).values.get(name)


MOVES: dict[str, Move] = {"fuse": Mover.fuse, "remove": Mover.remove, "stack": Mover.to_stack}


def _left(row: Row, written: Any, on_clip: bool) -> dict[str, Any] | None:
    """What is left of a row that is taken out: what it does to the CLIP, None where that is nothing."""
    clip = row.strength if row.clip_strength is None else row.clip_strength
    if not (on_clip and clip):
        return None
    kept = written if isinstance(written, dict) else {"path": row.path}
    others = {key: value for key, value in kept.items() if key not in ("weight", "clip_weight")}
    return {**others, "strength": 0.0, "clip_strength": clip}


def _written(node: GraphNode) -> list[Named]:
    """The LoRAs of a list; none of one that cannot be read."""
    try:
        return written_loras(node)
    except FoundryError:
        return []


def _plain(name: str) -> str:
    return name.replace("\\", "/")
