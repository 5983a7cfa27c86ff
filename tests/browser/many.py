"""A large workflow, and what an edit of it costs the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from browser.scripts import EXTENSION
from browser.studio import Studio

BUILD = """([names, chains]) => {
  const add = (type, pos, values) => {
    const node = LiteGraph.createNode(type)
    node.id = foundry.nextId++
    node.pos = pos
    for (const [key, value] of Object.entries(values)) node.widgets.find((widget) => widget.name === key).value = value
    app.graph.add(node)
    return node
  }
  const wire = (from, output, to, input) => from.connect(output, to, to.inputs.findIndex((slot) => slot.name === input))
  for (let at = 0; at < chains; at++) {
    const y = at * 700
    const load = add("FoundryLoadBase", [0, y], {base_name: names.wan})
    const fuse = add("FoundryFuseBaseLoRA", [360, y], {lora_name: names.lightning})
    const row = add("FoundryLoRA", [360, y + 300], {lora_name: names.style})
    const stack = add("FoundryStackLoRAs", [720, y], {})
    const check = add("FoundryStackValidator", [1080, y], {})
    const finish = add("FoundryQuantizeFP8", [1440, y], {})
    const latent = add("TinyLatent", [1440, y + 400], {})
    const sample = add("KSampler", [1800, y], {})
    wire(load, 0, fuse, "model")
    wire(fuse, 0, stack, "model")
    wire(row, 0, stack, "lora_stack")
    wire(stack, 0, check, "model")
    wire(check, 0, finish, "model")
    wire(finish, 0, sample, "model")
    wire(latent, 0, sample, "latent_image")
    if (!at) Object.assign(foundry.nodes, {load, fuse, row, stack, check, quantize: finish, sample, latent})
  }
}"""


def spans_of(profile: dict[str, Any], where: str = EXTENSION) -> tuple[list[float], float]:
    """Of a profile of the page: how long code of ours ran without a break, what it called included; and its own time.

    Both in ms, the longest first. A span ends where the page does something that we did not call.
    """
    calls = {node["id"]: node for node in profile["nodes"]}
    above = {child: node["id"] for node in profile["nodes"] for child in node.get("children", ())}
    own = {each for each, node in calls.items() if where in node["callFrame"]["url"]}

    def called(each: int | None) -> bool:
        while each is not None and each not in own:
            each = above.get(each)
        return each is not None

    ours = {each for each in calls if called(each)}
    collecting = {each for each, node in calls.items() if node["callFrame"]["functionName"] == "(garbage collector)"}
    spans, alone, going = [0.0], 0.0, False
    for each, took in zip(profile["samples"], profile["timeDeltas"][1:] + [0], strict=True):
        going = each in ours or (going and each in collecting)
        alone += took / 1e3 if each in own else 0
        if going:
            spans[-1] += took / 1e3
        elif spans[-1]:
            spans.append(0.0)
    return sorted(spans, reverse=True), alone


def profiled(studio: Studio, work: Callable[[], None]) -> tuple[list[float], float]:
    """The longest spans of our code while ``work`` is done, and its own time, in ms."""
    session = studio.context.new_cdp_session(studio.page)
    session.send("Profiler.enable")
    session.send("Profiler.setSamplingInterval", {"interval": 200})
    session.send("Profiler.start")
    work()
    profile = session.send("Profiler.stop")["profile"]
    session.detach()
    return spans_of(profile)
