"""What a run says appears on its node: findings, errors, and honesty about what is old. In both renderers."""

from __future__ import annotations

import json

import pytest
from browser.graphs import finishers, pipeline
from browser.studio import setting


@pytest.fixture
def fresh(studio, host, names):
    """The pipeline, not run yet, in a host that has cached nothing."""
    host.free()
    studio.build(*pipeline(names))
    return studio


@pytest.fixture
def unchecked(studio, host, names):
    """The same, and what is shown comes from a run: the check of the graph is switched off."""
    setting(studio, "LoRAFoundry.Lint", False)
    host.free()
    studio.build(*pipeline(names))
    yield studio
    setting(studio, "LoRAFoundry.Lint", True)


def test_findings_appear_on_the_node_after_a_run(unchecked):
    shown = "() => ['fuse', 'stack', 'check', 'quantize'].filter((name) => !foundry.panel(name).hidden)"
    assert unchecked.page.evaluate(shown) == []
    assert unchecked.run()["outcome"] == "execution_success"
    unchecked.wait_for_panel("check", "warning")
    one_line = "() => foundry.panel('check').offsetHeight > 0 && foundry.panel('check').offsetHeight <= 28"
    unchecked.page.wait_for_function(one_line)  # in its own pixels, whatever the zoom is
    panel = unchecked.panel("check")
    assert "1 warning" in panel["text"] and "LF302" in panel["text"] and "wan_partial.safetensors" in panel["text"]
    assert panel["on_page"] and panel["width"] > 150
    live = unchecked.page.evaluate("() => [...document.querySelectorAll('.lf-live')].map((each) => each.role)")
    assert live == ["status"]  # one voice, however many panels
    assert unchecked.wait_for_panel("fuse", "clear")["text"].startswith("✓")
    assert "quantized" in unchecked.panel("quantize")["text"]
    unchecked.screenshot("findings")


def test_a_finding_is_told_once_where_it_is_repaired_and_counted_elsewhere_with_the_way_there(fresh):
    """The row of the LoRA tells it; stack, validator and quantizer name the row, and a click goes there."""
    fresh.run()
    for name in ("stack", "check", "quantize"):
        text = fresh.wait_for_panel(name, "warning")["text"]
        assert "LF302" in text and "modules found their weight" not in text, name
        assert "1 warning at LoRA" in text.splitlines()[1], name
    assert fresh.badge("row") == "! Warning LF302"
    told = fresh.follow("check", "row")
    told.get_by_text("modules found their weight").wait_for()
    fresh.page.screenshot(path=fresh.artefacts / f"owner-{fresh.mode}.png")
    assert fresh.page.evaluate("() => app.canvas.selected_nodes[foundry.nodes.row.id] === foundry.nodes.row")
    node, view = fresh.page.evaluate(
        """() => {
          const {ds, canvas} = app.canvas, {pos, size} = foundry.nodes.row
          const middle = [0, 1].map((at) => (pos[at] + size[at] / 2 + ds.offset[at]) * ds.scale)
          return [middle, [canvas.clientWidth, canvas.clientHeight]]
        }"""
    )
    assert all(0 < at < edge for at, edge in zip(node, view, strict=True))
    fresh.page.keyboard.press("Escape")
    fresh.set("row", "lora_name", "wan_style.safetensors")
    fresh.run()
    fresh.check()  # the badge is the check's too
    fresh.wait_for_panel("check", "clear")
    assert fresh.badge("row") == ""


def test_the_panel_fits_its_node(fresh):
    fresh.run()
    fresh.wait_for_panel("check", "warning")
    fresh.screenshot("fit")  # brings every node into view, so that each panel is laid out
    overflow = """() => ['fuse', 'stack', 'check', 'quantize'].filter((name) => {
      const {scrollWidth, clientWidth, scrollHeight, clientHeight} = foundry.panel(name)
      return scrollWidth > clientWidth + 1 || scrollHeight > clientHeight + 1
    })"""
    assert fresh.page.evaluate(overflow) == []


