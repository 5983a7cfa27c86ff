"""Where rows of LoRA Stack come from: folders, drops, another node; and what the page does when files change."""

from __future__ import annotations

import json

import pytest
from browser.rows_parts import box_of, fitted, focus, paths, press, text

# A drop as the browser tells it, of a text that is dragged from anywhere.
DROP = """([selector, text]) => {
  const data = new DataTransfer()
  data.setData("text/plain", text)
  const target = document.querySelector(selector)
  for (const kind of ["dragover", "drop"]) {
    const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data })
    target.dispatchEvent(event)
    if (!event.defaultPrevented) return kind
  }
  return "taken"
}"""


@pytest.fixture(scope="session")
def deep(host):
    """LoRAs in folders, one with a title in its header."""
    from lora_foundry.cli.demo import tiny

    tensors = tiny.lora(tiny.shapes("wan"), rank=4, dialect="A/B", prefix="diffusion_model.", seed=77)
    titled = {"modelspec.title": "A Title of Its Own"}
    files = {"flux/people/anna": titled, "flux/people/ben": {}, "flux/inkblot": {}, "wan/rain": {}}
    for name, metadata in files.items():
        host.add_model("loras", f"{name}.safetensors", tensors, metadata)
    return "flux/people/anna.safetensors"


# What is dragged over the rows and let go there: a file of this machine. Whether the rows light up for it.
FILE = """([name, type]) => {
  const data = new DataTransfer()
  data.items.add(new File(["x"], name, { type }))
  const list = document.querySelector(".lf-rows-list")
  const more = { bubbles: true, cancelable: true, dataTransfer: data }
  list.dispatchEvent(new DragEvent("dragover", more))
  const lit = list.closest(".lf-rows").classList.contains("lf-drop")
  if (lit) list.dispatchEvent(new DragEvent("drop", more))
  return lit
}"""


def options(studio) -> list[str]:
    return studio.page.locator(".lf-option").evaluate_all("all => all.map(({title}) => title.split('\\n')[0])")


def test_folders_narrow_the_chooser_by_click_and_by_keys(rows, deep):
    rows.page.locator(".lf-add").click()
    bar = rows.page.locator(".lf-folders")
    bar.get_by_role("button", name="flux, ").wait_for()
    rows.page.screenshot(path=rows.artefacts / f"rows-folders-{rows.mode}.png")
    press(rows, "Tab")
    assert rows.page.evaluate("() => document.activeElement.textContent") == "All"
    press(rows, "End", "Home", "ArrowRight")
    while not rows.page.evaluate("() => document.activeElement.textContent").startswith("flux"):
        press(rows, "ArrowRight")
    press(rows, "Enter")
    assert options(rows) == ["flux/inkblot.safetensors", "flux/people/anna.safetensors", "flux/people/ben.safetensors"]
    assert rows.page.evaluate("() => document.activeElement.getAttribute('role')") == "combobox"
    rows.page.locator(".lf-option").get_by_text("A Title of Its Own").wait_for()
    rows.page.keyboard.type("of own")  # words of the title
    assert options(rows) == ["flux/people/anna.safetensors"]
    bar.get_by_role("button", name="people, 2 LoRAs").click()
    rows.page.locator(".lf-search").fill("")
    assert options(rows) == ["flux/people/anna.safetensors", "flux/people/ben.safetensors"]
    assert bar.get_by_role("button").all_inner_texts() == ["All", "flux", "people"]
    press(rows, "Tab", "Backspace")
    assert len(options(rows)) == 3
    press(rows, "Enter")
    assert paths(rows)[-1] == "flux/inkblot.safetensors"


def dragged_onto_rows(studio, label: str) -> None:
    """Drag a file of the sidebar with the mouse and let it go over the rows."""
    item = studio.page.locator(".p-tree-node-content:has(.tree-leaf)", has_text=label).first
    box, target = box_of(item), box_of(studio.page.locator(".lf-rows"))
    studio.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    studio.page.mouse.down()
    # the left half is behind the list
    right, bottom = target["x"] + target["width"] - 90, target["y"] + target["height"] - 12
    studio.page.mouse.move(right, bottom - 20, steps=4)
    studio.page.mouse.move(right, bottom, steps=2)
    studio.page.screenshot(path=studio.artefacts / f"rows-drop-{studio.mode}.png")
    studio.page.mouse.up()


