"""The open graph is checked while it is edited: what is found is on its node before a run. In both renderers."""

from __future__ import annotations

import json

import pytest
from browser.graphs import finishers, native, pipeline, without_fusion
from browser.studio import setting

SETTING = "LoRAFoundry.Lint"
ROUTE = "**/lora_foundry/lint"
LORA = "wan_style.safetensors"


def declare(host, lora: str, trained_with: object) -> None:
    """Write down what a LoRA was trained with."""
    status, answer = host.request("/lora_foundry/lineage", {"lora": lora, "trained_with": trained_with})
    assert status == 200, answer


def colour(studio, name: str) -> str | None:
    """The colour of a node's title, which is the user's alone."""
    return studio.page.evaluate("name => foundry.nodes[name].color", name)


@pytest.fixture
def blank(studio):
    """A studio that has asked nothing, about nothing."""
    studio.clear()
    studio.quiet()
    studio.requests.clear()
    return studio


def test_a_native_lora_on_fp8_weights_gets_a_badge_without_a_run(blank, names):
    blank.build(*native(names, LORA, "fp8_e4m3fn"))
    blank.check()
    assert blank.badge("lora") == "! Warning LF201" and not colour(blank, "lora")
    assert blank.badge("load") == "" and not colour(blank, "load")
    assert "color" not in blank.saved()["lora"]
    blank.screenshot("native")
    blank.set("load", "weight_dtype", "default")
    blank.check()
    assert blank.badge("lora") == "" and not colour(blank, "lora")


def test_a_click_on_a_badge_opens_what_it_means(blank, names):
    """On a node that is not ours too; a click beside it opens nothing."""
    blank.build(*native(names, LORA, "fp8_e4m3fn"))
    blank.quiet()
    assert blank.badge("lora") == "! Warning LF201"
    blank.screenshot("native")  # brings the node into view
    where = """() => {
      const node = foundry.nodes.lora
      const shown = document.querySelector(`[data-node-id="${node.id}"]`)
      const box = shown?.getBoundingClientRect()
      if (shown?.dataset.lfBadge) return [box.right - 10, box.top - 8]
      if (shown) {
        const badge = [...shown.querySelectorAll("*")].find((each) => each.textContent.trim() === "! Warning LF201")
        const at = badge.getBoundingClientRect()
        return [at.x + at.width / 2, at.y + at.height / 2]
      }
      const {scale, offset: [x, y]} = app.canvas.ds
      const right = node.pos[0] + node.size[0]
      return [(right - 12 + x) * scale, (node.pos[1] - 40 + y) * scale]
    }"""
    left, top = blank.page.evaluate(where)
    blank.page.mouse.click(left, top)
    dialog = blank.page.locator("dialog.lf-dialog")
    dialog.get_by_text("LF201").wait_for()
    blank.page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    blank.page.mouse.click(left, top - 60)
    blank.settle()
    assert dialog.count() == 0


def test_a_missing_base_fusion_is_told_before_the_run(blank, host, unknown):
    declare(host, unknown["new"], [unknown["lightning"]])
    blank.build(*without_fusion(unknown, "new"))
    blank.check()
    for name in ("stack", "check"):
        panel = blank.wait_for_panel(name, "warning")
        assert "LF102" in panel["text"] and "before a run" in panel["text"], name
    assert blank.badge("stack") == blank.badge("check") == "! Warning"
    blank.screenshot("before")
    blank.connect("fuse", 0, "stack", "model")
    blank.connect("load", 0, "fuse", "model")
    blank.check()
    assert "LF102" not in blank.panel("check")["text"] and blank.badge("stack") == ""


def test_an_unnecessary_fusion_depends_on_the_policy_of_the_validator(blank, host, unknown):
    declare(host, unknown["new"], "vanilla")
    nodes, links = pipeline(unknown, "new")
    blank.build(nodes, links)
    blank.set("check", "policy", "match training")
    blank.check()
    assert "LF103" in blank.wait_for_panel("check", "warning")["text"]
    blank.set("check", "policy", "allow accelerators")
    blank.check()
    assert blank.panel("check")["severity"] in ("none", "note")


