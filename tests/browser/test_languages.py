"""What stops a run is told in the language of the host, on its node; everything beside the page stays English."""

from __future__ import annotations

import pytest
from browser.graphs import pipeline
from browser.studio import EXTENSION, setting

LINT = "LoRAFoundry.Lint"
REFUSED = "() => app.queuePrompt(0)"  # no run begins, so none ends
COUNTED = """() => {
  foundry.refusals = 0
  const api = app.api ?? window.comfyAPI.api.api
  api.addEventListener("lora_foundry.refused", () => { foundry.refusals += 1 })
}"""
POSTED = """async (prompt) => { // as a script does, which is no page
  const how = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ prompt }) }
  return (await fetch("/prompt", how)).text()
}"""


@pytest.fixture
def german(studio, host):
    """A page in German, in which nothing is checked while it is edited."""
    host.request("/settings/Comfy.Locale", "de")
    studio.open()
    setting(studio, LINT, False)
    yield studio
    studio.page.keyboard.press("Escape")
    setting(studio, LINT, True)
    host.request("/settings/Comfy.Locale", "en")
    studio.open()


def test_what_stops_a_run_is_told_in_the_language_of_the_host(german, names):
    """In the node; then what refuses a prompt: a format that ComfyUI cannot load, and all files that a node misses."""
    nodes, links = pipeline(names, "unrelated")
    german.build(nodes, links)
    stopped = german.run()
    assert stopped["outcome"] == "execution_error"
    assert "[LF301] 0 of " in stopped["detail"]["exception_message"]  # and so in the history and the log
    told = german.wait_for_panel("stack", "error")["text"]
    assert "Modulen von unrelated.safetensors passen zu" in told and "Prüfen, ob" in told
    assert "modules of" not in told and told.count("LF301") == 1
    assert " weitere" in told and " more" not in told  # phrases in the blanks of a sentence

    _, place, _ = nodes["row"]
    rows = {"loras": '["gone.safetensors", "away.safetensors"]'}
    german.build(nodes | {"row": ("FoundryLoRAStack", place, rows)}, links)
    german.set("quantize", "format", "nvfp4")
    german.page.evaluate(COUNTED)
    script = german.page.evaluate(POSTED, german.prompt())
    assert "cannot load nvfp4" in script and "[file] 'gone.safetensors' is not in the folder loras." in script
    german.page.evaluate(REFUSED)
    told = german.wait_for_panel("quantize", "error")["text"]
    assert "Dieses ComfyUI kann nvfp4 nicht laden" in told and "cannot load" not in told
    german.page.wait_for_function("() => foundry.nodes.row.badges.some((badge) => (badge.call ? badge() : badge).text)")
    assert german.badge("row") == "× Fehler file"
    german.page.evaluate(f"async () => (await import('{EXTENSION}/nodes.mjs')).openAt(foundry.nodes.row)")
    told = german.page.locator(".lf-popover:popover-open").inner_text()
    assert "'gone.safetensors' ist nicht im Ordner loras" in told and "'away.safetensors' ist nicht" in told
    assert german.page.evaluate("() => foundry.refusals") == 2  # of the page's own prompt, none of the script's
