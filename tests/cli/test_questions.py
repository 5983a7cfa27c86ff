"""The pages on wrong pictures: the codes they name for a cause are what their command says of such a case."""

from __future__ import annotations

import json
import re

import pytest
from lora_foundry.loaders.disk.small import save_small
from sketches import HIGH, LIGHTNING_4, LIGHTNING_8, Sketch
from sources import ROOT

QWEN = "qwen_image_bf16.safetensors"
EDIT_2509 = "Qwen-Image-Edit-2509-Lightning-8steps-V1.0-bf16.safetensors"


def graph(*loras: str, base: str = QWEN, dtype: str = "default", steps: int = 8, cfg: float = 1.0) -> dict:
    g = Sketch()
    model = g.unet(base, dtype)
    for name in loras:
        model = g.lora(model, name)
    g.sample(model, g("CLIPLoader"), steps, cfg)
    return g.prompt


WORKFLOWS = {
    ("noise-with-lightning", "LF403"): [graph(LIGHTNING_8, steps=3), graph(LIGHTNING_8, steps=40),
                                        graph(LIGHTNING_8, cfg=7.0), graph(LIGHTNING_8, LIGHTNING_4)],
    ("noise-with-lightning", "LF104"): [
        graph(EDIT_2509, base="qwen_image_edit_2511_bf16.safetensors"),
        graph(HIGH, base="wan2.2_i2v_low_noise_14B_fp16.safetensors", steps=4)],
    ("noise-with-lightning", "LF201"): [graph(LIGHTNING_8, dtype="fp8_e4m3fn")],
    ("no-effect-on-fp8", "LF201"): [graph("style.safetensors", dtype="fp8_e4m3fn", steps=20, cfg=4.0),
                                    graph("style.safetensors", base="qwen_image_fp8_e4m3fn.safetensors", steps=20)],
    ("grid", "LF104"): [graph("Qwen-Image-Lightning-4steps-V1.0.safetensors", base="qwen_image_2512_bf16.safetensors",
                              steps=4)],
    ("grid", "LF403"): [graph(LIGHTNING_8, steps=3)],
    ("grid", "LF201"): [graph(LIGHTNING_8, dtype="fp8_e4m3fn")],
}  # fmt: skip


def codes(page: str) -> set[str]:
    """The codes in the tables of a page."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return set(re.findall(r"LF\d{3}", " ".join(line for line in text.splitlines() if line.startswith("|"))))


@pytest.mark.parametrize(("page", "code"), WORKFLOWS, ids="-".join)
def test_the_check_of_such_a_workflow_says_so(page, code, folder, run):
    for prompt in WORKFLOWS[page, code]:
        (folder / "workflow.json").write_text(json.dumps(prompt), encoding="utf-8")
        _, out, _ = run("check", "workflow.json")
        assert code in out, out
    assert code in codes(page) or page == "no-effect-on-fp8"


def test_inspect_tells_the_scale_of_a_lightning(folder, run):
    """alpha 2 at rank 16 there is 8 at 64: an eighth."""
    out = run("inspect", "lightning.safetensors")[1]
    assert "0.125" in out and "alpha" in out and "rank" in out


def test_numbers_that_are_none_are_named(folder, run):
    _, out, err = run("check", "--base", "base.safetensors", "--lora", "broken.safetensors")
    assert "LF304" in out + err and "lora_A" in out + err and "LF304" in codes("black-image")


def test_a_scale_beyond_all_use_is_told(folder, run, made):
    """Alpha 128 at rank 16, as where alpha is taken for a strength."""
    strong = {name: tensor * 64 if name.endswith("alpha") else tensor for name, tensor in made["lightning"].items()}
    save_small(folder / "strong.safetensors", strong)
    out = run("check", "--base", "base.safetensors", "--lora", "strong.safetensors")[1]
    assert "LF305" in out and {"LF305"} <= codes("black-image") & codes("grid")


def test_loras_that_do_the_same_are_told(folder, run, made):
    twin = {name: tensor * 1.1 for name, tensor in made["style"].items()}
    save_small(folder / "twin.safetensors", twin)
    two = ("--lora", "style.safetensors", "--lora", "twin.safetensors")
    out = run("check", "--base", "base.safetensors", *two)[1]
    assert "LF402" in out and "LF402" in codes("grid")
