"""``check`` of several files and of a folder: each by itself, summed up, and as reports that CI reads."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
from schemas import faults
from stack_documents import write


@pytest.fixture
def stacks(folder) -> Path:
    """The models of ``folder`` and a folder ``stacks`` with documents, a workflow, and what is neither."""
    place = folder / "stacks"
    (place / "deep").mkdir(parents=True)
    for name in ("base", "style", "lightning", "partial"):
        (place / f"{name}.safetensors").symlink_to(folder / f"{name}.safetensors")
        (place / "deep" / f"{name}.safetensors").symlink_to(folder / f"{name}.safetensors")
    write(place, stack=["style"], name="good.json")
    write(place, stack=["nowhere"], name="lost.json")
    write(place / "deep", stack=["partial"], name="warned.yaml")
    (place / "broken.yaml").write_text("base: [")
    lora = {"model": ["1", 0], "lora_name": "style.safetensors", "strength_model": 9.0}
    nodes = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "base.safetensors", "weight_dtype": "default"}},
        "2": {"class_type": "LoraLoaderModelOnly", "inputs": lora},
        "3": {"class_type": "KSampler", "inputs": {"model": ["2", 0], "steps": 20, "cfg": 4.0, "denoise": 1.0}},
    }
    (place / "workflow.json").write_text(json.dumps(nodes))
    for name in ("package.json", ".hidden.json", "adapter_config.json", "notes.yaml", "list.json"):
        (place / name).write_text('["base"]' if name == "list.json" else '{"name": "x"}')
    (place / "picture.png").write_bytes(b"no picture")
    return place


NAMES = ["broken.yaml", "deep/warned.yaml", "good.json", "lost.json", "workflow.json"]


def test_a_folder_is_every_document_and_workflow_below_it(stacks, run):
    code, told, _ = run("check", "stacks", "--json")
    assert code == 1 and not told["ok"] and faults(told, "findings", "checks") == []
    files = {Path(each["file"]).relative_to("stacks").as_posix(): each for each in told["files"]}
    assert sorted(files) == NAMES
    assert {name: each["ok"] for name, each in files.items() if not each["ok"]} == {
        "broken.yaml": False,
        "lost.json": False,
    }
    assert files["broken.yaml"]["error"]["code"] == "document" and "nowhere" in files["lost.json"]["error"]["what"]
    assert any(each["code"] == "LF302" for each in files["deep/warned.yaml"]["findings"])
    code, out, _ = run("check", "stacks")
    assert code == 1 and "OK      stacks/good.json" in out and "STOPPED stacks/broken.yaml" in out
    assert out.strip().splitlines()[-1].startswith("5 files: 3 OK, 2 stopped; 1 error")


def test_one_file_is_no_files(stacks, run):
    (stacks / "one").mkdir()
    for name in ("base", "style", "lightning"):
        (stacks / "one" / f"{name}.safetensors").symlink_to(stacks / f"{name}.safetensors")
    write(stacks / "one", stack=["nowhere"], name="lost.json")
    assert run("check", "stacks/one")[1].strip().splitlines()[-1].startswith("1 file: 0 OK, 1 stopped")


def test_each_is_judged_as_alone(stacks, run):
    several = run("check", "stacks/good.json", "stacks/deep/warned.yaml", "stacks/workflow.json", "--strict", "--json")[
        1
    ]
    for each in several["files"]:
        alone = run("check", each["file"], "--strict", "--json")[1]
        assert (alone["ok"], alone["findings"]) == (each["ok"], each["findings"]) and each["error"] is None


def test_sarif_is_what_code_scanning_reads(stacks, run):
    code, out, _ = run("check", "stacks", "--format", "sarif")
    told = json.loads(out)
    (only,) = told["runs"]
    assert code == 1 and told["version"] == "2.1.0" and only["tool"]["driver"]["name"] == "LoRA Foundry"
    rules = [rule["id"] for rule in only["tool"]["driver"]["rules"]]
    assert rules == sorted({result["ruleId"] for result in only["results"]})
    by_file = {
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]: result for result in only["results"]
    }
    assert by_file["stacks/broken.yaml"]["level"] == "error" and by_file["stacks/broken.yaml"]["ruleId"] == "document"
    assert by_file["stacks/deep/warned.yaml"]["level"] in ("note", "warning")
    assert all(result["message"]["text"] for result in only["results"])


def test_junit_is_a_case_for_each_file_whatever_it_is_called(stacks, run):
    (stacks / "good.json").rename(stacks / 'g\x1b"<&.json')
    code, out, _ = run("check", "stacks", "--format", "junit")
    suites = xml.fromstring(out)
    (suite,) = suites
    assert code == 1 and suite.get("tests") == str(len(NAMES)) == suites.get("tests")
    assert (suite.get("failures"), suite.get("errors")) == ("0", "2")
    cases = {case.get("name"): case for case in suite}
    assert 'stacks/g\ufffd"<&.json' in cases and cases["stacks/lost.json"].find("error") is not None
    assert "nowhere" in cases["stacks/lost.json"].find("error").text
    strict = xml.fromstring(run("check", "stacks", "--format", "junit", "--strict")[1])
    assert int(strict.get("failures")) >= 1


def test_one_file_and_the_options_have_reports_too(stacks, run):
    code, out, _ = run("check", "stacks/good.json", "--format", "junit")
    assert code == 0 and xml.fromstring(out).get("errors") == "0"
    code, out, _ = run("check", "--base", "base.safetensors", "--lora", "gone.safetensors", "--format", "sarif")
    assert code == 1 and json.loads(out)["runs"][0]["results"][0]["ruleId"] == "file"


def test_what_cannot_be_summed_up_is_refused(stacks, run):
    code, told, _ = run("check", "stacks", "--json", "--format", "sarif")
    assert (code, told["error"]["code"]) == (2, "usage")
    code, told, _ = run("check", "stacks", "--json", "--apply-fixes", "out.json")
    assert (code, told["error"]["code"]) == (2, "usage") and not Path("out.json").exists()
    (stacks / "empty").mkdir()
    code, told, _ = run("check", "stacks/empty", "--json")
    assert (code, told["error"]["code"]) == (2, "usage") and "empty" in told["error"]["what"]
