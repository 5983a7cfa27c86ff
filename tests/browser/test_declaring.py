"""What a LoRA was trained with is said by one click, and taken back by another. In both renderers."""

from __future__ import annotations

import pytest
from browser.graphs import without_fusion
from browser.studio import setting

ASK = "trained with?"


@pytest.fixture
def asking(studio, unknown):
    """A stack without a fusion, of a LoRA nobody knows anything of."""
    studio.build(*without_fusion(unknown, "new"))
    studio.check()
    studio.screenshot("asking")  # brings every node into view
    return studio


def lineage(host, lora: str) -> dict:
    """What the server has written down."""
    return host.request("/lora_foundry/lineage", {"lora": lora, "hash": True})[1]


def row(studio, name: str):
    """The row about a LoRA in a node's panel, as a user finds it; a later answer may put another in its place."""
    studio.page.wait_for_function("name => foundry.panel(name).checkVisibility()", arg=name)
    studio.open_panel(name)
    return studio.page.locator(".lf-popover:popover-open li.lf-ask").first


def press(studio, label: str) -> None:
    """Click a button in the validator's panel."""
    row(studio, "check").locator("button", has_text=label).first.click()


def test_an_unknown_lora_is_a_quiet_question(asking, unknown):
    panel = asking.panel("check")
    assert f"{unknown['new']}: {ASK}" in panel["text"] and panel["severity"] == "none"
    assert asking.badge("row") == "" and asking.badge("check") == ""
    assert ASK not in asking.panel("stack")["text"]  # asked once: the validator below does


def test_a_lora_of_another_model_is_not_asked_about(studio, unknown):
    """It cannot fit, whatever it was trained with; in the rows its badge says so."""
    studio.build(*without_fusion(unknown, "unrelated"))
    studio.check()
    studio.page.wait_for_function("() => foundry.panel('check').hidden")
    studio.set("row", "lora_name", unknown["new"])
    studio.check()
    text = studio.wait_for_panel("check", "none")["text"]
    assert f"{unknown['new']}: {ASK}" in text and unknown["unrelated"] not in text


def test_a_click_declares_and_undo_takes_it_back(asking, host, unknown):
    asking.connect("fuse", 0, "stack", "model")
    asking.connect("load", 0, "fuse", "model")
    asking.check()
    press(asking, f"{unknown['lightning']} (fused here)")
    asking.page.wait_for_selector(".lf-popover button:has-text('Undo')")
    known = lineage(host, unknown["new"])
    assert known["claims"][known["declared"]]["trained_with"][0]["name"] == unknown["lightning"]
    asking.screenshot("declared")
    asking.connect("load", 0, "stack", "model")
    asking.check()
    assert "LF102" in asking.wait_for_panel("check", "warning")["text"]
    asking.screenshot("declared-missing")
    press(asking, "Undo")
    asking.wait_for_panel("check", "none")
    assert ASK in asking.panel("check")["text"] and lineage(host, unknown["new"])["declared"] is None


def test_the_keyboard_does_it_too(asking, host, unknown):
    """Enter on a button; the focus stays in the row that takes its place."""
    row(asking, "check").locator("button").first.focus()
    asking.page.keyboard.press("Enter")
    asking.page.wait_for_function("() => document.activeElement.textContent === 'Undo'")
    known = lineage(host, unknown["new"])
    assert known["claims"][known["declared"]]["trained_with"] == []
    label = asking.page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert unknown["new"] in label and "Undo" in label
    asking.page.keyboard.press("Enter")
    asking.page.wait_for_selector(f".lf-popover li:has-text('{ASK}')")


def say_strength(asking, strength: str, name: str = ""):
    """Fill the dialog that follows the choice of a base LoRA."""
    dialog = asking.page.locator("dialog.lf-dialog")
    if name:
        dialog.get_by_label("Base LoRA").fill(name)
    dialog.get_by_label("Strength").fill(strength)
    asking.page.screenshot(path=asking.artefacts / f"other-{asking.mode}.png")
    dialog.get_by_role("button", name="OK").click()


def declared_base(host, lora: str) -> tuple[str, float, bool]:
    """(name, strength, whether its file is known) of the base LoRA that was declared."""
    known = lineage(host, lora)
    (base,) = known["claims"][known["declared"]]["trained_with"]
    return base["name"], base["strength"], bool(base["ids"])


