"""The pack in the browser: it loads clean, stages fit together in one order only, every node has its help page."""

from __future__ import annotations

import json

import pytest
from browser.graphs import finishers, pipeline
from browser.studio import EXTENSION, setting

STAGES = ["FOUNDRY_BASE", "FOUNDRY_FUSED", "FOUNDRY_STACKED", "LORA_STACK"]
NODES = [
    "FoundryLoadBase", "FoundryLoadCheckpoint", "FoundryFuseBaseLoRA", "FoundryLoRA", "FoundryLoRAStack",
    "FoundryStackLoRAs", "FoundryStackValidator", "FoundryQuantizeFP8", "FoundryApply", "FoundrySaveModel",
    "FoundryDeclareLineage", "FoundrySaveTrainedLoRA", "FoundryMergeLoRAs", "FoundryLoRAConflicts",
    "FoundryCalibrate", "FoundryExtractLoRA",
]  # fmt: skip


def test_the_pack_loads_without_an_error(studio, names):
    studio.open()
    studio.build(*pipeline(names))
    studio.settle()
    registered = studio.page.evaluate("() => Object.keys(LiteGraph.registered_node_types)")
    assert set(NODES) <= set(registered)
    assert studio.page.evaluate("() => app.extensions.some((extension) => extension.name === 'LoRAFoundry')")


def test_the_stages_connect(studio, names):
    nodes, links = pipeline(names)
    studio.build(nodes, links)
    assert studio.links() == len(links)
    studio.screenshot("stages")


WRONG_WIRES = [
    ("stack", "fuse"), ("check", "fuse"),  # back up the order
    ("quantize", "fuse"), ("quantize", "stack"), ("quantize", "check"),  # past the end
    ("load", "sample"), ("fuse", "sample"),  # a plan is not a MODEL
    ("row", "fuse"),
]  # fmt: skip


def test_a_wrong_wire_is_refused(studio, names):
    nodes, _ = pipeline(names)
    studio.build(nodes, [])
    made = [(source, target) for source, target in WRONG_WIRES if studio.connect(source, 0, target, "model")]
    assert made == [] and studio.links() == 0


def test_native_models_enter_and_finished_models_leave(studio, names):
    nodes, links = finishers(names)
    studio.build(nodes, links)
    assert studio.links() == len(links)


def slot_colours(studio) -> list[str]:
    """The colours a user sees on the outputs that carry a stage."""
    if studio.mode == "canvas":
        table = "app.canvas.default_connection_color_byType"
        return studio.page.evaluate(f"types => types.map((type) => {table}[type])", STAGES)
    value = "getComputedStyle(document.body).getPropertyValue(`--color-datatype-${type}`).trim()"
    return studio.page.evaluate(f"types => types.map((type) => {value})", STAGES)


def test_each_stage_has_a_colour_of_its_own_in_every_theme(studio, names):
    studio.build(*pipeline(names))
    native = studio.page.evaluate("() => app.canvas.default_connection_color_byType.MODEL")
    seen = slot_colours(studio)
    assert all(seen) and len({*seen, native}) == len(STAGES) + 1
    setting(studio, "Comfy.ColorPalette", "light")
    try:
        assert slot_colours(studio) == seen
        studio.screenshot("light")
    finally:
        setting(studio, "Comfy.ColorPalette", "dark")


def title_colours(studio, shown: list[str]) -> list[str]:
    """The colours of nodes' title bars on the page, once they are drawn and stay as they are."""
    if studio.mode == "canvas":
        return studio.page.evaluate("names => names.map((name) => foundry.nodes[name].renderingColor)", shown)
    script = """names => {
      const titles = names.map((name) => {
        const node = document.querySelector(`[data-node-id="${foundry.nodes[name].id}"]`)
        return node?.querySelector('[data-testid="node-inner-wrapper"]') ?? node?.querySelector(".lg-node-header")
      })
      const colours = titles.map((title) => title && getComputedStyle(title).backgroundColor)
      const before = window.colours
      window.colours = colours.join()
      return colours.every(Boolean) && before === window.colours ? colours : null
    }"""
    studio.page.evaluate("() => { delete window.colours }")
    return studio.page.wait_for_function(script, arg=shown, polling=100).json_value()


