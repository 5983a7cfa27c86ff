"""Prompts in API form, written shortly: ``graph.add("KSampler", model=link, ...)`` returns the node's first output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Link = list[Any]

# family -> tokens and width of the conditioning, width of its pooled vector; channels and frames of the latent
SAMPLING = {
    "wan": ((8, 4096, 0), (16, 1)),
    "sd15": ((8, 768, 0), (4, 0)),
    "sdxl": ((8, 2048, 1280), (4, 0)),
    "flux": ((8, 64, 64), (16, 0)),
    "qwen-image": ((8, 3584, 0), (16, 1)),
}


class Graph(dict):
    """A prompt under construction; post it as it is."""

    def add(self, class_type: str, **inputs: Any) -> Link:
        """Add a node; returns the link to its first output."""
        key = str(len(self) + 1)
        self[key] = {"class_type": class_type, "inputs": inputs}
        return [key, 0]

    def unet(self, name: str, weight_dtype: str = "default") -> Link:
        """UNETLoader."""
        return self.add("UNETLoader", unet_name=name, weight_dtype=weight_dtype)

    def sample(self, model: Link, family: str, steps: int = 1, seed: int = 7, size: int = 8) -> Link:
        """Conditioning, latent (``size`` high and wide), KSampler and TinyStats: read the result with rig.latent."""
        (tokens, dim, pooled), (channels, frames) = SAMPLING[family]
        cond = {"tokens": tokens, "dim": dim, "pooled": pooled}
        latent = self.add(
            "KSampler",
            model=model,
            positive=self.add("TinyCond", **cond, seed=1),
            negative=self.add("TinyCond", **cond, seed=2),
            latent_image=self.add("TinyLatent", channels=channels, frames=frames, height=size, width=size),
            seed=seed,
            steps=steps,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        )
        return self.add("TinyStats", samples=latent)


def output(link: Link, index: int) -> Link:
    """Another output of the node a link points to."""
    return [link[0], index]


def canvas(graph: Graph, info: dict[str, Any]) -> dict[str, Any]:
    """A prompt as the frontend would save it: widgets by position, links by number."""
    nodes, links = [], []
    for place, (key, node) in enumerate(graph.items()):
        about, sockets, widgets = info[node["class_type"]], [], []
        for name, spec in declared(about):
            value = node["inputs"].get(name)
            if isinstance(value, list):
                kind = info[graph[value[0]]["class_type"]]["output"][value[1]]
                links.append([len(links) + 1, int(value[0]), value[1], int(key), len(sockets), kind])
                sockets.append({"name": name, "type": spec[0], "link": len(links)})
            elif isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                widgets.append(spec[1].get("default") if value is None and len(spec) > 1 else value)
            else:
                sockets.append({"name": name, "type": spec[0], "link": None})
        outputs = [{"name": kind, "type": kind, "links": []} for kind in about["output"]]
        saved = {"id": int(key), "type": node["class_type"], "mode": 0, "order": place, "inputs": sockets}
        nodes.append({**saved, "outputs": outputs, "widgets_values": widgets, "properties": {}, "pos": [0, 0]})
    return {"version": 0.4, "nodes": nodes, "links": links, "groups": []}


def declared(about: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Inputs of a node class, in the order its widgets stand."""
    for group in ("required", "optional"):
        yield from about["input"].get(group, {}).items()
