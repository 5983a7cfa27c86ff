"""A workflow from wherever it is kept: JSON in UI or API form, wrapped or not, or inside a picture ComfyUI saved.

Where both forms are there (a picture, ``/history``), the prompt says what ran: all values by name, nothing that is
switched off. What stands muted or bypassed beside it is taken from the workflow, if the two are of one graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ..disk.header import disk_errors, regular_file, shown
from .canvas import mapping, text
from .graph import MAX_NODES, ON, Graph, GraphNode
from .images import embedded
from .ui import graph_of_canvas

MAX_BYTES = 32 * 2**20
MAX_VALUES = 2_000_000  # by their commas and brackets, counted before anything is made of them
PICTURE = "it is a picture that holds none; websites, messengers and editors strip it"
BOXED = "__value__"  # how the frontend sends a list that is no link
_PROMPTS = ("prompt", "output")  # what wraps the API form: POST /prompt and /history, "Save (API)" of some packs
_CANVAS_KEYS = {"links", "last_node_id", "definitions"}  # beside "nodes"; a file may lack one
_STRANGERS = {  # keys that tell what a JSON file is instead
    "it is a stack document": ("fuse", "stack", "lora_paths", "lora_path", "name_or_path"),
    "it is the index of a sharded model": ("weight_map",),
    "it is the configuration of a model": ("_class_name", "model_type", "architectures"),
}


def read_workflow(path: Path) -> Graph:
    """The graph in a JSON file or a picture. Raises FoundryError ``workflow``, or ``file`` for what cannot be read."""
    data, is_picture = read_data(path)
    prompt, canvas = forms(data)
    return _of_both(prompt, canvas, path.name, PICTURE if is_picture else _stranger(data))


def read_data(path: Path) -> tuple[Any, bool]:
    """(the JSON of a file, or that in a picture by name, whether it is a picture). Raises as ``read_workflow``."""
    where = path.name
    if (texts := embedded(path)) is not None:
        return {name: _parsed_or_none(content) for name, content in texts.items()}, True
    if regular_file(path).st_size > MAX_BYTES:
        raise _no_workflow(where, f"it is larger than {MAX_BYTES // 2**20} MB")
    with disk_errors(path):
        data = path.read_bytes()
    return _parsed(data, where), False


def looks_like_workflow(path: Path) -> bool:
    """Whether a JSON file holds a workflow and not, say, a stack document. Raises FoundryError ``file``."""
    if regular_file(path).st_size > MAX_BYTES:
        return True  # no other JSON that is read here is so large: its own reader refuses it
    with disk_errors(path):
        data = path.read_bytes()
    try:
        return any(forms(_parsed(data, path.name)))
    except FoundryError:
        return False


def graph_of(data: object, where: str = "The workflow") -> Graph:
    """The graph of parsed JSON in any form. ``where`` names it in errors. Raises FoundryError ``workflow``."""
    return _of_both(*forms(data), where, _stranger(data))


def _parsed(data: str | bytes, where: str) -> Any:
    if _values(data) > MAX_VALUES:
        raise _no_workflow(where, f"it holds more than {MAX_VALUES} values")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no text, or a number without an end
        raise _no_workflow(where, f"it is no JSON ({shown(str(error))})") from error


def _parsed_or_none(content: str) -> Any:
    """JSON in a picture; other programs write plain words under the same names."""
    try:
        return _parsed(content, PICTURE)
    except FoundryError:
        return None


def _values(data: str | bytes) -> int:
    """How many values JSON holds, at most."""
    if isinstance(data, str):
        return sum(data.count(sign) for sign in ",[{")
    return sum(data.count(sign) for sign in b",[{")


def forms(data: object) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """(prompt, workflow) in parsed JSON, wrapped or not; None for what is not there."""
    if isinstance(data, list) and len(data) > 2:  # an entry of /history or /queue: number, id, prompt, extra data
        return _prompt(data[2]), _canvas(_kept_beside(data[3] if len(data) > 3 else None))
    if not isinstance(data, Mapping):
        return None, None
    if _canvas(data) or _prompt(data):
        return _prompt(data), _canvas(data)
    inside = next((data[name] for name in _PROMPTS if name in data), None)
    if isinstance(inside, list):
        return forms(inside)
    if len(data) == 1 and inside is None and "workflow" not in data:  # /history/<id>: the one run under its id
        (run,) = data.values()
        return forms(mapping(run).get("prompt"))
    return _prompt(inside), _canvas(data.get("workflow")) or _canvas(_kept_beside(data.get("extra_data")))


def _kept_beside(extra: object) -> object:
    """The workflow the browser sends along with a prompt."""
    return mapping(mapping(extra).get("extra_pnginfo")).get("workflow")


def _canvas(data: object) -> Mapping[str, Any] | None:
    if isinstance(data, Mapping) and isinstance(data.get("nodes"), list) and data.keys() & _CANVAS_KEYS:
        return data
    return None


def _prompt(data: object) -> Mapping[str, Any] | None:
    return data if isinstance(data, Mapping) and any(map(_is_node, data.values())) else None


def _is_node(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("class_type"), str)


def _of_both(prompt: Mapping[str, Any] | None, canvas: Mapping[str, Any] | None, where: str, instead: str) -> Graph:
    """The graph of what is there. ``instead`` says what the file is where neither is."""
    if prompt is None:
        if canvas is None:
            raise _no_workflow(where, instead)
        return graph_of_canvas(canvas, where)
    ran = graph_of_prompt(prompt)
    if canvas is None:
        return ran
    try:
        return _with_idle(ran, graph_of_canvas(canvas, where))
    except FoundryError:  # a drawing that cannot be unfolded: what ran is enough
        return ran


def graph_of_prompt(prompt: Mapping[str, Any]) -> Graph:
    """The graph of a prompt as ComfyUI runs it; what is no node is left out, and links to it lead nowhere."""
    nodes = {str(identity): node for identity, node in prompt.items() if _is_node(node)}
    if len(nodes) > MAX_NODES:
        raise _no_workflow("The prompt", f"it has {len(nodes)} nodes; {MAX_NODES} are the limit")
    return Graph({identity: _node(identity, node, nodes) for identity, node in nodes.items()})


def _node(identity: str, saved: Mapping[str, Any], nodes: Mapping[str, Any]) -> GraphNode:
    values: dict[str, Any] = {}
    links: dict[str, tuple[str, int]] = {}
    lost: dict[str, str] = {}
    for name, value in mapping(saved.get("inputs")).items():
        link = _link(value, nodes)
        if link is None:
            values[name] = value[BOXED] if isinstance(value, Mapping) and BOXED in value else value
        elif link[0] in nodes:
            links[name] = link
        else:
            lost[name] = link[0]
    kind = text(saved["class_type"])
    return GraphNode(identity, kind, values, links, ON, text(mapping(saved.get("_meta")).get("title")), lost=lost)


def _link(value: object, nodes: Mapping[str, Any]) -> tuple[str, int] | None:
    """(node, output) of ``[id, output]``. A pair of numbers is a link only where a node has that number."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    source, output = value
    if isinstance(output, bool) or not isinstance(output, int):
        return None
    if isinstance(source, str) or (isinstance(source, int) and str(source) in nodes):
        return str(source), output
    return None


