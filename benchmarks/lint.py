"""How long the lint of a workflow of 300 nodes takes, without files: ``python benchmarks/lint.py [nodes]``.

A third of the nodes are LoRA loaders, a third pass the model on, the rest are samplers, switches, stacks of LoRAs and
nodes that have nothing to do with it. Both forms of the same workflow are timed, from parsed JSON to findings.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.lint.order import check_order
from lora_foundry.loaders.workflows.reading import graph_of

ROUNDS = 7


def prompt_of(count: int) -> dict[str, Any]:
    """A workflow in API form: eight models, each through many loaders, sampled on the way and at its end."""
    nodes: dict[str, Any] = {}

    def add(kind: str, **inputs: Any) -> list[Any]:
        nodes[str(len(nodes) + 1)] = {"class_type": kind, "inputs": inputs}
        return [str(len(nodes)), 0]

    models = [add("UNETLoader", unet_name=f"model_{number}.safetensors", weight_dtype="default") for number in range(8)]
    while len(nodes) < count - 40:
        at = len(nodes) // 6 % len(models)
        name = f"style_{len(nodes)}.safetensors"
        model = add("LoraLoaderModelOnly", model=models[at], lora_name=name, strength_model=0.5)
        model = add("ModelSamplingSD3", model=model, shift=5.0)
        models[at] = add("LoraLoaderModelOnly", model=model, lora_name=f"lightning_{len(nodes)}.safetensors")
        add("KSampler", model=models[at], steps=8, cfg=1.0, denoise=1.0, seed=1)
        add("CLIPTextEncode", text="a lighthouse", clip=["1", 1])
        add("VAEDecode", samples=[str(len(nodes) - 1), 0], vae=["1", 2])
    for model in models:
        row = add("FoundryLoRA", lora_name="a.safetensors", strength_model=1.0, enabled=True)
        fused = add("FoundryFuseBaseLoRA", model=model, lora_name="b.safetensors", strength=1.0, rounding="once")
        stacked = add("FoundryStackLoRAs", model=fused, lora_stack=row)
        add("FoundrySaveModel", model=add("FoundryStackValidator", model=stacked, policy="match training"))
    return nodes


def canvas_of(prompt: dict[str, Any]) -> dict[str, Any]:
    """The same workflow in UI form."""
    links: list[list[Any]] = []
    nodes = []
    for key, node in prompt.items():
        sockets, values = [], []
        for slot, (name, value) in enumerate(node["inputs"].items()):
            wired = isinstance(value, list)
            if wired:
                links.append([len(links) + 1, int(value[0]), value[1], int(key), slot, "*"])
            else:
                values.append(value)
            widget = {} if wired else {"widget": {"name": name}}
            sockets.append({"name": name, "type": "*", "link": len(links) if wired else None, **widget})
        drawn = {"id": int(key), "type": node["class_type"], "mode": 0, "inputs": sockets, "outputs": []}
        nodes.append({**drawn, "widgets_values": values})
    return {"nodes": nodes, "links": links, "last_node_id": len(nodes)}


def best_ms(work: Any) -> float:
    """The fastest of some rounds, in milliseconds of this process."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) * 1e3


def main(count: int) -> None:
    """Print one line a form."""
    prompt = prompt_of(count)
    for form, saved in (("API form", prompt), ("UI form", canvas_of(prompt))):
        text = json.dumps(saved)
        found = lint(graph_of(json.loads(text)))
        taken = best_ms(lambda saved=saved: lint(graph_of(saved)))
        size = f"{len(prompt)} nodes, {len(found.stacks)} models, {len(found.findings)} findings"
        print(f"{form}: {size}: {taken:.1f} ms")
    stages = [key for key, node in prompt.items() if node["class_type"].startswith("FoundryFuse")]
    print(f"check before a run, one stage: {best_ms(lambda: check_order(prompt, stages[-1])):.2f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
