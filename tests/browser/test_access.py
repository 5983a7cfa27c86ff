"""axe-core finds nothing of WCAG 2.2, levels A and AA, in our elements: in both renderers, dark and light."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from browser.graphs import finishers
from browser.studio import setting

LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
OURS = [".lf-panel:not([hidden])", ".lf-rows", ".lf-popover:popover-open", "dialog.lf-dialog", ".lf-live"]
RUN = """async ([ours, levels]) => {
  const include = ours.filter((each) => document.querySelector(each)).map((each) => [each])
  const {violations, passes} = await axe.run({include}, {runOnly: {type: "tag", values: levels}})
  const told = ({id, nodes}) => nodes.map(({html, any}) => [id, html, any[0]?.message ?? ""])
  return [violations.flatMap(told), passes.length]
}"""


def violations(studio) -> list[list[str]]:
    """What axe has against our elements that are on the page; that it looked at some is asserted."""
    found, passes = studio.page.evaluate(RUN, [OURS, LEVELS])
    assert passes > 3
    return found


@pytest.fixture
def checked(studio, host, unknown):
    """Panels with findings and questions, rows, and reports of a run."""
    script = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    studio.page.evaluate(script)
    nodes, links = finishers(unknown)
    rows = [{"path": "moved/wan_style.safetensors", "strength": 0.5}, unknown["new"], {"path": unknown["partial"]}]
    nodes["rows"] = ("FoundryLoRAStack", (0, 500), {"loras": json.dumps(rows)})
    studio.build(nodes, links)
    studio.screenshot("access")
    studio.quiet()
    return studio


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_panels_rows_details_and_dialogs(checked, theme):
    setting(checked, "Comfy.ColorPalette", theme)
    try:
        assert violations(checked) == []
        checked.open_panel("stack")
        checked.page.screenshot(path=checked.artefacts / f"details-{theme}-{checked.mode}.png")
        assert violations(checked) == []
        checked.page.keyboard.press("Escape")
        checked.page.evaluate("() => { app.extensionManager.command.execute('LoRAFoundry.Check') }")
        checked.page.locator("dialog.lf-dialog").wait_for()
        assert violations(checked) == []
        checked.page.keyboard.press("Escape")
        checked.page.locator("dialog.lf-dialog").wait_for(state="detached")
    finally:
        setting(checked, "Comfy.ColorPalette", "dark")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_pictures_of_a_run(checked, host, theme, names):
    setting(checked, "Comfy.ColorPalette", theme)
    try:
        checked.set("rows", "loras", json.dumps([names["partial"]]))
        checked.run()
        checked.wait_for_panel("save", "warning")
        checked.open_panel("save")
        assert violations(checked) == []
        checked.page.keyboard.press("Escape")
    finally:
        setting(checked, "Comfy.ColorPalette", "dark")


def test_what_rows_open(checked, host, names):
    """The second line of a row, and each of the editor's popovers."""
    page = checked.page
    loras = host.base / "models" / "loras"
    (loras / "folder of its own").mkdir(exist_ok=True)
    (loras / "folder of its own" / "same.safetensors").write_bytes((loras / names["style"]).read_bytes())
    host.request("/lora_foundry/stacks", {"name": "saved", "rows": [], "replace": True})
    setting(checked, "Comfy.ColorPalette", "light")
    try:
        page.locator(".lf-rows .lf-chips").nth(2).click()
        assert page.locator(".lf-second").is_visible() and violations(checked) == []
        opened = page.locator(".lf-popover:popover-open")
        for button, shown, pressed in (  # pressed: a folder; what asks before a stack is deleted
            (page.get_by_role("button", name="Add LoRA"), ".lf-folders .lf-button", True),
            (page.get_by_role("button", name="Sort, paste"), ".lf-button", False),
            (page.get_by_role("button", name="Saved stacks"), ".lf-stack .lf-button", True),
            (page.get_by_role("button", name="Blocks..."), ".lf-bar", False),
            (page.locator(".lf-dots").nth(2), ".lf-button", False),
        ):
            button.first.click()
            opened.locator(shown).first.wait_for()
            if pressed:
                opened.locator(shown).nth(1).click()
            checked.settle()
            assert violations(checked) == []
            page.keyboard.press("Escape")
            opened.wait_for(state="detached")
    finally:
        setting(checked, "Comfy.ColorPalette", "dark")
