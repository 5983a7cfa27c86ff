"""What a row of LoRA Stack has beside its line: a second one, solo, a picture, factors by block; and saved stacks."""

from __future__ import annotations

import base64
import json

import pytest
import torch
from browser.rows_parts import box_of, close_up, drawn_height, fitted, focus, open_rows, press, text
from lora_foundry.cli.demo import tiny
from lora_foundry.loaders.names.blocks import parse_blocks

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEklEQVR4nGM4EaChUXGCAUIBACTGBVHUG/NNAAAAAElFTkSuQmCC"
)
TEXT_ENCODER = "lora_te_text_model_encoder_layers_0_mlp_fc1"


@pytest.fixture(scope="session")
def wordy(host):
    """A LoRA with trigger words, text-encoder parts and a picture."""
    tensors = tiny.lora(tiny.shapes("wan"), rank=8, dialect="A/B", prefix="diffusion_model.", seed=71)
    parts = {"lora_down": torch.ones(4, 8), "lora_up": torch.ones(8, 4)}
    more = {f"{TEXT_ENCODER}.{part}.weight": tensor for part, tensor in parts.items()}
    name = host.add_model("loras", "words/ink.safetensors", {**tensors, **more}, {"trigger_words": "ink wash, paper"})
    folder = host.base / "models" / "loras" / "words"
    (folder / "ink.preview.png").write_bytes(PNG)
    host.add_model("loras", "words/odd.safetensors", tensors)
    (folder / "odd.png").write_bytes(b"no picture")
    return name


def test_a_second_line_has_clip_where_the_file_has_it_trigger_words_and_sentences(studio, names, wordy):
    open_rows(studio, names, [{"path": wordy, "strength": 0.5}, {"path": names["style"]}])
    fitted(studio)
    low = studio.page.evaluate("() => foundry.nodes.rows.size[1]")
    focus(studio, 0)
    press(studio, "d", "ArrowDown", "d")
    second = studio.page.locator(".lf-second")
    assert "ink wash, paper" in second.first.inner_text() and "modules fit" in second.first.inner_text()
    assert second.locator(".lf-clip").first.is_visible() and not second.locator(".lf-clip").last.is_visible()
    assert not second.last.locator(".lf-words").is_visible()
    halves = "names => names.map((name) => [name.querySelector('.lf-start'), name.querySelector('.lf-end')])"
    gap = "([start, end]) => { const text = new Range(); text.selectNodeContents(start);" + (
        " return end.textContent ? end.getBoundingClientRect().x - text.getBoundingClientRect().right : 0 }"
    )
    gaps = studio.page.locator(".lf-name").evaluate_all(f"names => ({halves})(names).map({gap})")
    assert max(gaps) < 1, "a name has a hole in it"
    drawn = (
        "() => { const list = document.querySelector('.lf-rows-list'); return [list.scrollHeight, list.clientHeight] }"
    )
    assert studio.page.evaluate(drawn) == [drawn_height(studio)] * 2
    studio.screenshot("rows-second")
    close_up(studio, "rows-second")
    if studio.mode == "canvas":
        assert studio.page.evaluate("() => foundry.nodes.rows.size[1]") == low + drawn_height(studio) - 2 * 28
    field = second.first.locator("input")
    field.click()
    studio.page.keyboard.type("0,25")
    press(studio, "Enter")
    assert json.loads(text(studio))[0] == {"path": wordy, "strength": 0.5, "clip_strength": 0.25}
    studio.context.grant_permissions(["clipboard-read", "clipboard-write"])
    second.first.get_by_role("button", name="Copy").click()
    studio.page.wait_for_function("() => document.querySelector('.lf-live').textContent === 'Copied'")
    assert studio.page.evaluate("() => navigator.clipboard.readText()") == "ink wash, paper"
    focus(studio, 0)
    press(studio, "d")
    assert second.count() == 1
    studio.kept()
    focus(studio, 0)
    press(studio, "Delete")
    studio.kept()
    studio.undo()
    both = "['.lf-row', '.lf-second'].map((each) => document.querySelectorAll(each).length).join() === '2,1'"
    studio.page.wait_for_function(f"() => {both}")  # what is open is no part of the text, and stays open


def test_solo_is_in_the_text_and_one_step_of_undo(rows):
    rows.edited()
    rows.kept()
    before = text(rows)
    focus(rows, 1)
    press(rows, "s")
    assert json.loads(text(rows))[1]["solo"] is True
    assert rows.page.locator(".lf-off").count() == 2 and "1 of 3 on" in rows.page.locator(".lf-rows-head").inner_text()
    assert rows.page.evaluate("() => document.activeElement.getAttribute('aria-label')").split(", ")[1] == "alone"
    rows.kept()
    rows.undo()
    rows.page.wait_for_function("before => foundry.nodes.rows.widgets[0].value === before", arg=before)
    rows.page.wait_for_function("() => !document.querySelector('.lf-off')")


def test_a_picture_and_trigger_words_as_output(studio, names, wordy):
    with studio.page.expect_response(lambda answer: "preview" in answer.url and "odd" in answer.url):
        open_rows(studio, names, [{"path": wordy}, {"path": "words/odd.safetensors"}])
    studio.page.wait_for_function("() => document.querySelector('.lf-preview img')?.naturalWidth === 2")
    focus(studio, 0)
    press(studio, "Space", "Space")  # the rows are filled again
    assert studio.page.locator(".lf-preview:visible").count() == 1
    studio.page.locator(".lf-preview").first.click()
    assert studio.page.locator(".lf-large").is_visible()
    press(studio, "Escape")
    assert [each["name"] for each in studio.saved()["rows"]["outputs"]] == ["LORA_STACK", "trigger_words"]