def test_a_native_lora_above_the_fusion_is_an_error(blank, names):
    nodes, links = pipeline(names, "style")
    nodes["unet"] = ("UNETLoader", (-400, 0), {"unet_name": names["wan"]})
    nodes["native"] = ("LoraLoaderModelOnly", (-400, 200), {"lora_name": LORA, "strength_model": 1.0})
    blank.build(nodes, [("unet", 0, "native", "model"), ("native", 0, "fuse", "model"), *links[1:]])
    blank.check()
    assert blank.badge("native") == "× Error LF101"
    assert "LF101" in blank.wait_for_panel("fuse", "error")["text"]
    blank.screenshot("order")


def test_a_run_says_it_once_and_a_change_of_the_graph_solves_it(blank, host, unknown):
    declare(host, unknown["new"], [unknown["lightning"]])
    blank.build(*without_fusion(unknown, "new"))
    blank.check()
    assert blank.run()["outcome"] == "execution_success"
    blank.quiet()
    text = blank.panel("check")["text"]
    assert text.count("LF102") == 1 and "before a run" not in text and "stacked" in text
    blank.connect("fuse", 0, "stack", "model")
    blank.connect("load", 0, "fuse", "model")
    blank.check()
    panel = blank.panel("check")
    assert "LF102" not in panel["text"] and panel["severity"] == "clear" and not colour(blank, "check")
    assert panel["stale"] and "earlier run" in panel["text"] and "No findings" not in panel["text"]
    blank.connect("load", 0, "stack", "model")
    blank.check()
    assert "before a run" in blank.wait_for_panel("check", "warning")["text"]
    blank.screenshot("again")


def test_switched_off_it_asks_nothing_and_shows_nothing(blank, names):
    blank.build(*native(names, LORA, "fp8_e4m3fn"))
    blank.check()
    setting(blank, SETTING, False)
    try:
        assert blank.badge("lora") == ""
        blank.requests.clear()
        blank.set("lora", "strength_model", 0.5)
        blank.quiet()
        assert blank.requests == []
    finally:
        setting(blank, SETTING, True)
    blank.quiet()
    assert blank.requests == ["POST lint"] and blank.badge("lora") == "! Warning LF201"


def test_a_graph_without_a_lora_sends_nothing(blank, names):
    nodes, links = native(names, LORA)
    del nodes["lora"]
    blank.build(nodes, [("load", 0, "sample", "model"), *links[2:]])
    blank.quiet()
    assert blank.requests == []


def test_many_changes_make_few_requests_and_moving_makes_none(blank, names):
    blank.build(*native(names, LORA))
    blank.check()
    blank.requests.clear()
    blank.page.evaluate(
        """async () => {
          for (let step = 0; step < 50; step++) {
            foundry.set("lora", "strength_model", step / 50)
            window.dispatchEvent(new MouseEvent("mouseup"))
            await new Promise((next) => setTimeout(next, 20))
          }
        }"""
    )
    blank.quiet()
    assert 1 <= len(blank.requests) <= 3
    blank.requests.clear()
    blank.page.evaluate("() => { foundry.nodes.lora.pos = [500, 100]; foundry.nodes.load.color = '#123456' }")
    blank.quiet()
    assert blank.requests == []


def test_the_command_shows_everything_in_a_dialog(blank, names):
    blank.build(*native(names, LORA, "fp8_e4m3fn"))
    blank.page.evaluate("() => { app.extensionManager.command.execute('LoRAFoundry.Check') }")
    dialog = blank.page.locator("dialog.lf-dialog")
    dialog.get_by_text("LF201").wait_for()
    number = blank.page.evaluate("() => foundry.nodes.lora.id")
    assert LORA in dialog.inner_text() and f"(node {number})" in dialog.inner_text()
    blank.page.screenshot(path=blank.artefacts / f"dialog-{blank.mode}.png")
    blank.page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def test_the_dialog_leads_to_the_node_where_a_finding_is_repaired(blank, host, unknown):
    declare(host, unknown["new"], [unknown["lightning"]])
    blank.build(*without_fusion(unknown, "new"))
    blank.check()
    blank.page.evaluate("() => { app.extensionManager.command.execute('LoRAFoundry.Check') }")
    way = blank.page.locator("dialog.lf-dialog .lf-finding:has-text('LF102') .lf-where")
    number = blank.page.evaluate("() => foundry.nodes.row.id")
    assert f"(node {number})" in way.inner_text()
    way.click()
    blank.page.locator(".lf-popover:popover-open .lf-finding").get_by_text("LF102").wait_for()
    blank.page.keyboard.press("Escape")


