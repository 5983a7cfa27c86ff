"""The fixes of findings made in a workflow: inputs set, file names replaced, native loaders converted.

What is given is never changed; a copy is, and only where a fix names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...engine.errors import FoundryError
from ...engine.json_types import FixJSON
from ..documents.document import parse_rows
from ..lint.files import Files, Find, LineageOf
from ..workflows.constants import with_constants
from ..workflows.graph import Graph
from ..workflows.reading import forms, graph_of
from .canvas_level import CanvasLevel
from .canvases import count_on, levels_of
from .convert import Conversion, convert, copied
from .level import Level, PromptLevel
from .moves import MOVES, Mover


def apply_fixes(
    data: object, fixes: Iterable[FixJSON], find: Find | None = None, lineage_of: LineageOf | None = None
) -> tuple[dict[str, Any], list[FixJSON], Conversion | None]:
    """(the workflow with these fixes, those that could be made, what a conversion came to, None without one).

    Raises FoundryError ``workflow`` for what is none.
    """
    prompt, canvas = forms(data)
    made: dict[str, Any] = copied(canvas or prompt)
    done: list[FixJSON] = []
    converting = []
    files = Files(find, lineage_of)
    for fix in fixes:
        if fix["action"] == "convert":
            converting.append(fix)
        elif (changed := _changed(made, fix, files, canvas is not None)) is not None:
            made = changed
            done.append(fix)
    if not converting:
        return made, done, None
    conversion = convert(made, find, lineage_of)
    return conversion.made, [*done, *(converting if conversion.converted else [])], conversion


def _changed(saved: dict[str, Any], fix: FixJSON, files: Files, drawn: bool) -> dict[str, Any] | None:
    """A copy with one change; None where it cannot be made there: its input is wired, or set from outside."""
    made = copied(saved)
    graph = with_constants(graph_of(made))
    node = graph.nodes.get(fix["node"])
    if node is None:
        return None
    if fix["action"] in MOVES:
        return made if _moved(made, graph, fix, files, drawn) else None
    if fix["action"] == "set":
        change = (node.id, fix["input"], fix["value"]) if fix["input"] in node.values else None
    else:
        change = next(_renamed(graph, fix), None)
    if change is None:
        return None
    identity, name, value = change
    level = _level_of(made, graph, identity, drawn)
    if level is None or not level.set_value(identity.removeprefix(level.path), name, value):
        return None
    return made if graph_of(made).nodes[identity].values.get(name) == value else None


def _moved(made: dict[str, Any], graph: Graph, fix: FixJSON, files: Files, drawn: bool) -> bool:
    level = _level_of(made, graph, fix["node"], drawn)
    if level is None:
        return False
    done = MOVES[fix["action"]](Mover(graph, level, files), fix["node"].removeprefix(level.path), fix.get("lora", ""))
    if isinstance(level, CanvasLevel):
        count_on(made, [level])
    return done


def _level_of(made: dict[str, Any], graph: Graph, identity: str, drawn: bool) -> Level | None:
    """The level a node stands on."""
    path = identity.rpartition(":")[0]
    levels: list[Level] = list(levels_of(made, graph)) if drawn else [PromptLevel(made)]
    return next((level for level in levels if not drawn or level.path == (f"{path}:" if path else "")), None)


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
