"""A workflow of native LoRA loaders as one with our stages: known accelerators fused, the rest stacked, finished last.

What is given is never changed; a copy is. A tree of loaders that cannot be taken apart faithfully stays as it is, and
the reason is told. Everything else of a workflow stays as it was written.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.json_types import ConvertedJSON, ConvertJSON
from ...engine.texts.say import refuse
from ..lint.files import Files, Find, LineageOf
from ..workflows.canvas import entries, mapping, mappings, name_of, text
from ..workflows.constants import with_constants
from ..workflows.graph import ON, Graph
from ..workflows.lora_kinds import NO_MODEL_LORAS
from ..workflows.node_kinds import TRAINERS
from ..workflows.node_values import is_lora_node
from ..workflows.reading import forms, graph_of
from ..workflows.tracing import lora_rows, trails
from .building import Builder, Made
from .canvas_level import CanvasLevel, Numbers
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
    made = copy.deepcopy(dict(given or {}))
    if canvas is not None:
        graph = with_constants(graph_of(made, where))
    canvases = [] if form == PROMPT else list(_levels(made, graph))
    levels: list[Level] = [PromptLevel(made)] if form == PROMPT else [*canvases]
    files = Files(find, lineage_of)
    jobs = [_Job(level, tree) for level in levels for tree in Finder(graph, level).trees()]
    for job in jobs:
        _stand(graph, job, files)
    _leave_what_is_below(graph, jobs)
    result = Conversion(form, made, left=[*_unknown(graph), *_problems(jobs)])
    for job in jobs:
        if job.tree.problem is None:
            result.converted += _converted(job, files)
    if canvases:
        _count_on(made, canvases)
    return result


def _stand(graph: Graph, job: _Job, files: Files) -> None:
    """Find out what a tree stands on, or why it cannot be converted."""
    if job.tree.problem is None:
        try:
            job.ground = ground_of(graph, job.level, job.tree, files)
        except FoundryError as error:
            job.tree.problem = error


def _leave_what_is_below(graph: Graph, jobs: list[_Job]) -> None:
    """What a tree stands on that is left stays too: half a stack in our nodes and half above them is worse."""
    below = trails(graph)
    for job in jobs:
        if job.tree.problem is None:
            continue
        ids = {job.level.path + member for member in job.tree.members}
        nodes = {node for member in ids for way in below.get(member, ()) for node in way.nodes}
        for other in jobs:
            mine = {other.level.path + member for member in other.tree.members}
            if other.tree.problem is None and mine & nodes:
                other.tree.problem = refuse("convert.above", nodes=", ".join(sorted(ids)))


def _problems(jobs: list[_Job]) -> Iterator[Finding]:
    for job in jobs:
        if job.tree.problem is not None:
            node = job.level.path + min(job.tree.members, key=lambda key: (len(key), key))
            yield job.tree.problem.finding(severity="note", node=node)


def _unknown(graph: Graph) -> Iterator[Finding]:
    """Nodes that put LoRAs on a model in a way that cannot be taken apart."""
    for node in graph.nodes.values():
        known = node.kind in (*APPLIERS, *STACKERS, *NO_MODEL_LORAS, *TRAINERS) or node.kind.startswith("Foundry")
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


def _converted(job: _Job, files: Files) -> list[ConvertedJSON]:
    """Build the nodes of a tree and place them."""
    level = job.level
    near = [box_of(level.nodes[key]) for key in job.tree.members] if isinstance(level, CanvasLevel) else []
    made = Builder(level, files, job.ground).build(job.tree)
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


# --- canvases


def _levels(saved: dict[str, Any], graph: Graph) -> Iterator[CanvasLevel]:
    """The workflow, and each subgraph definition that is in use, once: by its first use that is on."""
    definitions = {text(each.get("id")): each for each in _definitions(saved)}
    canvases = [saved, *definitions.values()]
    numbers = Numbers(*(max(map(count, canvases), default=0) for count in (_last_node, _last_link)))
    hosts: dict[str, list[dict[str, Any]]] = {}
    for canvas in canvases:
        for node in entries(canvas.get("nodes")):
            hosts.setdefault(text(mapping(node).get("type")), []).append(node)
    yield CanvasLevel("", saved, numbers)
    for identity, path in _uses(saved, definitions, graph):
        yield CanvasLevel(path, definitions[identity], numbers, hosts[identity])


def _definitions(saved: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = list(mappings(mapping(saved.get("definitions")).get("subgraphs")))
    for definition in waiting:  # grows while it is read
        if isinstance(definition, dict) and isinstance(definition.get("nodes"), list):
            yield definition
        waiting += mappings(mapping(definition.get("definitions")).get("subgraphs"))


def _uses(
    saved: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]], graph: Graph
) -> Iterator[tuple[str, str]]:
    """(definition, path of its nodes) of each definition that runs somewhere."""
    running = {node.id.rpartition(":")[0] for node in graph.nodes.values() if node.mode == ON}
    waiting: list[tuple[str, Mapping[str, Any]]] = [("", saved)]
    seen: set[str] = set()
    for path, canvas in waiting:
        for node in mappings(canvas.get("nodes")):
            identity, own = text(node.get("type")), f"{path}{name_of(node.get('id'))}"
            if identity in definitions and identity not in seen:
                waiting.append((f"{own}:", definitions[identity]))
                if own in running:
                    seen.add(identity)
                    yield identity, f"{own}:"


def _last_node(canvas: Mapping[str, Any]) -> int:
    ids = [node.get("id") for node in mappings(canvas.get("nodes"))]
    return _most(*ids, canvas.get("last_node_id"), mapping(canvas.get("state")).get("lastNodeId"))


def _last_link(canvas: Mapping[str, Any]) -> int:
    links = entries(canvas.get("links"))
    ids = [link.get("id") if isinstance(link, Mapping) else next(iter(entries(link)), None) for link in links]
    return _most(*ids, canvas.get("last_link_id"), mapping(canvas.get("state")).get("lastLinkId"))


def _most(*numbers: object) -> int:
    return max((number for number in numbers if isinstance(number, int)), default=0)


def _count_on(saved: dict[str, Any], levels: list[CanvasLevel]) -> None:
    """Write down the last ids that are in use now."""
    numbers = levels[0].numbers
    for canvas in (saved, *_definitions(saved)):
        for owner, node, link in (
            (canvas, "last_node_id", "last_link_id"),
            (canvas.get("state"), "lastNodeId", "lastLinkId"),
        ):
            if isinstance(owner, dict):
                owner.update(
                    {key: value for key, value in ((node, numbers.node), (link, numbers.link)) if key in owner}
                )