def test_a_finding_inside_a_subgraph_marks_the_subgraph_too(blank, names):
    blank.build(*native(names, LORA, "fp8_e4m3fn"))
    blank.page.evaluate(
        """() => { foundry.nodes.outer = app.graph.convertToSubgraph(new Set([foundry.nodes.lora])).node }"""
    )
    blank.check()
    assert blank.badge("outer") == "! Warning LF201"
    blank.screenshot("subgraph")


def test_a_server_without_the_route_is_asked_once(blank, names):
    blank.page.route(ROUTE, lambda route: route.fulfill(status=405, body="Method Not Allowed"))
    try:
        blank.build(*native(names, LORA, "fp8_e4m3fn"))
        blank.quiet()
        blank.set("lora", "strength_model", 0.5)
        blank.quiet()
        assert blank.requests == ["POST lint"] and blank.badge("lora") == ""
    finally:
        blank.page.unroute(ROUTE)
        blank.open()


def test_a_failing_server_is_told_once_and_asked_again(blank, names):
    blank.page.route(ROUTE, lambda route: route.fulfill(status=400, body='{"error": {"what": "no"}}'))
    try:
        blank.build(*native(names, LORA))
        blank.quiet()
        blank.set("lora", "strength_model", 0.5)
        blank.quiet()
        assert len(blank.requests) == 2 and len(blank.problems) == 1 and "LoRAFoundry" in blank.problems[0]
    finally:
        blank.problems.clear()
        blank.page.unroute(ROUTE)
        blank.open()


def test_findings_and_words_come_in_the_language_of_the_host(blank, host, names):
    """A blank that the finding has no value for stays; a text without a translation stays English."""
    words = {
        "ui": {"severity.warning": "Hinweis"},
        "findings": {"LF201.native": {"seen": "{loras}: {base}, schon klein"}},
    }
    answer = json.dumps({"de": {"loraFoundry": words}, "fr": {"loraFoundry": words}})
    blank.page.route("**/i18n", lambda route: route.fulfill(body=answer, content_type="application/json"))
    host.request("/settings/Comfy.Locale", "fr")
    try:
        blank.open()
        blank.build(*native(names, LORA, "fp8_e4m3fn"))
        blank.check()
        blank.page.evaluate("() => { app.extensionManager.command.execute('LoRAFoundry.Check') }")
        dialog = blank.page.locator("dialog.lf-dialog")
        dialog.get_by_text(f"{LORA}: {names['wan']}, schon klein").wait_for()
        assert "quantize last" in dialog.inner_text() and "Hinweis" in dialog.inner_text()
        blank.page.keyboard.press("Escape")
    finally:
        host.request("/settings/Comfy.Locale", "en")
        blank.page.unroute("**/i18n")
        blank.open()


def test_a_button_settles_a_finding_as_one_step_of_undo(blank, names):
    """A file of nearly that name, inside the rows of a LoRA Stack: the other rows and keys stay."""
    nodes, links = finishers(names)
    rows = [{"path": "moved/wan_style.safetensors", "weight": 0.5}, names["partial"]]
    nodes["rows"] = ("FoundryLoRAStack", (0, 400), {"loras": json.dumps(rows)})
    blank.build(nodes, links)
    blank.quiet()
    value = "() => foundry.nodes.rows.widgets[0].value"
    before = blank.page.evaluate(value)
    blank.wait_for_panel("stack", "error")
    button = blank.follow("stack", "rows").get_by_role("button", name="Use wan_style")
    button.first.wait_for()
    blank.page.screenshot(path=blank.artefacts / f"fix-{blank.mode}.png")
    button.first.click()
    assert json.loads(blank.page.evaluate(value)) == [{"path": names["style"], "weight": 0.5}, names["partial"]]
    blank.page.keyboard.press("Escape")
    blank.quiet()
    assert blank.panel("stack")["severity"] != "error"
    blank.undo()
    blank.page.wait_for_function(f"before => ({value})() === before", arg=before)


def test_an_edit_that_finds_the_same_draws_nothing_again(blank, names):
    blank.build(*pipeline(names))
    blank.quiet()
    blank.page.evaluate("""() => {
      window.drawn = 0
      const watch = new MutationObserver((changes) => (window.drawn += changes.length))
      for (const each of Object.keys(foundry.nodes)) {
        const panel = foundry.nodes[each].widgets && foundry.panel(each)
        if (panel) watch.observe(panel, {childList: true, subtree: true, characterData: true, attributes: true})
      }
    }""")
    blank.set("sample", "seed", 99)
    blank.check()
    assert blank.page.evaluate("() => window.drawn") == 0
