"""``bake --calibration``: by name and by file, told in report and recipe, refused by what differs."""

from __future__ import annotations

import json

import pytest
from lora_foundry.cli.demo.formats import made_up_inputs
from lora_foundry.engine.calibration import Origin
from lora_foundry.engine.collect import Collector
from lora_foundry.loaders.bakes.calibrations import calibration_path, save_calibration
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk.source import base_fingerprint
from schemas import faults
from stack_documents import write


@pytest.fixture
def collected(made) -> Collector:
    """What the tiny Wan's Linears could have been given."""
    found = Collector(256)
    for name, tensor in made["base"].items():
        if name.startswith("blocks.") and tensor.ndim == 2:
            found.add(name, made_up_inputs(tensor.shape[1], tokens=800, seed=len(name))[0][None])
    return found


def origin(folder, **more) -> Origin:
    return Origin("base.safetensors", base_fingerprint(open_checkpoint(folder / "base.safetensors")), **more)


def test_outputs_judge_and_the_recipe_says_so(folder, run, collected):
    save_calibration(calibration_path("people"), collected, origin(folder))
    save_calibration(folder / "mine.safetensors", collected, origin(folder))
    document = write(folder, quantize="nvfp4")
    asked = ("bake", document, "--json", "-o", "out.safetensors")
    _, plain, _ = run(*asked)
    code, report, _ = run(*asked, "--calibration", "people")
    assert code == 0 and report["by_outputs"] == report["quantized"] == plain["quantized"] and report["findings"] == []
    assert report["relative_error"] < 0.9 * plain["relative_error"]
    recipe = json.loads(open_checkpoint(folder / "out.safetensors").metadata["lora_foundry"])["recipe"]
    assert len(recipe["finish"]["calibration"]) == 64
    code, again, _ = run(*asked, "--calibration", "mine.safetensors")
    assert code == 0 and again["state"] == "unchanged" and again["layers"] == report["layers"]
    code, out, _ = run("bake", document, "-o", "out.safetensors", "--calibration", "people")
    assert code == 0 and f"outputs of {report['by_outputs']} weights" in out


def test_no_result_takes_the_place_of_the_calibration(folder, run, collected):
    save_calibration(folder / "mine.safetensors", collected, origin(folder))
    before = (folder / "mine.safetensors").read_bytes()
    asked = ("bake", write(folder, quantize="nvfp4"), "-o", "mine.safetensors", "--calibration", "mine.safetensors")
    code, told, _ = run(*asked, "--json")
    assert code and told["error"]["code"] == "usage" and (folder / "mine.safetensors").read_bytes() == before


def test_other_loras_warn_and_another_base_stops(folder, run, collected):
    save_calibration(calibration_path("people"), collected, origin(folder))
    asked = ("-o", "out.safetensors", "--calibration", "people", "--json")
    code, report, _ = run("bake", write(folder, stack=["style"], quantize="nvfp4"), *asked)
    assert code == 0 and [each["text"] for each in report["findings"] if each["code"] == "LF205"] == ["LF205.loras"]
    save_calibration(calibration_path("people"), collected, Origin("other.safetensors", "e" * 64))
    (folder / "out.safetensors").unlink()
    code, report, _ = run("bake", write(folder, quantize="nvfp4"), *asked)
    assert (code, report["error"]["code"]) == (1, "LF205") and not (folder / "out.safetensors").exists()


def test_what_is_missing_or_has_no_use_is_told(folder, run, collected):
    code, report, _ = run("bake", write(folder), "-o", "out.safetensors", "--calibration", "nobody", "--json")
    assert (code, report["error"]["code"]) == (2, "file") and "no calibration 'nobody'" in report["error"]["what"]
    save_calibration(calibration_path("people"), collected, origin(folder))
    asked = ("-o", "out.safetensors", "--calibration", "people", "--json")
    code, report, _ = run("bake", write(folder, stack=["style"], quantize="none"), *asked)
    assert (code, report["error"]["code"]) == (2, "usage")


def test_inspect_knows_a_calibration_from_a_base(folder, run, collected):
    layer = {"stage": "stack", "lora": "style.safetensors", "sha256": "a" * 64, "strength": 0.7}
    save_calibration(folder / "mine.safetensors", collected, origin(folder, layers=(layer,), others=("a LoRA",)))
    code, facts, _ = run("inspect", "mine.safetensors", "--json")
    assert code == 0 and faults(facts, "inspect") == []
    assert (facts["kind"], facts["what"], facts["base"]) == ("calibration", "ranges and rounding", "base.safetensors")
    assert facts["linears"] == len(collected.ranges()) and 0 < facts["tokens"] <= 800
    assert facts["loras"] == ["style.safetensors x 0.7"] and facts["others"] == ["a LoRA"]
    assert list(facts["metadata"]) == ["format"]  # not all its numbers once more
    out = run("inspect", "mine.safetensors")[1]
    assert "calibration" in out and "style.safetensors x 0.7" in out


def test_pre_quant_scale_is_on_request_and_inspect_tells_what_it_forbids(folder, run, collected):
    save_calibration(calibration_path("people"), collected, origin(folder))
    asked = ("bake", write(folder, quantize="nvfp4"), "-o", "out.safetensors", "--json", "--calibration", "people")
    assert run(*asked)[0] == 0
    code, facts, _ = run("inspect", "out.safetensors", "--json")
    assert "pre_quant_scale" not in facts["quantized"] and facts["findings"] == []
    code, report, _ = run(*asked, "--pre-quant-scale")
    assert code == 0 and report["state"] == "made" and report["by_outputs"] == report["quantized"]
    code, facts, _ = run("inspect", "out.safetensors", "--json")
    assert code == 0 and [each["text"] for each in facts["findings"]] == ["LF201.no_lora"]
    assert facts["made_by"]["no_lora_on_top"] == "pre_quant_scale" and "pre_quant_scale" in facts["quantized"]
    code, report, _ = run(*asked[:-2], "--pre-quant-scale")
    assert (code, report["error"]["code"]) == (2, "usage") and "ranges and rounding" in report["error"]["what"]
