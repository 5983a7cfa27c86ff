"""The fixes of findings made in a workflow: inputs set, file names replaced, native loaders converted.

What is given is never changed; a copy is, and only where a fix names it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...engine.errors import FoundryError
from ...engine.json_types import FixJSON
from ..documents.document import parse_rows
from ..lint.files import Find, LineageOf
from ..workflows.canvas import read_canvas
from ..workflows.graph import Graph
from ..workflows.reading import forms, graph_of
from .canvases import canvases_of
from .convert import Conversion, convert


def apply_fixes(
    data: object, fixes: Iterable[FixJSON], find: Find | None = None, lineage_of: LineageOf | None = None
) -> tuple[dict[str, Any], list[FixJSON], Conversion | None]:
    """(the workflow with these fixes, those that could be made, what a conversion came to, None without one).

    Raises FoundryError ``workflow`` for what is none.
    """
    prompt, canvas = forms(data)
    made: dict[str, Any] = copy.deepcopy(dict(canvas or prompt or {}))
    done: list[FixJSON] = []
    converting = []
    for fix in fixes:
        if fix["action"] == "convert":
            converting.append(fix)
        elif (changed := _changed(made, fix, canvas is not None)) is not None:
            made = changed
            done.append(fix)
    if not converting:
        return made, done, None
    conversion = convert(made, find, lineage_of)
    return conversion.made, [*done, *(converting if conversion.converted else [])], conversion


def _changed(saved: dict[str, Any], fix: FixJSON, drawn: bool) -> dict[str, Any] | None:
    """A copy with one change; None where it cannot be made there: its input is wired, or set from outside."""
    graph = graph_of(saved)
    node = graph.nodes.get(fix["node"])
    if node is None:
        return None
    if fix["action"] == "set":
        change = (node.id, fix["input"], fix["value"]) if fix["input"] in node.values else None
    else:
        change = next(_renamed(graph, fix), None)
    made = copy.deepcopy(saved)
    if change is None or not _set(made, *change, drawn):
        return None
    identity, name, value = change
    return made if graph_of(made).nodes[identity].values.get(name) == value else None


def _renamed(graph: Graph, fix: FixJSON) -> Iterator[tuple[str, str, Any]]:
    """(node, input, new value) of the file name, in the node or the nearest above it."""
    waiting = [fix["node"]]
    for identity in waiting:
        node = graph.nodes[identity]
        for name, value in node.values.items():
            if (new := renamed(value, fix["from"], fix["to"])) is not None:
                yield identity, name, new
        waiting += [link[0] for link in node.links.values() if link[0] in graph.nodes and link[0] not in waiting]


def renamed(value: Any, old: str, new: str) -> Any:
    """A value with one file name for another: the name itself, a row that has it, rows; None where it is not there."""
    if isinstance(value, str) and _plain(value) == _plain(old):
        return new
    if isinstance(value, Mapping) and isinstance(value.get("lora"), str) and _plain(value["lora"]) == _plain(old):
        return {**value, "lora": new}
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return None
    try:
        names = [_plain(row.path) for row in parse_rows(value, "rows")]
        rows = json.loads(value)
    except (FoundryError, ValueError):
        return None
    if _plain(old) not in names:
        return None
    told = [row if name != _plain(old) else new if isinstance(row, str) else {**row, "path": new}
            for name, row in zip(names, rows, strict=True)]  # fmt: skip
    return json.dumps(told, ensure_ascii=False)


def _plain(name: str) -> str:
    return name.replace("\\", "/")


def _set(made: dict[str, Any], identity: str, name: str, value: Any, drawn: bool) -> bool:
    """Give an input of a node a value, in the form the workflow is in."""
    if not drawn:
        made[identity]["inputs"][name] = value
        return True
    path, _, own = identity.rpartition(":")
    saved = canvases_of(made).get(f"{path}:" if path else "")
    node = read_canvas(saved).nodes.get(own) if saved is not None else None
    if node is None:
        return False
    values = node.saved.get("widgets_values")
    if isinstance(values, dict):
        values[name] = value
        return True
    place = node.place_of(name)
    if place is None or not isinstance(values, list):
        return False
    values[place] = value
    return True
