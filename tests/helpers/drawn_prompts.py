"""A prompt as the browser saves it: typed sockets, links noted at both ends, nodes in columns, none over another."""

from __future__ import annotations

import json
from typing import Any

from drawings import SUB, Json
from lora_foundry.loaders.workflows.constants import with_constants
from lora_foundry.loaders.workflows.reading import graph_of

WIDTH, STEP = 315, 420
TYPES = {"model": "MODEL", "clip": "CLIP", "optional_clip": "CLIP", "lora_stack": "LORA_STACK", "vae": "VAE"}
OUTPUTS = {"CheckpointLoaderSimple": ("MODEL", "CLIP", "VAE"), "UNETLoader": ("MODEL",)}


def drawn(prompt: Json) -> Json:
    """The workflow, in the form of a file; ids are those of the prompt."""
    wires = [(key, name, value) for key, node in prompt.items() for name, value in node["inputs"].items()
             if isinstance(value, list) and len(value) == 2 and value[0] in [*prompt]]  # fmt: skip
    numbers = {(key, name): number for number, (key, name, _) in enumerate(wires, 1)}
    depths: dict[str, int] = {}
    nodes, links, rows = list[Json](), list[list[Any]](), dict[int, int]()
    for key, node in prompt.items():
        sources = [value[0] for target, _, value in wires if target == key]
        depth = depths[key] = 1 + max((depths.get(source, 0) for source in sources), default=-1)
        rows[depth] = rows.get(depth, 0) + 1
        box = {"pos": [depth * STEP, rows[depth] * 500], "size": [WIDTH, 46 + 26 * len(node["inputs"])]}
        nodes.append({"id": int(key), "type": node["class_type"], **box,
                      "flags": {}, "order": len(nodes), "mode": 0, **_slots(prompt, key, numbers, wires),
                      "properties": {"Node name for S&R": node["class_type"]}})  # fmt: skip
    by_id = {str(each["id"]): each for each in nodes}
    for (key, name), number in numbers.items():
        source, output = prompt[key]["inputs"][name]
        slot = [each["name"] for each in by_id[key]["inputs"]].index(name)
        links.append([number, int(source), output, int(key), slot, by_id[key]["inputs"][slot]["type"]])
    return {"id": "00000000-0000-0000-0000-000000000000", "revision": 0, "last_node_id": len(prompt),
            "last_link_id": len(links), "nodes": nodes, "links": links, "groups": [], "config": {},
            "extra": {"ds": {"scale": 1, "offset": [0, 0]}}, "version": 0.4}  # fmt: skip


def _slots(prompt: Json, key: str, numbers: dict[tuple[str, str], int], wires: list[Any]) -> Json:
    node = prompt[key]
    sockets: list[Json] = []
    values: list[Any] = []
    for name, value in node["inputs"].items():
        link = numbers.get((key, name))
        widget = {} if link and name in TYPES else {"widget": {"name": name}}
        sockets.append({"name": name, "type": TYPES.get(name, "*"), "link": link, **widget})
        values += [] if not widget else [None if link else value]
    kind = node["class_type"]
    most = max((value[1] for _, _, value in wires if value[0] == key), default=0)
    types = OUTPUTS.get(kind) or _made(kind, node["inputs"])
    types = (*types, *("*",) * (most + 1 - len(types)))
    outputs = [
        {
            "name": made,
            "type": made,
            "links": [numbers[target, name] for target, name, value in wires if value == [key, slot]],
        }
        for slot, made in enumerate(types)
    ]
    return {"inputs": sockets, "outputs": outputs, "widgets_values": values}


def _made(kind: str, inputs: Json) -> tuple[str, ...]:
    if "Stack" in kind and "model" not in inputs:
        return ("LORA_STACK",)
    if "lora" in kind.lower():
        return ("MODEL", "CLIP") if {"clip", "optional_clip"} & inputs.keys() else ("MODEL",)
    return ("MODEL",) if kind.startswith("ModelSampling") or kind == "CFGNorm" else ("*",)


def folded(saved: Json) -> Json:
    """The whole workflow inside a subgraph that a second one shows."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    inner = {"id": SUB, "name": "all of it", "version": 1, "revision": 0, "config": {}, "inputs": [], "outputs": [],
             "inputNode": {"id": -10, "bounding": [0, 0, 120, 60]},
             "outputNode": {"id": -20, "bounding": [0, 0, 120, 60]},
             "state": {"lastNodeId": saved["last_node_id"], "lastLinkId": saved["last_link_id"], "lastGroupId": 0,
                       "lastRerouteId": 0},
             "nodes": saved["nodes"], "groups": [], "widgets": [], "extra": {},
             "links": [dict(zip(keys, link, strict=True)) for link in saved["links"]]}  # fmt: skip
    host = {"id": 900, "type": SUB, "pos": [0, 0], "size": [200, 80], "flags": {}, "order": 0, "mode": 0, "inputs": [],
            "outputs": [], "properties": {"proxyWidgets": []}, "widgets_values": []}  # fmt: skip
    outer = {**saved, "nodes": [host], "links": [], "last_node_id": 900, "definitions": {"subgraphs": [inner]}}
    made: Json = json.loads(json.dumps(outer))
    return made


def prompt_of(saved: Json) -> Json:
    """What would be sent to run it: nodes that are on, without subgraphs, reroutes and the like."""
    graph = with_constants(graph_of(saved))
    return {
        key: {
            "class_type": node.kind,
            "inputs": {**node.values, **{name: list(link) for name, link in node.links.items()}},
        }
        for key, node in graph.nodes.items()
        if node.mode == "on"
    }
