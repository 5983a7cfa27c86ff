"""A workflow of native LoRA loaders as one with our stages: known accelerators fused, the rest stacked, finished last.

What is given is never changed; a copy is. A tree of loaders that cannot be taken apart faithfully stays as it is, and
the reason is told. Everything else of a workflow stays as it was written.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.json_types import ConvertedJSON, ConvertJSON
from ...engine.texts.say import refuse
from ..lint.files import Files, Find, LineageOf
from ..workflows.canvas import mapping
from ..workflows.constants import with_constants
from ..workflows.graph import ON, Graph
from ..workflows.lora_kinds import NO_MODEL_LORAS
from ..workflows.node_kinds import TRAINERS
from ..workflows.node_values import is_lora_node
from ..workflows.reading import forms, graph_of
from ..workflows.tracing import Trails, lora_rows, trails
from ..workflows.trail import nodes_passed
from .building import Builder, Lists, Made
from .canvas_level import CanvasLevel
from .canvases import count_on, levels_of
from .chains import Finder, Tree
from .ground import Ground, ground_of
from .kinds import APPLIERS, STACKERS
from .layout import Box, around, arrange, box_of
from .level import Level, PromptLevel

SCHEMA = 1
WORKFLOW, PROMPT = "workflow", "prompt"


@dataclass
class Conversion:
    """What became of a workflow: the new one in the form it came in, what was converted, and what was left, and why."""

    form: str
    made: dict[str, Any]
    converted: list[ConvertedJSON] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)

    def to_json(self) -> ConvertJSON:
        """Plain data, the same for command line, HTTP and browser."""
        told: ConvertJSON = {
            "schema": SCHEMA,
            "form": self.form,
            "changed": bool(self.converted),
            "converted": self.converted,
            "left": [finding.to_json() for finding in self.left],
            "made": self.made,
        }
        return told


@dataclass
class _Job:
    """A tree on its level, and what it stands on."""

    level: Level
    tree: Tree
    ground: Ground = field(default_factory=Ground)


def convert(
    data: object, find: Find | None = None, lineage_of: LineageOf | None = None, where: str = "The workflow"
) -> Conversion:
    """Convert parsed JSON in either form; of both the workflow. ``find`` and ``lineage_of`` are those of a lint.

    Raises FoundryError ``workflow`` for what is none.
    """
    graph = with_constants(graph_of(data, where))
    prompt, canvas = forms(data)
    form, given = (PROMPT, prompt) if canvas is None else (WORKFLOW, canvas)
    made = copied(given)
    if canvas is not None:
        graph = with_constants(graph_of(made, where))
    canvases = [] if form == PROMPT else list(levels_of(made, graph))
    levels: list[Level] = [PromptLevel(made)] if form == PROMPT else [*canvases]
    files = Files(find, lineage_of)
    jobs = [_Job(level, tree) for level in levels for tree in Finder(graph, level).trees()]
    below = trails(graph)
    for job in jobs:
        _stand(graph, below, job, files)
    _leave_what_is_below(below, jobs)
    result = Conversion(form, made, left=[*_unknown(graph, jobs), *_problems(jobs)])
    lists: dict[str, Lists] = {}
    for job in jobs:
        if job.tree.problem is None:
            result.converted += _converted(job, files, lists.setdefault(job.level.path, {}))
    if canvases:
        count_on(made, canvases)
    if not result.converted:
        result.made = copied(given)
    return result


def copied(given: object) -> dict[str, Any]:
    """A copy of parsed JSON. FoundryError ``workflow`` where it is nested beyond what can be copied."""
    try:
        return copy.deepcopy(dict(mapping(given)))
    except RecursionError:
        raise refuse("convert.deep") from None


def _stand(graph: Graph, below: Trails, job: _Job, files: Files) -> None:
    """Find out what a tree stands on, or why it cannot be converted."""
    if job.tree.problem is None:
        try:
            job.ground = ground_of(graph, below, job.level, job.tree, files)
        except FoundryError as error:
            job.tree.problem = error


def _leave_what_is_below(below: Trails, jobs: list[_Job]) -> None:
    """What a tree stands on that is left stays too: half a stack in our nodes and half above them is worse."""
    owners = {job.level.path + member: job for job in jobs for member in job.tree.members}
    for job in jobs:
        if job.tree.problem is None:
            continue
        ids = {job.level.path + member for member in job.tree.members}
        for node in nodes_passed(way for member in ids for way in below.get(member, ())):
            other = owners.get(node)
            if other is not None and other.tree.problem is None:
                other.tree.problem = refuse("convert.above", nodes=", ".join(sorted(ids)))


def _problems(jobs: list[_Job]) -> Iterator[Finding]:
    for job in jobs:
        if job.tree.problem is not None:
            node = job.level.path + min(job.tree.members, key=lambda key: (len(key), key))
            yield job.tree.problem.finding(severity="note", node=node)


def _unknown(graph: Graph, jobs: list[_Job]) -> Iterator[Finding]:
    """Nodes that put LoRAs on a model in a way that cannot be taken apart."""
    members = {job.level.path + member for job in jobs for member in job.tree.members}
    for node in graph.nodes.values():
        known = (
            node.id in members
            or node.kind in (*APPLIERS, *STACKERS, *NO_MODEL_LORAS, *TRAINERS)
            or node.kind.startswith("Foundry")
        )
        if known or node.mode != ON or not is_lora_node(node):
            continue
        try:
            rows = lora_rows(graph, node)
        except FoundryError:
            continue
        if rows:
            called = f"{node.title or node.kind} (node {node.id})"
            names = ", ".join(row.name for row in rows)
            yield refuse("convert.kind", at=called, loras=names).finding(severity="note", node=node.id)


def _converted(job: _Job, files: Files, lists: Lists) -> list[ConvertedJSON]:
    """Build the nodes of a tree and place them."""
    level = job.level
    near = [box_of(level.nodes[key]) for key in job.tree.members] if isinstance(level, CanvasLevel) else []
    made = Builder(level, files, job.ground, lists).build(job.tree)
    if isinstance(level, CanvasLevel):
        _place(level, job, made, around(near))
    return [each.told for each in made if each.told is not None]


def _place(level: CanvasLevel, job: _Job, made: list[Made], near: Box) -> None:
    name = PurePosixPath(job.ground.name.replace("\\", "/")).stem
    if job.ground.replace:
        made[0].columns.insert(0, [job.tree.source[0]])
    for each in made:
        wanted = "quantize" if job.ground.quantize else "apply"
        title = f"LoRA Foundry: fuse, stack, {wanted}" + (f" - {name}" if name else "")
        arrange(level.saved, level.nodes, each.columns, near, title)
