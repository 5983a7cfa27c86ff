"""What strangers write is data: no script is run, no object is made, and nobody on the network is asked."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from lora_foundry.cli.main import main
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.documents.document import load_document
from lora_foundry.loaders.evidence.reading import read_evidence
from lora_foundry.loaders.lineage.provenance import lineage_of
from planner_parts import pair
from safetensors.torch import save_file

pytestmark = pytest.mark.timeout(60)  # a guard against hanging, no measurement
MADE = "made_by_a_stranger"
PROGRAMS = {
    "train.sh": f"touch {MADE}\nLORA=$(touch {MADE})\naccelerate launch train.py --lora_fused `touch {MADE}` $LORA\n",
    "config.yaml": f"model: !!python/object/apply:os.system ['touch {MADE}']\n",
    "config.toml": f"base_weights = ['$(touch {MADE})']\n",
    "README.md": f"---\nbase_model: !!python/object/new:os.system [touch {MADE}]\n---\n`touch {MADE}`\n",
    "train.log": f"merging module: $(touch {MADE}) with multiplier 1.0\n",
    "train.py": f"import os\nos.system('touch {MADE}')\n",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_among_what_lies_beside_a_lora(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_text(PROGRAMS[name])
    lora = tmp_path / "style.safetensors"
    save_file(pair(), lora)
    for read in (read_evidence, load_document):
        try:
            read(path)
        except FoundryError as error:
            assert str(error)  # noqa: PT017 (some are no evidence, or no document)
    lineage_of(lora)
    assert {each.name for each in tmp_path.iterdir()} == {name, lora.name}


def test_nobody_is_asked_for_files_that_are_here(tmp_path, monkeypatch, capsys):
    """Verbs that read files, with a network that tells of any attempt."""

    def asked(*given: object, **more: object) -> None:
        raise AssertionError(f"the network was asked: {given}")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, asked)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, asked)
    for verb in verbs(tmp_path):
        assert main([*verb, "--json"]) == 0, (verb, capsys.readouterr())
        json.loads(capsys.readouterr().out)


def verbs(folder: Path) -> list[list[str]]:
    save_file({f"blocks.{i}.q.weight": torch.ones(16, 16) for i in range(2)}, folder / "base.safetensors")
    for number, name in enumerate("ab"):
        factors = pair("blocks.0.q", 16, 16)
        save_file({key: value * (number + 1) for key, value in factors.items()}, folder / f"{name}.safetensors")
    save_file({f"blocks.{i}.q.weight": torch.eye(16) + 1 for i in range(2)}, folder / "tuned.safetensors")
    base, one, two, tuned = (str(folder / f"{name}.safetensors") for name in ("base", "a", "b", "tuned"))
    workflow = folder / "workflow.json"
    workflow.write_text(json.dumps({
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "base.safetensors", "weight_dtype": "default"}},
        "2": {"class_type": "LoraLoaderModelOnly",
              "inputs": {"model": ["1", 0], "lora_name": "a.safetensors", "strength_model": 1.0}},
        "3": {"class_type": "KSampler", "inputs": {"model": ["2", 0], "steps": 20, "cfg": 5.0}},
    }))  # fmt: skip
    return [
        ["inspect", one], ["check", "--base", base, "--lora", one], ["lineage", "show", one], ["doctor"],
        ["bake", "--base", base, "--lora", one, "-o", f"{folder}/out.safetensors", "--cache", f"{folder}/cache"],
        ["merge", one, two, "-o", str(folder / "merged.safetensors")], ["conflicts", one, two],
        ["resize", one, "--rank", "1", "-o", str(folder / "small.safetensors")],
        ["extract", tuned, base, "--rank", "2", "-o", str(folder / "extracted.safetensors")],
        ["check", str(workflow)], ["convert", str(workflow), "-o", str(folder / "converted.json")],
    ]  # fmt: skip
