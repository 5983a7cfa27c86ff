"""What tests of the rows editor share: a graph with one, its text, and its keyboard."""

from __future__ import annotations

import json

from browser.graphs import Links, Nodes
from browser.studio import Studio

ROW = ".lf-row"


def open_rows(studio: Studio, names: dict[str, str], value: object) -> Studio:
    """A graph with one LoRA Stack, in view."""
    nodes: Nodes = {
        "load": ("FoundryLoadBase", (0, 0), {"base_name": names["wan"]}),
        "rows": ("FoundryLoRAStack", (0, 250), {"loras": value if isinstance(value, str) else json.dumps(value)}),
        "stack": ("FoundryStackLoRAs", (500, 0), {}),
        "apply": ("FoundryApply", (900, 0), {}),
        "show": ("PreviewAny", (1300, 0), {}),
    }
    links: Links = [
        ("load", 0, "stack", "model"),
        ("rows", 0, "stack", "lora_stack"),
        ("stack", 0, "apply", "model"),
        ("apply", 1, "show", "source"),
    ]
    studio.build(nodes, links)
    studio.screenshot("rows")
    return studio


def text(studio) -> str:
    """The node's value."""
    return studio.page.evaluate("() => foundry.nodes.rows.widgets.find(({name}) => name === 'loras').value")


def paths(studio) -> list[str]:
    """The LoRAs of the value, in order."""
    return [row if isinstance(row, str) else row["path"] for row in json.loads(text(studio))]


def press(studio, *keys: str) -> None:
    """Keys, one after the other."""
    for key in keys:
        studio.page.keyboard.press(key)


def focus(studio, at: int) -> None:
    """The keyboard on a row."""
    studio.page.locator(ROW).nth(at).evaluate("row => row.focus()")


def fitted(studio) -> None:
    """Wait until the base is known, and how the rows fit it."""
    studio.edited()
    studio.page.locator(f"{ROW} .lf-chip-clear").first.wait_for()


def drawn_height(studio) -> int:
    """What the rows come to by what is drawn, in px of the page before any zoom."""
    script = "() => [...document.querySelectorAll('.lf-row')].reduce((all, row) => all + row.offsetHeight, 0)"
    return studio.page.evaluate(script)


def box_of(locator) -> dict[str, float]:
    """Where an element is on the page, once it is there and stays in its place."""
    locator.element_handle().wait_for_element_state("stable")
    return locator.bounding_box()


def close_up(studio, name: str) -> None:
    """A picture of the editor alone."""
    box = box_of(studio.page.locator(".lf-rows"))
    studio.page.screenshot(path=studio.artefacts / f"{name}-close-{studio.mode}.png", clip=box)
