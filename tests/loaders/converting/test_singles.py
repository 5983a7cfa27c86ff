"""Power Lora Loader V2, whose versions agree about its first model alone: taken apart where there is no second."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from drawn_prompts import drawn
from lora_foundry.loaders.converting.convert import convert
from sketches import Sketch

ROW = {"on": True, "lora": "ink.safetensors", "strength": 0.7, "strengthTwo": None}
OLDER = {**ROW, "is_low": True, "low_variant_name": "ink_low.safetensors", "low_strength": 0.6}
NEWER = {**OLDER, "low_active": True, "use_for_both": False, "low_only": False, "high_only": True}
forms = pytest.mark.parametrize("form", [copy.deepcopy, drawn], ids=["prompt", "canvas"])


def loaded(*rows: dict[str, object], **wired: object) -> tuple[Sketch, object]:
    """The loader with these rows on a base, and a sampler on its first output."""
    g = Sketch()
    named = {f"lora_{number}": row for number, row in enumerate(rows, 1)}
    inputs = {name: build(g) for name, build in wired.items()}
    node = g("PowerLoraLoaderV2", model=g.unet("qwen_image_bf16.safetensors"), **inputs, **named)
    g.sample(node, g("CLIPLoader"), 20, 4.0)
    return g, node


@forms
def test_with_one_model_every_row_is_a_row_of_the_stack(form):
    off, strong = (
        {**ROW, "lora": "film.safetensors", "on": False},
        {**NEWER, "lora": "line.safetensors", "strength": 1.5},
    )
    g, _ = loaded(OLDER, off, strong)
    result = convert(form(g.prompt))
    assert not result.left
    (each,) = result.converted
    assert [(row["path"], row["strength"], row["on"]) for row in each["stacked"]] == [
        ("ink.safetensors", 0.7, True), ("film.safetensors", 0.7, False), ("line.safetensors", 1.5, True),
    ]  # fmt: skip
    kinds = [node.get("class_type", node.get("type")) for node in nodes_of(result.made)]
    assert "PowerLoraLoaderV2" not in kinds and kinds.count("FoundryLoRAStack") == 1


def test_bypassed_it_hands_its_model_on():
    g = Sketch()
    node = g("PowerLoraLoaderV2", model=g.lora(g.unet("a.safetensors"), "ink.safetensors", 0.5), lora_1=ROW)
    g.sample(node, g("CLIPLoader"), 20, 4.0)
    given = drawn(g.prompt)
    (drawing,) = [each for each in given["nodes"] if each["type"] == "PowerLoraLoaderV2"]
    drawing["mode"] = 4
    (each,) = convert(given).converted
    assert [row["path"] for row in each["stacked"]] == ["ink.safetensors"]


def second(g: Sketch) -> object:
    return g.unet("low.safetensors")


def text(g: Sketch) -> object:
    return g("CLIPLoader")


def below_the_second(g: Sketch, node: Callable[[int], object]) -> None:
    g.sample(node(1), g("CLIPLoader"), 20, 4.0)


LEFT = {
    "a second model": loaded(OLDER, model_low=second)[0],
    "a CLIP": loaded(OLDER, clip=text)[0],
    "a row for the second alone": loaded(OLDER, {**NEWER, "low_only": True})[0],
}


@pytest.mark.parametrize("name", [*LEFT, "its second output"])
@forms
def test_what_versions_disagree_about_stays_with_the_reason(form, name):
    if name in LEFT:
        g = LEFT[name]
    else:
        g, node = loaded(OLDER)
        below_the_second(g, node)
    given = form(g.prompt)
    result = convert(given)
    assert not result.converted and result.made == given
    assert [finding.text for finding in result.left] == ["convert.kind"]
    assert "Power" in result.left[0].seen and "ink.safetensors" in result.left[0].seen


def nodes_of(made: dict) -> list[dict]:
    return made["nodes"] if "nodes" in made else list(made.values())
