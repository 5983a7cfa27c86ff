"""Workflows drawn by hand, in the form the browser saves."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


class Drawing:
    """A canvas drawn by hand. ``wire`` joins by ids and slots, as a mouse would."""

    def __init__(self) -> None:
        self.nodes: list[Json] = []
        self.links: list[list[Any]] = []

    def add(self, identity: int | str, kind: str, inputs: str = "", outputs: str = "", **more: Any) -> Drawing:
        """``inputs`` are "name:TYPE" words, ``name:TYPE!`` one that stands for a widget; ``outputs`` are types."""
        slots = []
        for word in inputs.split():
            name, _, kind_of_slot = word.partition(":")
            widget = {"widget": {"name": name}} if kind_of_slot.endswith("!") else {}
            slots.append({"name": name, "type": kind_of_slot.rstrip("!"), "link": None, **widget})
        made = [{"name": word, "type": word, "links": []} for word in outputs.split()]
        self.nodes.append({"id": identity, "type": kind, "mode": 0, "inputs": slots, "outputs": made, **more})
        return self

    def wire(self, source: int, output: int, target: int, name: str | int) -> Drawing:
        number = len(self.links) + 1
        slot = name
        for node in self.nodes:
            if node["id"] == target:
                if isinstance(name, str):
                    slot = [entry["name"] for entry in node["inputs"]].index(name)
                node["inputs"][slot]["link"] = number
        self.links.append([number, source, output, target, slot, "*"])
        return self

    def mode(self, identity: int, mode: int) -> Drawing:
        for node in self.nodes:
            if node["id"] == identity:
                node["mode"] = mode
        return self

    def saved(self, **more: Any) -> Json:
        return {"last_node_id": 0, "nodes": self.nodes, "links": self.links, "version": 0.4, **more}

    def definition(self, identity: str, inputs: str = "", outputs: str = "", **more: Any) -> Json:
        """This canvas as a subgraph, whose links are objects."""
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        slots = [[{"name": word, "type": "*"} for word in words.split()] for words in (inputs, outputs)]
        links = [dict(zip(keys, link, strict=True)) for link in self.links]
        ends = {"inputNode": {"id": -10}, "outputNode": {"id": -20}}
        canvas = {"nodes": self.nodes, "links": links, "inputs": slots[0], "outputs": slots[1]}
        return {"id": identity, **canvas, **ends, **more}


def base() -> Drawing:
    return Drawing().add(1, "UNETLoader", "", "MODEL", widgets_values=["base.safetensors", "default"])


def sampled(drawing: Drawing, source: int, output: int = 0, identity: int = 9) -> Drawing:
    return drawing.add(identity, "KSampler", "model:MODEL", "LATENT", widgets_values=KSAMPLER).wire(
        source, output, identity, "model"
    )


def lora(drawing: Drawing, identity: int, source: int, **more: Any) -> Drawing:
    values = [f"style{identity}.safetensors", 0.7]
    return drawing.add(identity, "LoraLoaderModelOnly", "model:MODEL", "MODEL", widgets_values=values, **more).wire(
        source, 0, identity, "model"
    )


KSAMPLER = [42, "randomize", 8, 1.0, "euler", "simple", 1.0]
SAMPLING = {"seed": 42, "steps": 8, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
SUB = "9c1d5f0e-0000-4000-8000-000000000001"