def test_saving_and_loading_again_makes_no_node_grow(fresh):
    """A node's saved size has room for an empty panel: loading must not add what it shows a second time."""
    sizes = "() => Object.fromEntries(Object.entries(foundry.nodes).map(([name, node]) => [name, [...node.size]]))"
    seen = []
    for _ in range(3):
        fresh.load_again()
        fresh.screenshot("stages")  # brings every node into view, so that each panel is laid out
        fresh.quiet()  # the check has filled the panels
        seen.append(fresh.page.evaluate(sizes))
    grown = {name: size[1] - seen[0][name][1] for name, size in seen[-1].items()}
    assert {name: more for name, more in grown.items() if more > 1} == {}


def test_the_wheel_over_a_panel_zooms_as_over_the_canvas(fresh):
    fresh.run()
    fresh.wait_for_panel("check", "warning")  # before that it has no place on the page
    fresh.screenshot("stages")
    scale = "() => app.canvas.ds.scale"
    at = "() => { const box = foundry.panel('check').getBoundingClientRect(); return [box.x + 9, box.y + 9] }"
    zooms = []
    for where in ([300, 900], fresh.page.evaluate(at)):
        fresh.page.mouse.move(*where)
        before = fresh.page.evaluate(scale)
        fresh.page.mouse.wheel(0, -100)
        fresh.page.wait_for_function(f"before => ({scale})() !== before", arg=before)
        fresh.settle()
        zooms.append(fresh.page.evaluate(scale) / before)
        fresh.page.mouse.wheel(0, 100)
        fresh.page.wait_for_function(f"before => Math.abs(({scale})() - before) < 1e-3", arg=before)
    assert abs(zooms[0] - zooms[1]) < 1e-3


def test_nothing_of_it_is_saved_or_posted(fresh):
    """Nodes and the saved workflow keep the user's colours and widget values; the prompt has no input of ours."""
    fresh.page.evaluate("() => { foundry.nodes.stack.color = '#123456' }")
    before = fresh.saved()
    fresh.run()
    fresh.wait_for_panel("check", "warning")
    after = fresh.saved()
    assert fresh.page.evaluate("() => foundry.nodes.stack.color") == "#123456"
    for name, node in after.items():
        assert node.get("color") == before[name].get("color"), name
        assert node.get("widgets_values") == before[name].get("widgets_values"), name
    assert after["quantize"]["widgets_values"] == [
        "auto",
        "full precision",
        "auto",
        0,
        "auto",
        "memory",
        False,
        "none",
        False,
    ]
    assert not any("foundry_findings" in node["inputs"] for node in fresh.prompt().values())


def test_a_cached_rerun_keeps_the_findings(fresh):
    fresh.run()
    fresh.check()  # what it finds is in the panel too
    shown = fresh.wait_for_panel("check", "warning")["text"]
    fresh.set("sample", "seed", 8)
    assert fresh.run()["outcome"] == "execution_success"
    fresh.check()
    again = fresh.panel("check")
    assert again["text"] == shown and not again["stale"]


def test_findings_survive_a_change_of_the_workflow_tab(fresh):
    fresh.run()
    shown = fresh.wait_for_panel("quantize", "warning")["text"]
    fresh.load_again()
    assert fresh.wait_for_panel("quantize", "warning")["text"] == shown


def test_what_a_run_said_of_a_lora_that_was_replaced_is_gone_and_does_not_come_back(fresh, names):
    """Whether a check says it too or the run alone, which the page is told here; another tab makes every node anew."""
    fresh.run()
    fresh.check()
    said = {"code": "LF305", "severity": "warning", "seen": "Small numbers.", "subject": names["partial"]}
    fresh.page.evaluate("said => foundry.nodes.stack.onExecuted({text: [], foundry: [{findings: [said]}]})", said)
    assert fresh.wait_for_panel("check", "warning") and "LF305" in fresh.badge("row")
    fresh.set("row", "lora_name", names["style"])
    for _ in range(2):
        fresh.check()
        for name in ("stack", "check", "quantize"):
            text = fresh.panel(name)["text"]
            assert "LF302" not in text and "LF305" not in text, text
        assert fresh.badge("row") == ""
        fresh.load_again()
    fresh.set("row", "lora_name", names["partial"])
    fresh.check()
    assert "LF302" in fresh.wait_for_panel("check", "warning")["text"]


