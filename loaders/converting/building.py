"""What a chain becomes: which LoRAs are fused and which stacked, how it ends, and the nodes of ours that say so."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ...engine.json_types import ConvertedJSON
from ...engine.lineage import ACCELERATOR
from ..lint.files import Files
from ..plans.describe import role_at
from ..workflows.node_kinds import APPLY_NODE, FUSE_NODE, QUANTIZE_NODE, STACK_NODE, VALIDATOR_NODE
from ..workflows.node_values import LoraRow
from ..workflows.trail import Applied
from .chains import Chain, Tree, Written
from .ground import Ground, may_change_clip
from .kinds import CLIP_OUT, LIST_NODE, LOADERS, MODEL_OUT, ROW_NODE, TAKEN_APART, Applier
from .level import Level, Out

HELD_BY_FUSE = {"lora_name": "lora_name", "strength_model": "strength"}  # inputs of LoRA, and of 1 Fuse Base LoRA


Lists = dict[tuple[str, tuple[str, ...]], Out]  # rows and the nodes that wrote them -> the LoRA Stack they became


@dataclass
class Made:
    """The nodes of ours for one chain, the loader first: columns of node ids, from left to right."""

    columns: list[list[str]] = field(default_factory=list)
    told: ConvertedJSON | None = None


class Builder:
    """Puts the nodes for the chains of one tree on a level. ``lists`` are shared by its trees: a stacker that serves
    several models becomes one LoRA Stack.
    """

    def __init__(self, level: Level, files: Files, ground: Ground, lists: Lists) -> None:
        self._level, self._files, self._ground, self._lists = level, files, ground, lists
        self._base_out: Out = ("", 0)
        self._late: list[str] | None = None  # nodes that take the base after whoever took it was given ours

    def build(self, tree: Tree) -> list[Made]:
        """All nodes of a tree, wired; the nodes they stand for are gone."""
        stay = {key for key in tree.members if self._applier(key).own}
        self._base_out, loader = self._base(tree)
        self._late = [] if stay else None
        made = [self._chain(chain) for chain in tree.chains]
        for node in self._late or ():
            self._level.wire(self._base_out, node, "model")
        if loader and made:
            made[0].columns.insert(0, [loader])
        gone = [*(tree.members - stay), *self._idle_lists(tree)]
        writers = {row.writer for chain in tree.chains for row in chain.rows}
        for key in stay:
            if key in writers:
                self._level.set_value(key, self._applier(key).own[0], "None")
            self._level.unwire(key, self._applier(key).stack)
        self._level.remove(gone, tree.passed)
        self._level.gone.update(gone)
        return made

    def _base(self, tree: Tree) -> tuple[Out, str]:
        """(where the model comes from now, the id of a loader that is new)."""
        ground = self._ground
        if not ground.loader:
            return tree.source, ""
        kind, name, ours = LOADERS[ground.loader]
        if ground.replace:
            self._level.become(tree.source[0], kind, {name: ours})
            return tree.source, ""
        made = self._level.add(kind, {ours: ground.name})
        return (made, MODEL_OUT), made

    def _chain(self, chain: Chain) -> Made:
        fused, stacked = self._sorted(chain)
        made, here = Made(), None
        for row in fused:
            here = self._fuse(row, here, made)
        clip = chain.clip
        if stacked:
            here, clip = self._stack(chain, stacked, here, made)
        check = self._level.add(VALIDATOR_NODE, {})
        self._wire_model(here, check)
        kind, settings = (QUANTIZE_NODE, self._ground.quantize) if self._ground.quantize else (APPLY_NODE, {})
        end = self._level.add(kind, settings)
        self._level.wire((check, MODEL_OUT), end, "model")
        made.columns.append([check, end])
        self._hand_over(chain, (end, MODEL_OUT), clip)
        made.told = self._told(fused, stacked, made, kind)
        return made

    def _wire_model(self, below: Out | None, node: str) -> None:
        """Wire what is below, None for the base."""
        if below is None and self._late is not None:
            self._late.append(node)
        else:
            self._level.wire(below or self._base_out, node, "model")

    def _applier(self, key: str) -> Applier:
        return TAKEN_APART[self._level.pieces[key].kind]

    def _fuse(self, row: Written, below: Out | None, made: Made) -> Out:
        node = self._level.add(FUSE_NODE, {"lora_name": self._name(row), "strength": row.strength})
        self._wire_model(below, node)
        for ours, taker in row.held:
            if ours in HELD_BY_FUSE:
                self._level.move_input(taker, (node, HELD_BY_FUSE[ours]))
        made.columns.append([node])
        return node, MODEL_OUT

    def _stack(self, chain: Chain, rows: list[Written], below: Out | None, made: Made) -> tuple[Out, Out | None]:
        """2 Stack LoRAs with its rows: (the stacked model, the CLIP)."""
        source, nodes = self._rows(rows)
        node = self._level.add(STACK_NODE, {})
        self._wire_model(below, node)
        self._level.wire(source, node, "lora_stack")
        if chain.clip is not None:
            self._level.wire(chain.clip, node, "clip")
        made.columns += [nodes, [node]]
        return (node, MODEL_OUT), (node, CLIP_OUT) if chain.clip is not None else None

    def _rows(self, rows: list[Written]) -> tuple[Out, list[str]]:
        """A list of rows: one LoRA Stack, and a LoRA node for each whose values are set from elsewhere."""
        listed = [row for row in rows if not row.held]
        nodes, here = [], None
        for row in (row for row in rows if row.held):
            here = self._held_row(row, here)
            nodes.append(here[0])
        if not listed and here is not None:
            return here, nodes
        text = rows_text([self._row(row) for row in listed])
        same = (text, tuple(row.writer for row in listed))
        if here is None and same in self._lists:
            return self._lists[same], []
        node = self._level.add(LIST_NODE, {"loras": text})
        if here is not None:
            self._level.wire(here, node, "lora_stack")
        else:
            self._lists[same] = (node, MODEL_OUT)
        return (node, MODEL_OUT), [*nodes, node]

    def _held_row(self, row: Written, above: Out | None) -> Out:
        values = {"lora_name": self._name(row), "strength_model": row.strength, "strength_clip": row.clip}
        node = self._level.add(ROW_NODE, {**values, "enabled": row.on})
        if above is not None:
            self._level.wire(above, node, "lora_stack")
        for ours, taker in row.held:
            self._level.move_input(taker, (node, ours))
        return node, MODEL_OUT

    def _hand_over(self, chain: Chain, model: Out, clip: Out | None) -> None:
        """Whoever took model and CLIP of the chain takes them from ours; what stood among its nodes comes after."""
        end = (chain.members[-1], self._applier(chain.members[-1]).out)
        for node in chain.between:
            self._level.wire(model, node, "model")
            model = (node, 0)
        self._level.hand_over(end, model)
        for sampler in chain.piped:
            self._level.wire(model, *sampler)
        if clip is not None:
            for old in chain.clip_ends:
                self._level.hand_over(old, clip)

    # --- which LoRA goes where

    def _sorted(self, chain: Chain) -> tuple[list[Written], list[Written]]:
        """(LoRAs to fuse, LoRAs to stack) of a chain, each in its order.

        Fusing leaves CLIP alone: what a fused LoRA does to it is a row of the stack that is at 0 on the model.
        """
        fused, stacked = [], []
        for row in chain.rows:
            if row.on and row.strength and not self._names_itself(row) and self._is_accelerator(row):
                fused.append(row)
                if chain.clip is not None and row.clip and may_change_clip(self._files, self._name(row)):
                    held = tuple(each for each in row.held if each[0] == "strength_clip")
                    stacked.append(Written(row.node, row.name, 0.0, row.clip, True, row.loose, held))
            else:
                stacked.append(row)
        return fused, stacked

    @staticmethod
    def _names_itself(row: Written) -> bool:
        """Whether which LoRA it is may change with something outside."""
        return any(ours == "lora_name" for ours, _ in row.held)

    def _is_accelerator(self, row: Written) -> bool:
        applied = Applied(LoraRow(row.name, row.strength, row.loose), row.node)
        name = self._name(row)
        return role_at(self._files.path(name), name, self._files.lora(applied).lineage).role == ACCELERATOR

    def _name(self, row: Written) -> str:
        name = self._files.spelled(row.name, row.loose)
        return f"{name}.safetensors" if name and row.loose and name == row.name else name

    def _row(self, row: Written) -> dict[str, Any]:
        clip = {} if row.clip == row.strength else {"clip_strength": row.clip}
        return {"path": self._name(row), "strength": row.strength, **clip, **({} if row.on else {"on": False})}

    def _idle_lists(self, tree: Tree) -> list[str]:
        """Stackers that nobody takes from any more, or only each other."""
        gone = {*tree.members, *self._level.gone}
        left = {key: self._level.taken_by(key) - gone for key in tree.lists}
        idle = [key for key, takers in left.items() if not takers]
        for key in idle:  # grows while it is read
            for above in {wire[0] for wire in self._level.pieces[key].wires.values()}:
                if left.get(above):
                    left[above].discard(key)
                    idle += [] if left[above] else [above]
        return [key for key in idle if key not in gone]

    def _told(self, fused: list[Written], stacked: list[Written], made: Made, kind: str) -> ConvertedJSON:
        path = self._level.path
        return {
            "base": self._ground.name,
            "fused": [{"path": self._name(row), "strength": row.strength} for row in fused],
            "stacked": [
                {"path": self._name(row), "strength": row.strength, "clip_strength": row.clip, "on": row.on}
                for row in stacked
            ],
            "finish": "quantize" if kind == QUANTIZE_NODE else "apply",
            "nodes": [path + node for column in made.columns for node in column],
        }


def rows_text(rows: list[dict[str, Any]]) -> str:
    """Rows as LoRA Stack holds them: one a line."""
    lines = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in rows)
    return f"[\n{lines}\n]" if rows else "[]"
