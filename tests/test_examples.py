"""The example workflows name their files, where those come from, and who reads the note knows all of them."""

from __future__ import annotations

import json
import re

import pytest
from example_models import MODELS, converted, model_of, with_models
from lora_foundry.loaders.converting.kinds import FORMS
from sources import ROOT

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
NO_ADDRESS = {  # of Civitai, which wants an account; a row for one's own; what the example itself makes
    "add-detail-xl.safetensors", "your_style.safetensors", "my_mix_00001_.safetensors",
}  # fmt: skip
every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def named(workflow: dict) -> set[str]:
    """The model files that widgets and rows name."""
    values = [
        value
        for node in workflow["nodes"]
        if node["type"] != "MarkdownNote"
        for value in node.get("widgets_values", ())
    ]
    return set(re.findall(r"[^\"\s/]+\.safetensors", json.dumps(values).replace('\\"', '"')))


def offered(workflow: dict) -> list[dict]:
    """What the frontend may offer to download."""
    return [*workflow.get("models", []), *(each for node in workflow["nodes"]
                                           for each in node["properties"].get("models", []))]  # fmt: skip


@every_example
def test_every_file_is_offered_where_its_publisher_has_it(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert with_models(json.loads(path.read_text(encoding="utf-8"))) == workflow, "run make_examples.py"
    files = named(workflow)
    assert files and {each["name"] for each in offered(workflow)} == files - NO_ADDRESS
    assert all(each == model_of(each["name"]) for each in offered(workflow))


@every_example
def test_our_nodes_are_saved_with_all_their_outputs(path):
    """An output that came later is in the file too: a frontend that reads it as it is offers the wire."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    for node in (node for node in workflow["nodes"] if node["type"] in FORMS):
        saved = [(each["name"], each["type"]) for each in node["outputs"]]
        assert saved == list(FORMS[node["type"]].outputs), node["type"]


@every_example
def test_the_note_names_every_file(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    (note,) = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    assert note.startswith("## ") and all(name in note for name in files_of_its_own(workflow))


def files_of_its_own(workflow: dict) -> set[str]:
    """Files that are not written as ``..._rest`` after another of the same kind."""
    return {name for name in named(workflow) if name in MODELS and "_low_noise" not in name}


def test_the_converted_example_is_what_convert_makes_of_the_native_one():
    before, after = (
        json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("7_qwen_image_native", "8_qwen_image_converted")
    )
    (note,) = [node["widgets_values"][0] for node in after["nodes"] if node["type"] == "MarkdownNote"]
    assert converted(before, note) == after, "run make_examples.py"
    kinds = {node["type"] for node in after["nodes"]} - {node["type"] for node in before["nodes"]}
    assert {"FoundryFuseBaseLoRA", "FoundryLoRAStack", "FoundryQuantizeFP8"} < kinds


def test_addresses_are_https_and_hashes_are_hashes():
    for name in MODELS:
        model = model_of(name)
        assert re.fullmatch(r"https://huggingface\.co/[\w.-]+/[\w.-]+/resolve/main/[\w./-]+", model["url"])
        assert model["url"].endswith(f"/{name}") and re.fullmatch("[0-9a-f]{64}", model.get("hash", "0" * 64))
        assert model["directory"] in ("checkpoints", "diffusion_models", "loras", "text_encoders", "vae")