def test_a_lora_of_the_sidebar_is_dropped_onto_the_rows(rows, deep):
    sidebar = "() => app.extensionManager.command.execute('Workspace.ToggleSidebarTab.model-library')"
    rows.page.evaluate(sidebar)
    try:
        for folder in ("loras", "flux", "people"):
            rows.page.locator(f'[role="treeitem"][aria-label="{folder}"] > .p-tree-node-content').first.click()
        anna = rows.page.locator('[role="treeitem"][aria-label="anna"], [role="treeitem"][aria-label^="A Title"]')
        anna.first.wait_for()
        nodes = rows.page.evaluate("() => app.graph.nodes.length")
        dragged_onto_rows(rows, "ben")
        rows.page.wait_for_function("() => document.querySelectorAll('.lf-row').length === 4")
        assert paths(rows)[-1] == "flux/people/ben.safetensors"
        dragged_onto_rows(rows, anna.first.get_attribute("aria-label"))
        rows.page.wait_for_function("() => document.querySelectorAll('.lf-row').length === 5")
        assert paths(rows)[-1] == deep
        assert rows.page.evaluate("() => app.graph.nodes.length") == nodes  # the host made no loader of it
        rows.kept()
        rows.undo()
        rows.page.wait_for_function("() => document.querySelectorAll('.lf-row').length === 4")
    finally:
        rows.page.evaluate(sidebar)


def test_names_and_tags_that_are_dragged_as_text_become_rows(rows, names, deep):
    before = paths(rows)
    assert rows.page.evaluate(DROP, [".lf-rows-list", f"C:\\loras\\{deep}\nflux/inkblot.safetensors"]) == "taken"
    rows.page.wait_for_function("() => document.querySelectorAll('.lf-row').length === 5")
    assert paths(rows) == [*before, deep, "flux/inkblot.safetensors"]
    assert rows.page.evaluate(DROP, [".lf-strength", "a cat <lora:inkblot:0.4>"]) == "taken"
    rows.page.wait_for_function("() => document.querySelectorAll('.lf-row').length === 6")
    assert json.loads(text(rows))[-1] == {"path": "flux/inkblot.safetensors", "strength": 0.4}
    now = text(rows)
    assert rows.page.evaluate(DROP, [".lf-rows-list", "nobody.safetensors"]) == "taken"
    rows.page.get_by_text("lists no nobody.safetensors").first.wait_for()
    rows.page.evaluate(DROP, [".lf-rows-list", "some words"])  # the host's
    rows.page.get_by_role("button", name="Edit as text").click()
    rows.page.evaluate(DROP, [".lf-rows-text", "flux/inkblot.safetensors"])  # the text field's own
    rows.page.get_by_role("button", name="Edit as rows").click()
    assert text(rows) == now and rows.page.locator(".lf-drop").count() == 0


def test_a_drop_without_an_answer_of_the_server_says_so_and_not_that_the_file_is_missing(rows, deep):
    before = text(rows)
    rows.page.route("**/lora_foundry/loras", lambda route: route.abort())
    try:
        assert rows.page.evaluate(DROP, [".lf-rows-list", "flux/inkblot.safetensors"]) == "taken"
        rows.page.get_by_text("The server did not list its LoRAs.").first.wait_for()
    finally:
        rows.page.unroute("**/lora_foundry/loras")
    assert text(rows) == before and rows.page.get_by_text("lists no inkblot").count() == 0


def test_a_file_of_this_machine_that_is_listed_becomes_a_row_and_a_picture_is_left_to_the_host(rows, deep):
    before = text(rows)
    assert not rows.page.evaluate(FILE, ["picture.png", "image/png"]) and text(rows) == before
    assert rows.page.evaluate(FILE, ["inkblot.safetensors", ""])
    rows.page.wait_for_function("() => document.querySelectorAll('.lf-row').length === 4")
    assert paths(rows)[-1] == "flux/inkblot.safetensors" and rows.page.locator(".lf-drop").count() == 0


def test_the_list_is_asked_for_with_what_is_known_and_a_change_beside_a_file_is_seen(rows, host, deep):
    fitted(rows)

    def reopened() -> int:
        with rows.page.expect_response("**/lora_foundry/loras") as answer:
            rows.page.locator(".lf-add").click()
        status = answer.value.status
        press(rows, "Escape")
        rows.page.locator(".lf-chooser").wait_for(state="detached")
        return status

    reopened()
    assert reopened() == 304
    sidecar = host.base / "models" / "loras" / "wan_partial.civitai.info"
    sidecar.write_text('{"trainedWords": ["silver rain"]}')
    try:
        with rows.page.expect_response("**/lora_foundry/loras") as answer:
            rows.page.evaluate("() => window.dispatchEvent(new Event('focus'))")  # back from another window
        assert answer.value.status == 200
        focus(rows, 1)
        press(rows, "d")
        rows.page.locator(".lf-second .lf-words").get_by_text("silver rain").wait_for()
    finally:
        sidecar.unlink()


