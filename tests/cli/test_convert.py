"""``convert``: a file of its own, the old one untouched, and told what moved and what did not."""

from __future__ import annotations

import json

import pytest
from community_graphs import flux_nunchaku, qwen_style_then_lightning, sdxl_three_loras
from drawn_prompts import drawn
from lora_foundry.cli.demo import tiny
from lora_foundry.loaders.disk.small import save_small
from schemas import faults


@pytest.fixture
def workflow(tmp_path, monkeypatch):
    """A workflow with three LoRAs in a file, in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(drawn(sdxl_three_loras().prompt)), encoding="utf-8")
    return path


def test_it_writes_a_file_of_its_own(workflow, run):
    old = workflow.read_bytes()
    code, told, _ = run("convert", workflow, "-o", "out.json")
    assert code == 0 and workflow.read_bytes() == old
    assert "ral-dissolve" in told and told.strip().endswith("Written to out.json.")
    kinds = {node["type"] for node in json.loads(workflow.with_name("out.json").read_text())["nodes"]}
    assert "FoundryApply" in kinds and "LoraLoader" not in kinds
    assert run("check", "out.json")[0] == 0


def test_a_prompt_stays_a_prompt(workflow, run):
    workflow.write_text(json.dumps(sdxl_three_loras().prompt))
    code, told, _ = run("convert", workflow, "-o", "out.json", "--json")
    assert code == 0 and faults(told, "convert") == [] and told["form"] == "prompt"
    assert json.loads(workflow.with_name("out.json").read_text()) == told["made"]


@pytest.mark.parametrize("out", ["workflow.json", "./workflow.json", "link.json"])
def test_it_never_overwrites_what_it_reads(workflow, run, out):
    workflow.with_name("link.json").symlink_to(workflow)
    old = workflow.read_bytes()
    code, _, told = run("convert", workflow, "-o", out)
    assert code == 2 and "never overwritten" in told and workflow.read_bytes() == old


def test_what_cannot_be_converted_writes_nothing(workflow, run):
    workflow.write_text(json.dumps(flux_nunchaku().prompt))
    code, told, _ = run("convert", workflow, "-o", "out.json")
    assert code == 1 and "NunchakuFluxLoraLoader (node 2)" in told and "Nothing was converted" in told
    assert not workflow.with_name("out.json").exists()
    workflow.write_text(json.dumps({"1": {"class_type": "KSampler", "inputs": {}}}))
    code, told, _ = run("convert", workflow, "-o", "out.json")
    assert code == 1 and "No LoRA loader here can be converted" in told


def test_files_tell_what_names_do_not(workflow, run, tmp_path):
    """A LoRA by its contents an accelerator's, and one without parts for text encoders; names without folder."""
    loras = tmp_path / "models" / "loras" / "deep"
    loras.mkdir(parents=True)
    shapes = tiny.shapes("sd15")
    lightning = tiny.lora(shapes, rank=4, prefix="lora_unet_", modules="attn2", seed=1)
    save_small(loras / "sdxl_lightning_8step_lora.safetensors", lightning)
    save_small(loras / "ink.safetensors", tiny.lora(shapes, rank=4, prefix="lora_unet_", modules="attn2", seed=2))
    rows = [{"name": name, "strength": 1.0, "active": True, "clipStrength": 0.5}
            for name in ("sdxl_lightning_8step_lora", "ink")]  # fmt: skip
    prompt = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base.safetensors"}},
        "2": {"class_type": "Lora Loader (LoraManager)",
              "inputs": {"model": ["1", 0], "clip": ["1", 1], "text": "", "loras": rows}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["2", 1], "text": ""}},
        "4": {"class_type": "KSampler", "inputs": {"model": ["2", 0], "positive": ["3", 0], "steps": 8, "cfg": 1.0}},
    }  # fmt: skip
    workflow.write_text(json.dumps(prompt))
    code, told, _ = run("convert", workflow, "-o", "out.json", "--models", tmp_path / "models", "--json")
    (each,) = told["converted"]
    assert code == 0 and each["fused"] == [{"path": "deep/sdxl_lightning_8step_lora.safetensors", "strength": 1.0}]
    assert [row["path"] for row in each["stacked"]] == ["deep/ink.safetensors"]


def test_check_writes_the_workflow_with_its_fixes(workflow, run):
    old = json.dumps(qwen_style_then_lightning().prompt)
    workflow.write_text(old)
    code, _, told = run("check", workflow, "--apply-fixes", "fixed.json")
    assert code == 0 and "1 of 1 fixes made, written to fixed.json." in told and workflow.read_text() == old
    kinds = {node["class_type"] for node in json.loads(workflow.with_name("fixed.json").read_text()).values()}
    assert "FoundryFuseBaseLoRA" in kinds
    assert run("check", workflow, "--apply-fixes", workflow)[0] == 2
    code, _, told = run("check", "fixed.json", "--apply-fixes", "again.json")
    assert "0 of 0 fixes made, nothing is written." in told and not workflow.with_name("again.json").exists()


@pytest.mark.parametrize("verb", [("convert", "workflow.json", "-o"), ("check", "workflow.json", "--apply-fixes")])
def test_a_result_without_a_folder_and_models_that_are_none_are_told(workflow, run, verb):
    code, out, told = run(*verb, "no/out.json")
    assert code == 2 and not out and "out.json cannot be written: its folder does not exist. Make no first." in told
    code, _, told = run(*verb, workflow)
    assert code == 2 and "Name another file for the result." in told
    code, _, told = run(*verb, "out.json", "--models", "nomodels")
    assert code == 2 and "There is no folder nomodels." in told and not workflow.with_name("out.json").exists()
