"""What was measured, as an SVG: well-formed, with every number in it, and nothing a browser would run or fetch."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from lora_foundry.cli.picture import svg
from lora_foundry.loaders.plans.pictures import MOST_LORAS

SPACE = "{http://www.w3.org/2000/svg}"
NAN = float("nan")


def words(text: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(text).iter(f"{SPACE}text")]


def bars(text: str, kind: str) -> list[float]:
    return [float(each.get("width")) for each in ElementTree.fromstring(text).iter() if each.get("class") == kind]


def test_a_bake_draws_what_it_kept_and_how_far_off_its_layers_are(folder, run):
    assert run("bake", "stack.json", "-o", "out.safetensors", "--max-error", "2.5%", "--pictures", ".")[0] == 0
    drawn = (folder / "out.svg").read_text(encoding="utf-8")
    told = words(drawn)
    heads = ["Effect kept", "Size"]
    assert told[0] == "out" and [each for each in told if each in heads] == heads
    assert {"lightning", "style", "before", "after"} <= set(told)
    assert any(each.startswith("Errors of ") for each in told) and any("limit 2.50%" in each for each in told)


def test_a_check_draws_how_the_loras_fit(folder, run):
    assert run("check", "stack.json", "--pictures", ".")[0] == 0
    told = words((folder / "stack.svg").read_text(encoding="utf-8"))
    assert "Modules that found their weight" in told and "Size" not in told


def test_a_folder_that_is_not_there_is_told_before_anything_is_baked(folder, run):
    code, _, err = run("bake", "stack.json", "-o", "out.safetensors", "--pictures", "nowhere")
    assert code == 2 and "nowhere" in err and not (folder / "out.safetensors").exists()


@pytest.mark.parametrize("words", [
    ("stack.json", "stack.json"), (".",), ("stack.json", "--format", "junit"), ("workflow.json",),
])  # fmt: skip
def test_what_a_check_cannot_draw_is_told_and_not_left_out(folder, run, words):
    (folder / "workflow.json").write_text(json.dumps({"1": {"class_type": "UNETLoader", "inputs": {}}}))
    code, out, err = run("check", *words, "--pictures", ".")
    assert code == 2 and "one stack document" in err and not out and not list(folder.glob("*.svg"))


def test_a_check_asks_for_the_folder_of_its_picture_before_it_reads_anything(folder, run):
    code, _, err = run("check", "gone.json", "--pictures", "nowhere")
    assert code == 2 and "nowhere" in err


def lora(path: str, gain: float | None, **more: object) -> dict[str, object]:
    return {"path": path, "gain": gain, "matched": 3, "modules": 4, **more}


def test_bars_are_as_long_as_their_numbers_and_warn_below_ninety_percent():
    drawn = svg(
        {"loras": [lora("a/good.safetensors", 0.95), lora("bad", 0.5)], "size": {"before": 400, "after": 100}}, "x"
    )
    (good,), (bad,), (before, after) = (bars(drawn, kind) for kind in ("good", "bad", "plain"))
    assert abs(good / bad - 0.95 / 0.5) < 0.01 and abs(after / before - 0.25) < 0.01
    assert words(drawn)[:3] == ["x", "Effect kept", "good"]


def test_the_strongest_block_of_a_lora_is_the_darkest():
    drawn = svg({"loras": [lora("a", None, energy={"block.0": 0.2, "block.1": 0.8})]}, "x")
    cells = [each for each in ElementTree.fromstring(drawn).iter() if each.get("fill-opacity")]
    assert [each.get("fill-opacity") for each in cells] == ["0.31", "1.00"]
    assert [each.findtext(f"{SPACE}title") for each in cells] == ["block.0: 20.0%", "block.1: 80.0%"]
    assert "Where it is strong, by block" in words(drawn)


def test_names_are_text_and_what_was_not_measured_is_left_out():
    drawn = svg({"loras": [lora('<script>"&', None)]}, "</svg>")
    assert words(drawn) == ["</svg>", "Modules that found their weight", '<script>"&', "3/4"]
    assert words(svg({"loras": []}, "nothing")) == ["nothing"]


def test_a_lora_of_zeros_has_no_strip_and_nothing_is_divided_by_it():
    none, some = {"block.0": 0.0, "block.1": 0.0}, {"block.0": 0.5, "block.1": 0.5}
    drawn = svg({"loras": [lora("zeros", None, energy=none), lora("ink", None, energy=some)]}, "x")
    assert words(drawn)[-2:] == ["Where it is strong, by block", "ink"]
    assert "Where it is strong, by block" not in words(svg({"loras": [lora("zeros", None, energy=none)]}, "x"))


def test_numbers_that_are_none_are_left_out():
    layers = {name: {"relative_error": error} for name, error in {"a": NAN, "b": 0.1, "c": 0.2, "d": None}.items()}
    told = {"loras": [lora("a", NAN, energy={"x": NAN, "y": 0.5})], "layers": layers, "relative_error": NAN}
    assert "nan" not in svg(told, "x") and "Errors of 2 layers" in words(svg(told, "x"))


@pytest.mark.parametrize("name", ["a\x1b[2J\0\ufffe", "a\udce9", "</text><script>alert(1)</script>", "&#0;"])
def test_a_name_that_xml_cannot_hold_is_written_out(name):
    drawn = svg({"loras": [lora(name, 0.5, energy={name: 0.2, "b": 0.1})]}, name)
    kinds = {each.tag for each in ElementTree.fromstring(drawn.encode("utf-8")).iter()}
    assert kinds <= {f"{SPACE}{each}" for each in ("svg", "title", "style", "rect", "g", "text")}


def test_of_many_loras_the_first_are_drawn_and_all_are_counted():
    loras = [lora(f"{number}.safetensors", 0.95, energy={"a": 0.5, "b": 0.5}) for number in range(300)]
    drawn = svg({"loras": loras}, "stack")
    assert len(bars(drawn, "good")) == MOST_LORAS and words(drawn)[0] == f"stack: {MOST_LORAS} of 300 LoRAs"