def test_findings_come_back_for_a_node_that_a_run_reused(unchecked):
    """After a reload of the page nothing is sent for cached nodes; the host's history still has their report."""
    unchecked.run()
    shown = unchecked.wait_for_panel("quantize", "warning")["text"]
    unchecked.load_again(new_page=True)
    assert unchecked.panel("quantize")["severity"] == "none"
    unchecked.set("sample", "seed", 9)
    unchecked.run()
    assert unchecked.wait_for_panel("quantize", "warning")["text"] == shown


def test_an_error_is_shown_where_it_happened_and_the_rest_is_marked_old(fresh, names):
    fresh.run()
    fresh.wait_for_panel("quantize", "warning")
    fresh.set("row", "lora_name", names["unrelated"])
    outcome = fresh.run()
    assert outcome["outcome"] == "execution_error"
    panel = fresh.wait_for_panel("stack", "error")
    assert "Error" in panel["text"] and "LF301" in panel["text"] and "unrelated.safetensors" in panel["text"]
    assert not panel["stale"]
    assert fresh.panel("quantize")["stale"] and "earlier run" in fresh.panel("quantize")["text"]
    assert not fresh.panel("fuse")["stale"]  # reused, so still true
    fresh.page.keyboard.press("Escape")
    fresh.screenshot("error")
    fresh.check()  # no answer about this graph is on its way
    fresh.set("row", "lora_name", names["partial"])
    fresh.run()
    assert "LF301" not in fresh.wait_for_panel("stack", "warning")["text"]


def test_strict_stops_the_run_on_the_validator(fresh):
    fresh.set("check", "strict", True)
    assert fresh.run()["outcome"] == "execution_error"
    assert "LF302" in fresh.wait_for_panel("check", "error")["text"]


def test_apply_and_save_report_too(studio, names):
    nodes, links = finishers(names)
    nodes["stats"] = ("PreviewAny", (1140, 0), {})
    studio.build(nodes, [*links, ("apply", 1, "stats", "source")])
    assert studio.run()["outcome"] == "execution_success"
    assert names["style"] in studio.wait_for_panel("apply", "clear")["text"]
    assert "written" in studio.wait_for_panel("save", "clear")["text"]
    studio.screenshot("finishers")


def test_what_was_measured_is_shown_as_pictures(fresh):
    fresh.set("quantize", "max_error", 0.03)
    fresh.run()
    fresh.wait_for_panel("quantize", "warning")
    fresh.open_panel("quantize")
    shown = "() => [...document.querySelectorAll('.lf-popover:popover-open .lf-picture')].map((each) => each.ariaLabel)"
    kept, energy, size, errors = fresh.page.evaluate(shown)
    assert kept.startswith("Effect kept: ") and "wan_partial 100%" in kept
    assert energy.startswith("Where it is strong, by block: ") and "wan_partial other" in energy
    assert size.startswith("Size: before ") and "after" in size
    assert errors.startswith("Errors of ") and "limit 3%" in errors
    widths = (
        "() => [...document.querySelectorAll('.lf-popover:popover-open .lf-picture')].map((each) => each.clientWidth)"
    )
    assert min(fresh.page.evaluate(widths)) > 200  # as wide as the popover
    fresh.page.screenshot(path=fresh.artefacts / f"pictures-{fresh.mode}.png")
    fresh.page.keyboard.press("Escape")
    fresh.open_panel("check")
    fit = fresh.page.evaluate(shown)[0]
    assert fit.startswith("Modules that found their weight: ") and "wan_partial" in fit
    fresh.page.keyboard.press("Escape")