def test_another_lora_is_chosen_as_the_rows_choose_theirs(asking, host, unknown):
    press(asking, "Other...")
    search = asking.page.get_by_role("combobox", name="Search LoRAs")
    asking.page.wait_for_selector(".lf-option")
    search.fill(unknown["new"])  # no LoRA is its own base
    assert unknown["new"] not in asking.page.locator(".lf-option").evaluate_all("all => all.map(({title}) => title)")
    search.fill("wan_style")
    asking.page.wait_for_selector(f".lf-option[title='{unknown['style']}']")
    asking.page.screenshot(path=asking.artefacts / f"other-chooser-{asking.mode}.png")
    box = asking.page.evaluate("() => document.querySelector('.lf-chooser').getBoundingClientRect().toJSON()")
    assert box["width"] > 300 and box["top"] > 8  # beside the question, not in the corner
    search.press("Enter")
    say_strength(asking, "0.5")
    text = asking.wait_for_panel("check", "warning")["text"]
    assert "LF102" in text and unknown["style"] in text
    assert declared_base(host, unknown["new"]) == (unknown["style"], 0.5, True)
    press(asking, "Undo")
    asking.wait_for_panel("check", "none")


def test_a_file_that_is_not_here_is_named(asking, host, unknown):
    """What was typed in the search is its name already; it is the same declaration."""
    press(asking, "Other...")
    asking.page.get_by_role("combobox", name="Search LoRAs").fill("their_turbo.safetensors")
    asking.page.get_by_role("button", name="A file I don't have...").click()
    assert asking.page.locator("dialog.lf-dialog").get_by_label("Base LoRA").input_value() == "their_turbo.safetensors"
    say_strength(asking, "0.8", "their_turbo_v2.safetensors")
    text = asking.wait_for_panel("check", "warning")["text"]
    assert "LF102" in text and "you said it was trained with their_turbo_v2.safetensors" in text
    assert declared_base(host, unknown["new"]) == ("their_turbo_v2.safetensors", 0.8, False)
    press(asking, "Undo")
    asking.wait_for_panel("check", "none")


def test_cancel_says_nothing(asking, host, unknown):
    chooser, dialog = asking.page.locator(".lf-chooser"), asking.page.locator("dialog.lf-dialog")
    press(asking, "Other...")
    chooser.wait_for()
    asking.page.keyboard.press("Escape")
    chooser.wait_for(state="detached")
    press(asking, "Other...")
    chooser.get_by_role("button", name="A file I don't have...").click()
    dialog.get_by_role("button", name="Cancel").click()
    dialog.wait_for(state="detached")
    press(asking, "Other...")
    chooser.get_by_role("button", name="A file I don't have...").click()
    dialog.get_by_role("button", name="OK").click()  # no name is given
    dialog.wait_for(state="detached")
    asking.quiet()
    assert ASK in asking.panel("check")["text"] and lineage(host, unknown["new"])["declared"] is None


def test_a_refusal_of_the_server_is_told(asking):
    error = '{"error": {"code": "lineage", "what": "The record cannot be written.", "why": "", "fix": ""}}'
    asking.page.route("**/lora_foundry/lineage", lambda route: route.fulfill(status=400, body=error))
    try:
        press(asking, "Vanilla base")
        asking.page.get_by_text("The record cannot be written.").first.wait_for()
        assert ASK in asking.panel("check")["text"]
    finally:
        asking.page.unroute("**/lora_foundry/lineage")


def test_after_a_run_the_report_asks(asking, host, unknown):
    """Without the check too: the report of the run knows its LoRAs."""
    asking.page.evaluate("() => app.extensionManager.setting.set('LoRAFoundry.Lint', false)")
    try:
        host.free()
        asking.load_again()
        asking.run()
        asking.wait_for_panel("check", "clear")
        assert ASK in asking.panel("check")["text"]
        asking.screenshot("asking-after-a-run")
    finally:
        asking.page.evaluate("() => app.extensionManager.setting.set('LoRAFoundry.Lint', true)")


def test_a_warning_that_is_meant_so_is_settled_by_a_click(asking, host, unknown):
    """Trained with Lightning, used without: 'I use it so on purpose' is the user's word on its use."""
    host.request("/lora_foundry/lineage", {"lora": unknown["new"], "trained_with": [unknown["lightning"]]})
    asking.set("row", "strength_model", 0.6)
    asking.check()
    assert "LF102" in asking.wait_for_panel("check", "warning")["text"]
    asking.follow("check", "row").get_by_role("button", name="I use it so on purpose").click()
    asking.wait_for_panel("check", "none")
    known = lineage(host, unknown["new"])
    assert known["claims"][known["declared"]]["use_with"] == []
    text = asking.panel("check")["text"]
    assert "LF102" not in text and "you use it on purpose with Vanilla base" in text


def test_who_wants_no_questions_gets_none(asking):
    """By the button, which is the setting; the setting brings them back."""
    press(asking, "Don't ask")
    asking.page.wait_for_function("() => foundry.panel('check').hidden")
    setting(asking, "LoRAFoundry.Ask", True)
    assert ASK in asking.panel("check")["text"]
