"""One bad entry among many: a dead link, a pipe, a folder that may not be read, a broken table. Each is one finding."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.bakes.records import load_record
from lora_foundry.loaders.disk.hashes import FORMER, file_hashes
from lora_foundry.loaders.lineage import store
from lora_foundry.loaders.lineage.accelerators import recognise
from lora_foundry.loaders.lineage.provenance import lineage_of
from lora_foundry.loaders.lineage.registry import FILE, registry, registry_fault
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.lint.model_folders import ModelFolders
from lora_foundry.loaders.workflows.reading import graph_of
from planner_parts import pair
from safetensors.torch import save_file

pytestmark = pytest.mark.timeout(60)  # a guard against hanging, no measurement
KNOWN = "lcm-lora-sdxl"


@pytest.fixture
def lora(tmp_path) -> Path:
    path = tmp_path / "loras" / "good.safetensors"
    path.parent.mkdir()
    save_file(pair(), path)
    return path


def prompt(*names: str):
    nodes = {"b": {"class_type": "UNETLoader", "inputs": {"unet_name": "a.safetensors"}}}
    last = "b"
    for number, name in enumerate(names):
        inputs = {"model": [last, 0], "lora_name": name, "strength_model": 1.0}
        nodes[f"l{number}"] = {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
        last = f"l{number}"
    return graph_of({"prompt": {**nodes, "s": {"class_type": "KSampler", "inputs": {"model": [last, 0]}}}})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_dead_link_a_pipe_a_loop_and_a_folder_among_the_loras(lora, tmp_path):
    names = ["dead.safetensors", "pipe.safetensors", "loop.safetensors", "folder.safetensors", "empty.safetensors"]
    dead, pipe, loop, folder, empty = (lora.parent / name for name in names)
    dead.symlink_to("nowhere")
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    folder.mkdir()
    empty.touch()
    result = lint(prompt(*names, lora.name), ModelFolders([tmp_path]), lineage_of)
    told = {finding.subject for finding in result.findings if finding.subject in names}
    assert told == set(names) and lora.name not in {finding.subject for finding in result.findings}
    assert [item.name for item in result.stacks[0].items] == [*names, lora.name]


def test_a_folder_of_records_that_may_not_be_looked_into(lora, monkeypatch):
    ids = (f"tensors:{'a' * 64}",)
    store.declare(ids, "mine", role="style")
    real = Path.stat

    def denied(self, **how):
        if self.suffix == ".json" and self.stem == "a" * 64:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, **how)

    monkeypatch.setattr(Path, "stat", denied)
    (claim,) = store.load(ids)
    assert "Permission denied" in claim.evidence.quote and claim.evidence.level == "unknown"
    with pytest.raises(FoundryError, match="Permission denied"):
        store.read(ids)
    assert lineage_of(lora).claims == ()  # others are as they were


def test_a_home_that_is_a_file(lora, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.touch()
    monkeypatch.setenv("LORA_FOUNDRY_HOME", str(home))
    assert len(file_hashes(lora).file) == 64 and lineage_of(lora).claims == () and load_record(lora) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", [FORMER, FILE])
def test_a_pipe_in_place_of_a_table(name, lora, pack_home):
    pack_home.mkdir(parents=True, exist_ok=True)
    os.mkfifo(pack_home / name)
    assert len(file_hashes(lora).file) == 64 and recognise(KNOWN) is not None


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1, "entries": {}}', "\0"])
def test_a_broken_table_of_the_users_leaves_the_built_in_one(text, pack_home):
    """A syntax error once switched off all entries, without a word."""
    whole = len(registry())
    pack_home.mkdir(parents=True, exist_ok=True)
    (pack_home / FILE).write_text(text)
    assert len(registry()) == whole and recognise(KNOWN) is not None and registry_fault() is not None
    findings = [finding for finding in lint(prompt("x.safetensors")).findings if finding.code == "registry"]
    assert len(findings) == 1 and findings[0].severity == "warning" and FILE in findings[0].seen


def test_one_bad_entry_of_the_users_leaves_the_others(pack_home):
    good = {"id": "mine", "name": "Mine", "publisher": "me", "family": "wan", "source": "here", "match": ["my-turbo"]}
    entries = [good, {**good, "id": "bad", "match": ["("]}, {**good, "id": "other", "match": ["another-one"]}]
    pack_home.mkdir(parents=True, exist_ok=True)
    (pack_home / FILE).write_text(json.dumps({"schema": 1, "entries": entries}))
    assert (
        recognise("my_turbo").id == "mine" and recognise("another_one").id == "other" and recognise(KNOWN) is not None
    )
    assert "'match' of entry 'bad'" in registry_fault().what


def test_a_lora_cut_short_beside_a_whole_one(lora, tmp_path):
    short = lora.with_name("short.safetensors")
    short.write_bytes(lora.read_bytes()[:-1])
    save_file({"a": torch.ones(2)}, lora.with_name("strange.safetensors"))
    result = lint(prompt(short.name, "strange.safetensors", lora.name), ModelFolders([tmp_path]), lineage_of)
    assert [finding.subject for finding in result.findings if finding.code == "file"] == [short.name]
