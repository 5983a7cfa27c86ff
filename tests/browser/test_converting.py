"""Converting in the browser: by the menu and by a finding's button, as one step of undo that gives the old bytes."""

from __future__ import annotations

import json

import pytest
from browser.graphs import native
from browser.layout import boxes_of, overlapping

SERIALIZED = "() => JSON.stringify(app.graph.serialize())"
CONVERT = "() => void app.extensionManager.command.execute('LoRAFoundry.Convert')"  # a dialog is waited for
KEPT = "() => JSON.stringify(app.extensionManager.workflow.activeWorkflow.changeTracker.activeState)"
UNDO = "() => app.extensionManager.command.execute('Comfy.Undo')"


@pytest.fixture
def drawn(studio, names):
    """A native graph with two LoRAs, saved and read once, as one that was opened."""
    nodes, links = native(names, names["style"])
    nodes["second"] = ("LoraLoaderModelOnly", (380, 160), {"lora_name": names["lightning"], "strength_model": 0.5})
    links = [link for link in links if link != ("lora", 0, "sample", "model")]
    studio.build(nodes, [*links, ("lora", 0, "second", "model"), ("second", 0, "sample", "model")])
    studio.load_again()
    studio.quiet()
    return studio


def kinds(studio) -> list[str]:
    return studio.page.evaluate("() => app.graph.nodes.map((node) => node.type)")


def converted(studio) -> None:
    with studio.page.expect_response(lambda answer: answer.url.endswith("/lora_foundry/convert")) as answer:
        studio.page.evaluate(CONVERT)
    answer.value.finished()
    studio.page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'FoundryApply')")
    studio.settle()
    studio.settle()  # in Nodes 2.0 the step of undo is kept three frames later


def test_the_menu_converts_and_undo_gives_the_old_bytes(drawn):
    before = drawn.page.evaluate(SERIALIZED)
    converted(drawn)
    assert "LoraLoaderModelOnly" not in kinds(drawn) and "FoundryLoRAStack" in kinds(drawn)
    drawn.page.evaluate(UNDO)
    drawn.page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'LoraLoaderModelOnly')")
    drawn.page.wait_for_function(f"before => ({KEPT})() === before", arg=before)
    if drawn.mode == "canvas":  # in Nodes 2.0 the page measures the nodes anew
        drawn.page.wait_for_function(f"before => ({SERIALIZED})() === before", arg=before)


def test_a_panel_that_grows_after_converting_is_no_step_of_undo(drawn, unknown):
    """The check of the new graph has a question for one of its nodes, which grows by a line."""
    drawn.page.evaluate("() => app.extensionManager.command.execute('Comfy.RefreshNodeDefinitions')")
    before = drawn.page.evaluate(KEPT)
    drawn.set("lora", "lora_name", unknown["new"])
    drawn.edited()
    converted(drawn)
    drawn.quiet()
    shown = "() => [...document.querySelectorAll('.lf-panel')].some((panel) => !panel.hidden)"
    drawn.page.wait_for_function(shown)
    drawn.settle()
    drawn.settle()
    drawn.edited()
    drawn.settle()
    drawn.page.evaluate(UNDO)
    drawn.page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'LoraLoaderModelOnly')")
    drawn.page.evaluate(UNDO)
    drawn.page.wait_for_function(f"before => ({KEPT})() === before", arg=before)


def test_what_was_converted_runs(drawn):
    converted(drawn)
    drawn.quiet()
    assert drawn.run()["outcome"] == "execution_success"


def test_no_two_nodes_overlap(drawn):
    converted(drawn)
    drawn.quiet()
    drawn.screenshot("converted-layout")
    boxes = boxes_of(drawn)
    assert len(boxes) >= 9
    assert overlapping(boxes) == []


def test_a_graph_without_such_loaders_stays_and_it_is_said(drawn, names):
    drawn.build({"load": ("UNETLoader", (0, 0), {"unet_name": names["wan"]})}, [])
    drawn.quiet()  # Nodes 2.0 measures a node once it is drawn
    before = drawn.page.evaluate(SERIALIZED)
    drawn.page.evaluate(CONVERT)
    dialog = drawn.page.get_by_text("no LoRA loader in this workflow")
    dialog.wait_for()
    assert drawn.page.evaluate(SERIALIZED) == before
    drawn.page.keyboard.press("Escape")