def test_a_file_that_was_missing_is_found_when_somebody_comes_back_with_it(rows, host, names):
    rows.set("rows", "loras", json.dumps([{"path": f"late_{rows.mode}.safetensors"}]))
    rows.check()
    missing = rows.page.locator(".lf-row .lf-chips").get_by_text("missing")
    missing.wait_for()
    assert rows.page.locator(".lf-worst").get_attribute("data-severity") == "error"
    loras = host.base / "models" / "loras"
    (loras / f"late_{rows.mode}.safetensors").write_bytes((loras / names["style"]).read_bytes())
    rows.page.evaluate("() => window.dispatchEvent(new Event('focus'))")
    missing.wait_for(state="detached")
    settled = "() => { const { hidden, dataset } = document.querySelector('.lf-worst')"
    rows.page.wait_for_function(f"{settled}; return hidden || dataset.severity !== 'error' }}")  # checked again


def test_a_saved_stack_is_deleted_after_a_question(rows):
    before = text(rows)
    name = f"old {rows.mode}"
    rows.page.get_by_role("button", name="Saved stacks").click()
    rows.page.keyboard.type(name)
    press(rows, "Enter")
    list_of = rows.page.locator(".lf-stacks")
    list_of.get_by_role("button", name=f"Delete {name}").dblclick()  # the second click keeps it
    list_of.get_by_role("button", name=name, exact=True).wait_for()
    list_of.get_by_role("button", name=f"Delete {name}").focus()
    press(rows, "Enter")
    list_of.get_by_text("for good?").wait_for()
    rows.page.screenshot(path=rows.artefacts / f"rows-stacks-{rows.mode}.png")
    press(rows, "Shift+Tab", "Enter")
    list_of.get_by_text(name).first.wait_for(state="detached")
    assert rows.page.evaluate("() => document.activeElement.matches('.lf-popover .lf-input')")
    press(rows, "Escape")
    with rows.page.expect_response("**/lora_foundry/stacks"):
        rows.page.get_by_role("button", name="Saved stacks").click()
    list_of.locator("li").first.wait_for()  # or that there are none
    assert not list_of.get_by_text(name).count() and text(rows) == before
    press(rows, "Escape")


# A node of a pack that is not installed here, as far as a saved workflow shows it, and what its menu offers LoRA Stack.
IMPORT = """(row) => {
  if (!LiteGraph.registered_node_types.PowerLoraLoaderV2) {
    class Loader extends LiteGraph.LGraphNode {
      constructor(title) { super(title); this.addInput("model", "MODEL"); this.addInput("model_low", "MODEL") }
      onSerialize(saved) { saved.widgets_values = [{}, this.row] }
    }
    LiteGraph.registerNodeType("PowerLoraLoaderV2", Loader)
  }
  const node = LiteGraph.createNode("PowerLoraLoaderV2", "Both")
  node.row = row
  app.graph.add(node)
  const ours = app.extensions.find(({ name }) => name === "LoRAFoundry")
  ours.getNodeMenuItems(foundry.nodes.rows).find(({ content }) => content.includes("Both")).callback()
}"""


def test_rows_of_a_node_for_two_models_are_those_that_are_chosen(rows, names):
    before = paths(rows)
    row = {"on": True, "lora": names["style"], "strength": 0.8, "is_low": True,
           "low_variant_name": names["lightning"], "low_strength": 0.6}  # fmt: skip
    rows.page.evaluate(IMPORT, row)
    dialog = rows.page.locator(".lf-dialog")
    dialog.get_by_role("button", name="Low noise").click()
    rows.page.wait_for_function("() => document.querySelectorAll('.lf-row').length === 4")
    assert json.loads(text(rows))[-1] == {"path": names["lightning"], "strength": 0.6}
    rows.page.evaluate(IMPORT, row)
    dialog.wait_for()
    press(rows, "Escape")
    dialog.wait_for(state="detached")
    assert len(paths(rows)) == len(before) + 1  # nothing without a choice