def test_loras_that_were_compared_are_shown_as_a_map(studio, names):
    rows = json.dumps([{"path": names["style"], "strength": 0.5}, names["partial"]])
    nodes = {"rows": ("FoundryLoRAStack", (0, 0), {"loras": rows}), "pairs": ("FoundryLoRAConflicts", (460, 0), {})}
    studio.build(nodes, [("rows", 0, "pairs", "lora_stack")])
    assert studio.run()["outcome"] == "execution_success"
    studio.wait_for_panel("pairs", "clear")
    studio.open_panel("pairs")
    shown = "() => [...document.querySelectorAll('.lf-popover:popover-open .lf-picture')].map((each) => each.ariaLabel)"
    pairs, energy = studio.page.evaluate(shown)
    assert pairs.startswith("Pairs: ") and "wan_style / wan_partial 0." in pairs
    assert "all together" in energy and "wan_style" in energy
    studio.page.screenshot(path=studio.artefacts / f"map-{studio.mode}.png")
    studio.page.keyboard.press("Escape")


def test_text_is_never_html(unchecked):
    attack = "<img src=x onerror=window.bad=1>"
    finding = {"code": "<b>LF999</b>", "severity": "<i>", "seen": attack, "why": "<script>window.bad=1</script>"}
    output = {"text": [f"{attack} fact"], "foundry": [{"findings": [finding]}]}
    unchecked.page.evaluate("output => foundry.nodes.check.onExecuted(output)", output)
    panel = unchecked.wait_for_panel("check", "note")
    assert "<img src=x" in panel["text"] and "<b>LF999</b>" in panel["text"]
    assert panel["images"] == 0 and unchecked.page.evaluate("() => window.bad === undefined")


def test_output_of_another_shape_is_left_alone(unchecked):
    for output in ("{}", "undefined", "{foundry: []}", "{foundry: ['x']}", "{images: []}"):
        unchecked.page.evaluate(f"() => foundry.nodes.check.onExecuted({output})")
    assert unchecked.panel("check")["severity"] == "none"


def test_an_undo_keeps_the_reports_and_marks_those_of_another_graph(fresh):
    """The host makes every node anew at an undo."""
    fresh.run()
    fresh.wait_for_panel("quantize", "warning")
    fresh.edited()
    fresh.kept()
    fresh.set("sample", "steps", 2)  # below what is reported on
    fresh.edited()
    fresh.kept()
    fresh.undo()
    assert fresh.page.evaluate("() => foundry.nodes.sample.widgets.find(({name}) => name === 'steps').value") == 1
    panel = fresh.wait_for_panel("quantize", "warning")
    assert panel["on_page"] and not panel["stale"]
    for strength in (0.1, 0.2):
        fresh.set("row", "strength_model", strength)
        fresh.edited()
        fresh.kept()
    fresh.undo()
    assert fresh.wait_for_panel("quantize", "warning")["stale"]
    assert not fresh.panel("fuse")["stale"]  # it is above what was changed


def test_what_stops_a_node_of_another_pack_is_not_shown_as_ours(fresh):
    script = """([name, exception_message]) => (app.api ?? window.comfyAPI.api.api).dispatchEvent(new CustomEvent(
      "execution_error", {detail: {node_id: String(foundry.nodes[name].id), exception_message}}))"""
    fresh.page.evaluate("() => foundry.add('unet', 'UNETLoader', [0, 800], {})")
    fresh.page.evaluate(script, ["unet", "Allocation on device"])
    assert fresh.badge("unet") == ""
    fresh.page.evaluate(script, ["unet", "[LF301] No module fits."])
    assert fresh.badge("unet") == "× Error LF301"
    fresh.page.evaluate(script, ["quantize", "Allocation on device"])
    assert "Allocation" in fresh.wait_for_panel("quantize", "error")["text"]
