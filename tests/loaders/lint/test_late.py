"""A LoRA after our own Quantize: the finding names the format and what ComfyUI's loader leaves of it there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lint_parts import canvas, of_prompt, verdicts
from lora_foundry.engine.choice import CHOICES
from lora_foundry.engine.findings import Finding
from lora_foundry.engine.formats import FORMATS
from lora_foundry.engine.texts.say import TEXTS
from lora_foundry.loaders.lint.late import ON_TOP
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.workflows.reading import graph_of
from quant_vectors import BY_AMAX
from sketches import Sketch


def late(**quantize: object) -> Sketch:
    g = Sketch()
    fused = g("FoundryFuseBaseLoRA", model=g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors"),
              lora_name="none: vanilla base", strength=1.0, rounding="once")  # fmt: skip
    model = g("FoundryQuantizeFP8", model=fused, **quantize)
    g.sample(g.lora(model, "late.safetensors", 0.5), g("CLIPLoader"))
    return g


def found(sketch: Sketch) -> Finding:
    (finding,) = lint(of_prompt(sketch)).findings
    return finding


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_and_its_numbers_are_named(name):
    finding = found(late(format=name, pre_quant_scale=False))
    assert (finding.severity, finding.text, finding.subject) == ("warning", "LF201.after_format", "late.safetensors")
    assert f"3 Quantize to {name} (node 3)" in finding.seen and name in finding.why
    kept, error, first = ON_TOP[name]
    assert all(number in finding.why for number in (f"{kept:.0%}", f"{error:.1%}", f"{first:.1%}"))
    assert first < error and 0.5 < kept < 1.05


def test_four_bits_lose_most():
    coarse = {name for name, each in FORMATS.items() if each.coarse}
    assert coarse == {name for name in ON_TOP if ON_TOP[name].kept < 0.95}


def test_the_page_of_the_formats_has_the_same_numbers():
    page = (Path(__file__).resolve().parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
    found = re.search(r"^(.+)\n\|[-:|]+\n(\| LoRA loader on the file .+)\n(\| fused first .+)$", page, re.M)
    assert found is not None
    heads, late, first = ([cell.strip(" `") for cell in line.split("|")[2:-1]] for line in found.groups())
    names = [{"fp8": "float8_e4m3fn", "e5m2": "float8_e5m2"}.get(head, head) for head in heads]
    told = {name: each.values() for name, each in ON_TOP.items()}
    shown = {name: f"{each['kept']} / {each['late']}" for name, each in told.items()}
    assert dict(zip(names, (cell.replace(" %", "%") for cell in late), strict=True)) == shown
    fused = {name: f"100% / {each['first']}" for name, each in told.items()}
    assert dict(zip(names, (cell.replace(" %", "%") for cell in first), strict=True)) == fused


def test_what_is_said_of_files_of_others_was_measured():
    """The page has the numbers of the host's test, LF201 those of a LoRA of 1 %."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
    found = re.search(r"^(.+)\n\|[-:|]+\n(\| LoRA loader on such a file .+)\n(\| fused first, .+)$", page, re.M)
    assert found is not None
    heads, late, first = ([cell.strip() for cell in line.split("|")[2:-1]] for line in found.groups())
    assert heads == [f"{weights}, LoRA of {percent} %" for weights, percent in BY_AMAX]
    assert late == [f"{100 * kept:.0f} % / {100 * error:.1f} %" for kept, error, _ in BY_AMAX.values()]
    assert first == [f"100 % / {100 * error:.1f} %" for _, _, error in BY_AMAX.values()]
    one = [numbers for (_, percent), numbers in BY_AMAX.items() if percent == 1]
    kept, text = [each[0] for each in one], TEXTS["LF201.nvfp4"].why
    assert f"{min(kept):.0%} to {max(kept):.0%} of a LoRA of 1%" in text
    assert f"({max(each[2] for each in one):.1%} to {max(each[1] for each in one):.1%})" in text


@pytest.mark.parametrize("format", [*CHOICES, "of another version", ["1", 0], None])
def test_what_the_lint_cannot_know_it_does_not_name(format):
    finding = found(late(format=format))
    assert (finding.severity, finding.text) == ("warning", "LF201.after_quantize")


def test_under_a_scale_of_the_inputs_it_is_an_error():
    finding = found(late(format="nvfp4", pre_quant_scale=True))
    assert (finding.severity, finding.text) == ("error", "LF201.after_smoothed") and "two thirds" in finding.why
    assert not lint(of_prompt(late(format="nvfp4", pre_quant_scale=True))).ok
    assert found(late(format="w4a8", pre_quant_scale=True)).text == "LF201.after_format"  # no such scale there


def test_a_saved_workflow_that_names_no_widgets_says_the_same():
    g = late(
        format="nvfp4", matmul="full precision", keep_high_precision="auto", max_error=0.0, memory="auto",
        keep="memory", reproducible=False, calibration="mine", pre_quant_scale=True,
    )  # fmt: skip
    saved = canvas(g.prompt)
    for node in saved["nodes"]:
        node["inputs"] = [slot for slot in node["inputs"] if "widget" not in slot]
    assert ("error", "LF201.after_smoothed") in verdicts(lint(graph_of(saved)))