def test_a_finding_of_a_native_workflow_has_a_button_that_converts(drawn, unknown):
    """The style comes first, the accelerator on top of it: the order is what the button mends."""
    nodes, links = native(unknown, unknown["new"])
    named = drawn.host.add_model("loras", "Qwen-Image-Lightning-8steps-V1.0.safetensors", lightning_of(drawn, unknown))
    nodes["second"] = ("LoraLoaderModelOnly", (380, 160), {"lora_name": named, "strength_model": 0.5})
    links = [link for link in links if link != ("lora", 0, "sample", "model")]
    drawn.build(nodes, [*links, ("lora", 0, "second", "model"), ("second", 0, "sample", "model")])
    drawn.quiet()
    drawn.page.evaluate("() => void app.extensionManager.command.execute('LoRAFoundry.Check')")
    drawn.page.get_by_role("button", name="Convert to fuse, stack, finish").first.click()
    drawn.page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'FoundryFuseBaseLoRA')")
    assert "LoraLoaderModelOnly" not in kinds(drawn)
    drawn.page.keyboard.press("Escape")
    drawn.page.locator("dialog.lf-dialog").wait_for(state="detached")  # though its button has gone with the focus


def test_the_menu_of_a_stack_adds_the_loras_of_another_node(drawn):
    drawn.page.evaluate("args => foundry.add(...args)", ["rows", "FoundryLoRAStack", [0, 700], {"loras": "[]"}])
    drawn.quiet()
    entries = """() => app.extensions.find(({ name }) => name === "LoRAFoundry").getNodeMenuItems(foundry.nodes.rows)
      .filter(({ content }) => content.includes("add the LoRAs"))"""
    assert drawn.page.evaluate(f"() => ({entries})().length") == 2
    drawn.page.evaluate(f"() => ({entries})().forEach(({{ callback }}) => callback())")
    text = "foundry.nodes.rows.widgets.find((each) => each.name === 'loras').value"
    drawn.page.wait_for_function(f"() => JSON.parse({text}).length === 2")


def lightning_of(studio, names):
    """The tensors of the Lightning-like LoRA."""
    from safetensors.torch import load_file

    return load_file(studio.host.base / "models" / "loras" / names["lightning"])


# Power Lora Loader V2 as a saved workflow shows it: rows are values beside each other, and only the node knows them.
V2 = """([rows]) => {
  if (!LiteGraph.registered_node_types.PowerLoraLoaderV2) {
    class Loader extends LiteGraph.LGraphNode {
      constructor(title) {
        super(title)
        for (const name of ["model", "model_low"]) this.addInput(name, "MODEL")
        for (const name of ["MODEL", "MODEL_LOW", "CLIP"]) this.addOutput(name, name.split("_")[0])
      }
      onSerialize(saved) { saved.widgets_values = [{}, ...(this.rows ?? [])] }
      onConfigure(saved) { this.rows = saved.widgets_values.slice(1) }
    }
    LiteGraph.registerNodeType("PowerLoraLoaderV2", Loader)
  }
  const node = LiteGraph.createNode("PowerLoraLoaderV2", "Both")
  node.rows = rows
  node.pos = [380, 0]
  app.graph.add(node)
  foundry.nodes.power = node
}"""


def test_power_lora_loader_v2_is_converted_with_one_model_and_left_alone_with_two(drawn, names):
    nodes, links = native(names, names["style"])
    del nodes["lora"]
    drawn.build(nodes, [link for link in links if "lora" not in link])
    row = {"on": True, "lora": names["style"], "strength": 0.7, "strengthTwo": None}
    off = {**row, "lora": names["partial"], "on": False}
    drawn.page.evaluate(V2, [[row, off]])
    assert drawn.connect("load", 0, "power", "model") and drawn.connect("power", 0, "sample", "model")
    drawn.load_again()
    drawn.quiet()
    before = drawn.page.evaluate(KEPT)
    converted(drawn)
    assert "PowerLoraLoaderV2" not in kinds(drawn)
    stack = "() => app.graph.nodes.find(({ type }) => type === 'FoundryLoRAStack').widgets[0].value"
    told = [(each["path"], each["strength"], each.get("on", True)) for each in json.loads(drawn.page.evaluate(stack))]
    assert told == [(names["style"], 0.7, True), (names["partial"], 0.7, False)]
    drawn.page.evaluate(UNDO)
    drawn.page.wait_for_function(f"before => ({KEPT})() === before", arg=before)
    drawn.page.evaluate(
        "() => { foundry.nodes.power = app.graph.nodes.find(({ type }) => type === 'PowerLoraLoaderV2') }"
    )
    drawn.page.evaluate("() => { foundry.nodes.load = app.graph.nodes.find(({ type }) => type === 'UNETLoader') }")
    assert drawn.connect("load", 0, "power", "model_low")
    drawn.quiet()
    drawn.page.evaluate(CONVERT)
    drawn.page.locator("dialog.lf-dialog").wait_for()
    drawn.page.screenshot(path=drawn.artefacts / f"converting-two-models-{drawn.mode}.png")
    assert "PowerLoraLoaderV2" in kinds(drawn) and "FoundryLoRAStack" not in kinds(drawn)
    drawn.page.keyboard.press("Escape")
