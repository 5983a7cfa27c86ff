"""The fixes of findings made in a workflow: inputs set, file names replaced, native loaders converted.

What is given is never changed; a copy is, and only where a fix names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...engine.errors import FoundryError
from ...engine.json_types import FixJSON
from ..documents.document import parse_rows
from ..lint.files import Files, Find, LineageOf
from ..workflows.constants import with_constants
from ..workflows.graph import Graph
from ..workflows.node_values import NAMES, TAG
from ..workflows.reading import forms, graph_of
from .canvas_level import CanvasLevel
from .canvases import count_on, levels_of
from .convert import Conversion, convert, copied
from .level import Level, PromptLevel
from .moves import MOVES, Mover

ROW_NAMES = (*NAMES, "low_variant_name")  # of a row that is a mapping
STRING = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?')  # of JSON; a key with its colon
WRAPPED = "__value__"  # a list in a prompt, apart from links


def apply_fixes(
    data: object, fixes: Iterable[FixJSON], find: Find | None = None, lineage_of: LineageOf | None = None
) -> tuple[dict[str, Any], list[FixJSON], Conversion | None]:
    """(the workflow with these fixes, those that could be made, what a conversion came to, None without one).

    Raises FoundryError ``workflow`` for what is none.
    """
    prompt, canvas = forms(data)
    workflow = _Workflow(copied(canvas or prompt), canvas is not None, Files(find, lineage_of))
    done, converting, settings = list[FixJSON](), list[FixJSON](), list[FixJSON]()
    for fix in fixes:
        if fix["action"] == "convert":
            converting.append(fix)
        elif fix["action"] in MOVES:
            done, settings = [*done, *workflow.set_values(settings)], []
            done += [fix] if workflow.move(fix) else []
        else:
            settings.append(fix)
    done += workflow.set_values(settings)
    if not converting:
        return workflow.saved, done, None
    conversion = convert(workflow.saved, find, lineage_of)
    return conversion.made, [*done, *(converting if conversion.converted else [])], conversion


class _Workflow:
    """A workflow that is changed: read once, and again only after a change of its nodes or of values."""

    def __init__(self, saved: dict[str, Any], drawn: bool, files: Files) -> None:
        self.saved, self._drawn, self._files = saved, drawn, files
        self._graph = with_constants(graph_of(saved))

    def set_values(self, fixes: list[FixJSON]) -> list[FixJSON]:
        """Give inputs their values, all together: those that could be made.

        None where an input is wired or set from outside, or is not read back as what it was set to.
        """
        while fixes:
            made = copied(self.saved)
            levels = {level.path: level for level in self._levels(made)}
            wanted: dict[tuple[str, str], object] = {}
            done = [(fix, key) for fix in fixes if (key := self._set(levels, fix, wanted))]
            graph = graph_of(made)
            lost = {key for key, value in wanted.items() if graph.nodes[key[0]].values.get(key[1]) != value}
            if not lost:
                self.saved, self._graph = made, with_constants(graph)
                return [fix for fix, _ in done]
            fixes = [fix for fix, key in done if key not in lost]
        return []

    def _set(
        self, levels: dict[str, Level], fix: FixJSON, wanted: dict[tuple[str, str], object]
    ) -> tuple[str, str] | None:
        """Make one change, and note it in ``wanted``: (node, input), None where it cannot be made."""
        node = self._graph.nodes.get(fix["node"])
        if node is None:
            return None
        if fix["action"] == "set":
            change = (node.id, fix["input"], fix["value"]) if fix["input"] in node.values else None
        else:
            change = next(_renamed(self._graph, fix, wanted), None)
        if change is None:
            return None
        identity, name, value = change
        level = levels.get(self._path(identity))
        if level is None or not level.set_value(identity.removeprefix(level.path), name, value):
            return None
        wanted[identity, name] = value
        return identity, name

    def move(self, fix: FixJSON) -> bool:
        """Move a LoRA, in a copy that counts where it could be done."""
        made = copied(self.saved)
        level = next((each for each in self._levels(made) if each.path == self._path(fix["node"])), None)
        if level is None or fix["node"] not in self._graph.nodes:
            return False
        mover = Mover(self._graph, level, self._files)
        if not MOVES[fix["action"]](mover, fix["node"].removeprefix(level.path), fix.get("lora", "")):
            return False
        if isinstance(level, CanvasLevel):
            count_on(made, [level])
        self.saved, self._graph = made, with_constants(graph_of(made))
        return True

    def _levels(self, made: dict[str, Any]) -> Iterator[Level]:
        yield from levels_of(made, self._graph) if self._drawn else [PromptLevel(made)]

    def _path(self, identity: str) -> str:
        """The path of the level a node stands on; a prompt has but one level."""
        path = identity.rpartition(":")[0] if self._drawn else ""
        return f"{path}:" if path else ""


def _renamed(graph: Graph, fix: FixJSON, wanted: Mapping[tuple[str, str], object]) -> Iterator[tuple[str, str, Any]]:
    """(node, input, new value) of the file name, in the node or the nearest above it; ``wanted`` are newer values."""
    waiting = [fix["node"]]
    for identity in waiting:
        node = graph.nodes[identity]
        for name, value in node.values.items():
            if (new := renamed(wanted.get((identity, name), value), fix["from"], fix["to"])) is not None:
                yield identity, name, new
        waiting += [link[0] for link in node.links.values() if link[0] in graph.nodes and link[0] not in waiting]


def renamed(value: Any, old: str, new: str) -> Any:
    """A value with one file name for another, None where it is not there.

    It is the name itself, a row that has it, a list of rows, rows of ours as text, or a text with ``<lora:name:1>``.
    """
    if isinstance(value, str):
        return new if _plain(value) == _plain(old) else _renamed_text(value, old, new)
    if isinstance(value, list):
        rows = [renamed(row, old, new) if isinstance(row, Mapping) else None for row in value]
        told = [was if now is None else now for was, now in zip(value, rows, strict=True)]
        return told if any(now is not None for now in rows) else None
    if not isinstance(value, Mapping):
        return None
    there = {name: new for name in ROW_NAMES if isinstance(value.get(name), str) and _plain(value[name]) == _plain(old)}
    if (rows := renamed(value.get(WRAPPED), old, new)) is not None:
        there[WRAPPED] = rows
    return {**value, **there} if there else None


def _retagged(tag: re.Match[str], new: str) -> str:
    before, after = tag.start(1) - tag.start(), tag.end(1) - tag.start()
    return f"{tag[0][:before]}{new}{tag[0][after:]}"


def _renamed_text(text: str, old: str, new: str) -> str | None:
    tagged = TAG.sub(lambda tag: _retagged(tag, new) if _plain(tag[1]) == _plain(old) else tag[0], text)
    if tagged != text:
        return tagged
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        json.loads(text)  # no YAML
        names = [_plain(row.path) for row in parse_rows(text, "rows")]
    except (FoundryError, ValueError, RecursionError):
        return None
    return STRING.sub(lambda token: _requoted(token, old, new), text) if _plain(old) in names else None


def _requoted(token: re.Match[str], old: str, new: str) -> str:
    is_it = token[1] is None and _plain(json.loads(token[0])) == _plain(old)
    return json.dumps(new, ensure_ascii=False) if is_it else token[0]


def _plain(name: str) -> str:
    return name.replace("\\", "/")
