"""Records of bakes: they come back whole, and only for results that are as the bake left them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.reuse import identity_of
from lora_foundry.engine.tensors import InMemory, TensorInfo, TensorSource
from lora_foundry.loaders.bakes import records
from lora_foundry.loaders.bakes.records import (
    BakeRecord,
    base_facts,
    load_record,
    save_record,
)
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk.home import VARIABLE, seal, unseal
from lora_foundry.loaders.disk.source import base_fingerprint
from safetensors.torch import save_file


def base_identity(source: TensorSource) -> str:
    return identity_of(base_facts(source))


RECIPE = "ab" * 32


def result(path: Path, recipe: str = RECIPE, value: float = 1.0) -> Path:
    save_file({"a.weight": torch.full((64, 64), value)}, path, {"lora_foundry": json.dumps({"recipe_sha256": recipe})})
    return path


def make_record(recipe: str = RECIPE) -> BakeRecord:
    return BakeRecord(
        recipe,
        {"fingerprint": "cd" * 32, "files": []},
        {"a.weight": "0123456789abcdef" * 2},
        {"a.weight": {"signal": 1.0, "noise": 2.5e-9, "rows": 3}},
        {"tensors": 1, "gains": [1.0, None]},
    )


@pytest.fixture
def out(tmp_path) -> Path:
    path = result(tmp_path / "out.safetensors")
    assert save_record(path, make_record())
    return path


def record_file(pack_home: Path) -> Path:
    (path,) = (pack_home / "records").iterdir()
    return path


def test_record_comes_back_with_the_state_of_its_file(out):
    record, state = load_record(out), out.stat()
    for name in ("recipe_sha256", "base", "keys", "measures", "report", "base_identity"):
        assert getattr(record, name) == getattr(make_record(), name)
    assert record.files == [
        {"name": out.name, "size": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
    ]


def test_other_results_have_no_record(out):
    assert load_record(result(out.with_name("other.safetensors"))) is None
    assert load_record(out.with_name("missing.safetensors")) is None


def test_a_result_is_the_same_by_any_spelling_of_its_path(out, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    around = tmp_path / "link" / ".." / tmp_path.name / out.name
    for spelling in (Path("out.safetensors"), around, Path("link") / out.name):
        assert load_record(spelling) is not None, spelling
    assert save_record(Path("out.safetensors"), make_record(), [Path("out.safetensors")])
    assert load_record(out) is not None


def rewrite(path: Path, change: str) -> None:
    state = path.stat()
    if change == "truncated":
        os.truncate(path, state.st_size - 1)
    elif change == "touched":
        os.utime(path, ns=(1, state.st_mtime_ns + 1))
    elif change == "replaced":
        result(path.with_name("b.safetensors")).replace(path)
    elif change == "gone":
        path.unlink()
    elif change == "folder":
        path.unlink()
        path.mkdir()
    elif change == "header damaged":
        with path.open("r+b") as file:
            file.seek(20)
            file.write(b"\0")
    if change in ("truncated", "replaced", "header damaged"):
        os.utime(path, ns=(1, state.st_mtime_ns))


@pytest.mark.parametrize("change", ["truncated", "touched", "replaced", "gone", "folder", "header damaged"])
@pytest.mark.parametrize("which", [0, 1])
def test_record_of_a_changed_result_is_none(change, which, tmp_path):
    files = [result(tmp_path / f"out-0000{i}-of-00002.safetensors") for i in (1, 2)]
    assert save_record(files[0], make_record(), files)
    assert load_record(files[0]) is not None
    rewrite(files[which], change)
    assert load_record(files[0]) is None


def test_record_saved_beside_the_result_of_another_bake_is_none(tmp_path):
    """Two bakes wrote one name at once: the record of the first, stamped with the file of the second, is no record."""
    out = result(tmp_path / "out.safetensors", recipe="ef" * 32)
    assert save_record(out, make_record())
    assert load_record(out) is None


def test_result_that_says_nothing_of_its_recipe_goes_by_its_state(tmp_path):
    out = tmp_path / "out.safetensors"
    save_file({"a": torch.ones(1)}, out)
    index = tmp_path / "out.safetensors.index.json"
    index.write_text("{}")
    assert save_record(out, make_record(), [out, index])
    assert load_record(out) is not None
    index.write_text("{} ")
    assert load_record(out) is None


def test_damaged_record_is_none(out, pack_home):
    path = record_file(pack_home)
    line = path.read_text()
    digit = line.index("0123456789abcdef")
    data = unseal(line)
    for damaged in (
        "",
        line[:-1],
        line[: len(line) // 2],
        line[:digit] + "1" + line[digit + 1 :],
        line.partition(" ")[2],
        line + line,
        "\0" * len(line),
        seal([]),
        seal(None),
        seal({**data, "schema": records.SCHEMA + 1}),
        seal({**data, "more": 1}),
        seal({key: value for key, value in data.items() if key != "base"}),
        seal({**data, "files": []}),
    ):
        path.write_text(damaged)
        assert load_record(out) is None, damaged[:80]
    path.write_bytes(b"\xff" * 100)
    assert load_record(out) is None
    path.write_text(line)
    assert load_record(out) is not None


def test_missing_result_is_no_record_to_save(tmp_path, pack_home):
    with pytest.raises(FoundryError, match="does not exist"):
        save_record(tmp_path / "missing.safetensors", make_record())
    assert not pack_home.exists()


@pytest.mark.parametrize("parent", ["home", "records"])
def test_home_that_cannot_be_written_to_is_told_and_no_error(parent, tmp_path, monkeypatch):
    out = result(tmp_path / "out.safetensors")
    home = tmp_path / "home"
    monkeypatch.setenv(VARIABLE, str(home))
    if parent == "records":
        home.mkdir()
    (home / "records" if parent == "records" else home).write_text("a file is in the way")
    assert save_record(out, make_record()) is False
    assert load_record(out) is None


def test_the_least_recently_used_records_go(tmp_path, pack_home, monkeypatch):
    monkeypatch.setattr(records, "STORE", replace(records.STORE, most=3))
    outs = [result(tmp_path / f"{i}.safetensors") for i in range(5)]
    for age, out in enumerate(outs[:3]):
        save_record(out, make_record())
        os.utime(records.STORE.place(records._key(out)), ns=(age, age))
    assert load_record(outs[0]) is not None  # used: now it is the youngest
    save_record(outs[3], make_record())
    assert [load_record(out) is not None for out in outs] == [True, False, True, True, False]
    assert len(list((pack_home / "records").iterdir())) == 3


# --- the base


def base(folder: Path, count: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        name = f"m-0000{i + 1}-of-0000{count}.safetensors" if count > 1 else "m.safetensors"
        save_file({f"blocks.{i}.weight": torch.zeros(8192)}, folder / name)
    return folder


def middle(path: Path, restore_time: bool) -> None:
    """Change one byte in the middle of the only tensor, where the fingerprint does not look."""
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(state.st_size // 2)
        file.write(b"\x01")
    os.utime(path, ns=(1, state.st_mtime_ns + (not restore_time)))


def test_base_is_itself_wherever_it_is_opened_from(tmp_path):
    folder = base(tmp_path / "base", 2)
    source = open_checkpoint(folder)
    facts = base_facts(source)
    assert base_identity(source) == base_identity(open_checkpoint(folder)) == identity_of(facts)
    assert facts["fingerprint"] == base_fingerprint(source)
    assert [file["name"] for file in facts["files"]] == [path.name for path in source.files]
    assert identity_of(json.loads(json.dumps(facts))) == base_identity(source)
    moved = folder.rename(tmp_path / "moved")
    assert base_identity(open_checkpoint(moved)) == base_identity(open_checkpoint(moved)) == identity_of(facts)


@pytest.mark.parametrize("which", [0, 1])
def test_change_in_the_middle_of_a_tensor_is_seen_by_the_time_of_the_file(which, tmp_path):
    folder = base(tmp_path / "base", 2)
    before = open_checkpoint(folder)
    old, sampled = base_identity(before), base_fingerprint(before)
    middle(before.files[which], restore_time=False)
    after = open_checkpoint(folder)
    assert base_fingerprint(after) == sampled
    assert base_identity(after) != old


def test_change_in_the_middle_with_the_time_restored_cannot_be_seen(tmp_path):
    """The limit of the method, stated in the module: only reading all of it would tell."""
    path = base(tmp_path / "base") / "m.safetensors"
    old = base_identity(open_checkpoint(path))
    middle(path, restore_time=True)
    assert base_identity(open_checkpoint(path)) == old


def test_exchanged_base_is_another_even_with_the_same_weights(tmp_path):
    path = base(tmp_path / "base") / "m.safetensors"
    old, state = base_identity(open_checkpoint(path)), path.stat()
    other = base(tmp_path / "other") / "m.safetensors"
    os.utime(other, ns=(1, state.st_mtime_ns))
    other.replace(path)
    assert base_identity(open_checkpoint(path)) != old


def test_model_in_memory_goes_by_its_fingerprint():
    class Held(InMemory):
        label = "memory"
        tensors = {"a": TensorInfo("a", torch.float32, (2,))}
        weight = torch.zeros(2)

        def read(self, name):
            return self.weight

    source = Held()
    old = base_identity(source)
    assert base_facts(source) == {"fingerprint": base_fingerprint(source), "files": []}
    source.weight = torch.ones(2)
    assert base_identity(source) != old


def test_base_that_is_gone_is_named(tmp_path):
    path = base(tmp_path / "base") / "m.safetensors"
    source = open_checkpoint(path)
    path.unlink()
    with pytest.raises(FoundryError, match=r"m\.safetensors does not exist"):
        base_facts(source)