def _with_idle(ran: Graph, drawn: Graph) -> Graph:
    """What ran, told more about by the drawing, and what is muted or bypassed there; what ran alone if they differ."""
    kinds = {identity: node.kind for identity, node in drawn.nodes.items()}
    if any(kinds.get(identity) != node.kind for identity, node in ran.nodes.items()):
        return ran
    idle = {
        identity: replace(node, links={name: link for name, link in node.links.items() if link[0] in ran.nodes})
        for identity, node in drawn.nodes.items()
        if identity not in ran.nodes and node.mode != ON
    }
    return Graph({**{identity: _told(node, drawn.nodes[identity]) for identity, node in ran.nodes.items()}, **idle})


def _told(ran: GraphNode, drawn: GraphNode) -> GraphNode:
    lost = {name: source for name, source in drawn.lost.items() if name not in ran.links}
    return replace(ran, title=drawn.title, inputs=drawn.inputs, outputs=drawn.outputs, lost=lost)


def _stranger(data: object) -> str:
    if not isinstance(data, Mapping):
        return "it is JSON of another kind"
    if any(isinstance(value, Mapping) and {"input", "output"} <= value.keys() for value in data.values()):
        return "it is a list of node classes (/object_info)"
    return next((what for what, keys in _STRANGERS.items() if data.keys() & keys), "it is JSON of another kind")


def _no_workflow(where: str, what: str) -> FoundryError:
    return refuse("workflow.none", file=shown(where), what=what)
