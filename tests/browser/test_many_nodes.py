"""A large workflow: an edit costs one question and redraws nothing that stays the same. In both renderers."""

from __future__ import annotations

import json

import pytest

CHAINS = {"canvas": 63, "nodes2": 25}  # of eight nodes; Nodes 2.0 makes an element of each, which takes a while
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
WATCH = """() => {
  window.seen = {drawn: 0, saved: 0, long: []}
  const all = {childList: true, subtree: true, characterData: true, attributes: true}
  const watch = new MutationObserver((changes) => (window.seen.drawn += changes.length))
  for (const {widgets} of app.graph.nodes)
    for (const {name, element} of widgets ?? [])
      if (name === "foundry_findings") watch.observe(element, all)
  const root = app.graph.rootGraph ?? app.graph
  const before = root.serialize
  root.serialize = function (...args) { window.seen.saved++; return before.apply(this, args) }
  new PerformanceObserver((list) => window.seen.long.push(...list.getEntries().map(({duration}) => duration)))
    .observe({type: "longtask"})
}"""


@pytest.fixture
def many(studio, names):
    """504 nodes (200 in Nodes 2.0), checked once."""
    studio.clear()
    studio.requests.clear()
    studio.page.evaluate(BUILD, [names, CHAINS[studio.mode]])
    studio.edited()
    for _ in range(600):  # Nodes 2.0 takes seconds to make them
        if studio.requests:
            break
        studio.page.wait_for_timeout(100)
    studio.quiet()
    yield studio
    studio.clear()
    studio.quiet()


def test_an_edit_among_many_nodes_asks_once_and_redraws_no_panel(many):
    assert many.page.evaluate("() => app.graph.nodes.length") == 8 * CHAINS[many.mode]
    many.requests.clear()
    many.page.evaluate(WATCH)
    for step in range(10):
        many.set("sample", "steps", 10 + step)
        many.edited()
        many.page.wait_for_timeout(30)
    many.quiet()
    seen = many.page.evaluate("() => window.seen")
    (many.artefacts / f"many-{many.mode}.json").write_text(json.dumps(seen), encoding="utf-8")
    assert many.requests == ["POST lint"] and seen["drawn"] == 0