def test_each_stage_is_told_by_its_nodes_and_nothing_of_it_is_saved(studio, names):
    stages = ["load", "fuse", "row", "stack", "check", "quantize"]
    studio.build(*pipeline(names))
    studio.screenshot("stage_colours")
    seen = title_colours(studio, [*stages, "sample"])
    assert len(set(seen)) == len(seen)
    studio.page.evaluate("() => { foundry.nodes.fuse.color = '#123456' }")
    studio.edited()
    assert title_colours(studio, ["fuse"])[0] in ("hsla(210, 65.4%, 20.4%, 1)", "rgb(18, 52, 86)")
    studio.load_again()
    assert title_colours(studio, stages)[2:] == seen[2:-1]
    saved = studio.saved()
    assert {name: saved[name].get("color") for name in stages} == dict.fromkeys(stages) | {"fuse": "#123456"}
    assert not any("bgcolor" in node for node in saved.values())
    setting(studio, "Comfy.ColorPalette", "light")
    try:
        assert len(set(title_colours(studio, stages))) == len(stages)
        studio.screenshot("stage_colours_light")
    finally:
        setting(studio, "Comfy.ColorPalette", "dark")


@pytest.mark.parametrize("node", NODES)
def test_every_node_has_a_help_page_that_names_its_sockets(host, node):
    status, page = host.request(f"{EXTENSION}/docs/{node}.md")
    assert status == 200 and page.startswith("# ")
    info = host.object_info(node)[node]
    inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
    missing = [name for name in (*inputs, *info["output_name"]) if f"`{name}`" not in page]
    assert not missing, f"docs/{node}.md does not explain {missing}"


@pytest.mark.parametrize("node", NODES)
def test_every_node_and_input_has_a_name_for_translators(host, root, node):
    """English says in locales/en/nodeDefs.json what the node says; widgets get names that people tell apart."""
    told = json.loads((root / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))[node]
    info = host.object_info(node)[node]
    inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
    assert told["inputs"].keys() == inputs.keys()
    tips = {name: spec[1]["tooltip"] for name, spec in inputs.items() if len(spec) > 1 and "tooltip" in spec[1]}
    assert {name: each["tooltip"] for name, each in told["inputs"].items() if "tooltip" in each} == tips
    assert (told["display_name"], told["description"]) == (info["display_name"], info["description"])


def test_widgets_are_called_by_their_names_and_saved_by_their_keys(studio, names):
    studio.build(*pipeline(names))
    studio.settle()
    script = """() => Object.fromEntries(foundry.nodes.quantize.inputs.map(
      (slot) => [slot.name, slot.label ?? slot.localized_name]))"""
    shown = studio.page.evaluate(script)
    assert shown["max_error"] == "max error (0 = off)" and shown["keep"] == "result in"
    assert len({shown[name] for name in ("keep", "memory", "keep_high_precision")}) == 3
    if studio.mode == "nodes2":
        studio.screenshot("names")
        studio.page.get_by_text("max error (0 = off)").first.wait_for()
    assert {"max_error", "keep", "memory"} <= studio.prompt()[str(studio.saved()["quantize"]["id"])]["inputs"].keys()


def test_help_opens_in_the_frontend(studio, names):
    studio.build(*pipeline(names))
    studio.screenshot("stages")  # brings the node into view: its toolbox opens above it
    studio.page.evaluate("() => app.canvas.selectNode(foundry.nodes.check)")
    with studio.page.expect_response(lambda answer: answer.url.endswith("/docs/FoundryStackValidator.md")) as answer:
        studio.page.get_by_test_id("info-button").click()
    assert answer.value.status == 200
    studio.page.locator(".node-help-content").get_by_text("Stack Validator").first.wait_for()
    studio.screenshot("help")
    studio.page.evaluate("() => app.extensionManager.command.execute('Workspace.ToggleSidebarTab.node-library')")