def test_block_weights_are_bars_presets_and_a_text(rows):
    fitted(rows)
    before = json.loads(text(rows))
    focus(rows, 0)
    press(rows, "d")
    rows.page.locator(".lf-second").get_by_role("button", name="Blocks").click()
    bars = rows.page.locator(".lf-bar")
    bars.first.wait_for()
    names = bars.evaluate_all("bars => bars.map((bar) => bar.getAttribute('aria-label'))")
    assert names[0] == "block.0" and names[-1] == "other"
    bars.first.evaluate("bar => bar.focus()")
    press(rows, "0", "ArrowRight", "ArrowDown", "Shift+ArrowUp")

    def factors() -> list[float]:
        row = json.loads(text(rows))[0]
        assert {**row, "blocks": ""} == {**before[0], "blocks": ""}
        return [parse_blocks(row["blocks"], "wan").of(name) for name in names]

    assert factors() == [0, 0.96, *[1] * (len(names) - 2)]
    rows.page.screenshot(path=rows.artefacts / f"rows-blocks-{rows.mode}.png")
    box = box_of(bars.nth(1))
    rows.page.mouse.move(box["x"] + 4, box["y"] + 1)
    rows.page.mouse.down()
    rows.page.mouse.up()
    assert factors() == [0, 2, *[1] * (len(names) - 2)]
    field = rows.page.locator(".lf-blocks .lf-input")
    assert field.input_value() == json.loads(text(rows))[0]["blocks"]
    field.fill("double=1")
    press(rows, "Enter")
    rows.page.locator(".lf-blocks .lf-said-error").get_by_text("no blocks of this kind").wait_for()
    rows.page.get_by_role("button", name="All 1").click()
    assert json.loads(text(rows)) == before
    press(rows, "Escape")


def test_stacks_are_saved_and_loaded(rows):
    before = text(rows)
    rows.page.get_by_role("button", name="Saved stacks").click()
    rows.page.keyboard.type(f"mine {rows.mode}")
    press(rows, "Enter")
    saved = rows.page.locator(".lf-stacks").get_by_role("button", name=f"mine {rows.mode}", exact=True)
    saved.wait_for()
    assert rows.page.get_by_role("button", name="Replace").is_visible()
    press(rows, "Escape")
    focus(rows, 0)
    press(rows, "Delete", "Delete")
    rows.kept()
    changed = text(rows)
    rows.page.get_by_role("button", name="Saved stacks").click()
    saved.click()
    rows.page.wait_for_function("() => document.querySelectorAll('.lf-row').length === 3")
    row = [each if isinstance(each, dict) else {"path": each, "strength": 1} for each in json.loads(before)]
    assert json.loads(text(rows)) == row
    rows.kept()
    rows.undo()
    rows.page.wait_for_function("changed => foundry.nodes.rows.widgets[0].value === changed", arg=changed)


def test_the_chooser_marks_what_fits_and_dims_other_models(rows, names):
    fitted(rows)
    rows.page.evaluate("() => localStorage.removeItem('LoRAFoundry.recent')")
    rows.page.locator(".lf-add").click()
    rows.page.keyboard.type("unrelated")
    rows.page.locator(".lf-option.lf-dim").get_by_text("other model").wait_for()
    rows.page.locator(".lf-search").fill("wan_style.safetensors")
    rows.page.locator(".lf-option").get_by_text("fits", exact=True).first.wait_for()
    rows.page.screenshot(path=rows.artefacts / f"rows-chooser-{rows.mode}.png")
    press(rows, "Enter")
    rows.page.locator(".lf-chooser").wait_for(state="detached")
    rows.page.locator(".lf-add").click()
    first = rows.page.locator(".lf-option").first
    first.wait_for()
    assert first.get_attribute("title") == names["style"] and "recent" in first.inner_text()
    press(rows, "Escape")


def test_the_worst_of_all_rows_is_in_the_header_and_leads_to_its_row(studio, names):
    open_rows(studio, names, [{"path": names["style"], "strength": 8}, {"path": "gone.safetensors"}])
    studio.quiet()
    worst = studio.page.locator(".lf-worst")
    assert worst.get_attribute("data-severity") == "error" and "gone" in worst.get_attribute("aria-label")
    worst.click()
    assert "gone.safetensors" in studio.page.locator(".lf-second").inner_text()
    assert studio.page.evaluate("() => document.activeElement.getAttribute('aria-label')").startswith("gone, on")
    press(studio, "ArrowUp", "d")
    assert "is at strength 8" in studio.page.locator(".lf-second").first.inner_text()  # a finding of the check


def test_a_pasted_node_has_rows_of_its_own(rows):
    rows.page.evaluate("() => { app.canvas.selectNode(foundry.nodes.rows); app.canvas.copyToClipboard() }")
    rows.page.evaluate("() => { app.canvas.pasteFromClipboard() }")
    rows.page.wait_for_function("() => document.querySelectorAll('.lf-row').length === 6")
    values = """() => app.graph.nodes.filter((node) => node.comfyClass === 'FoundryLoRAStack')
      .map((node) => node.widgets.find(({name}) => name === 'loras').value)"""
    first, second = rows.page.evaluate(values)
    assert first == second
    rows.page.locator(".lf-row .lf-box").nth(3).click()
    changed = rows.page.evaluate(values)
    assert changed[0] == first and json.loads(changed[1])[0]["on"] is False
