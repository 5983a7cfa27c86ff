"""Evidence by file: what a person names is read or refused in one sentence; what lies beside a LoRA must name it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.lineage import DECLARED, DERIVED, GUESSED, Ingredient
from lora_foundry.loaders.evidence import reading as evidence
from lora_foundry.loaders.evidence.reading import beside, read_evidence

HEAD = "accelerate launch train.py --lora_base_model dit --model_id_with_origin_paths Qwen/Qwen-Image:t/x.safetensors"
FUSED = f"{HEAD} --lora_fused L.safetensors --output_path ./out/my_lora\n"
L = (Ingredient("L.safetensors", strength=1.0),)
MODEL = "{name_or_path: x, lora_path: L.safetensors}"
JOB = f"config: {{name: %s, process: [{{type: sd_trainer, network: {{type: lora}}, model: {MODEL}}}]}}"
BOMB = "\n".join(
    f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]" for last, name in ["ab", "bc", "cd", "de", "ef", "fg"]
)


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def lora(tmp_path) -> Path:
    return put(tmp_path / "my_lora.safetensors", b"")


def trained(claims):
    return [claim.trained_with for claim in claims]


@pytest.mark.parametrize("name", ["train.sh", "TRAIN.SH", "run.bash", "notes.command", "no_ending"])
def test_scripts_by_name_or_first_line(tmp_path, name):
    path = put(tmp_path / name, f"#!/bin/bash\n{FUSED}")
    (claim,) = read_evidence(path)
    assert claim.trained_with == L and claim.evidence.source == name and claim.evidence.level == DECLARED


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", JOB % "x"),
        ("a.json", json.dumps({"lora_fused": "L.safetensors"})),
        ("a.log", "Loading and fusing pretrained LoRA from: L.safetensors"),
        ("a.txt", "Loading and fusing pretrained LoRA from: L.safetensors".encode("utf-16")),
        ("a.sh", ("\ufeff" + FUSED)),
    ],
)
def test_every_kind_of_file(tmp_path, name, text):
    assert trained(read_evidence(put(tmp_path / name, text))) == [L]


def test_a_script_of_many_runs_and_the_lora_it_is_read_for(tmp_path):
    other = FUSED.replace("L.safetensors", "M.safetensors").replace("my_lora", "other")
    path = put(tmp_path / "all.sh", FUSED + other)
    assert len(read_evidence(path)) == 2
    assert trained(read_evidence(path, Path("x/my_lora.safetensors"))) == [L]


RENAMED = Path("x/renamed.safetensors")


def several(tmp_path, *runs: tuple[str, str]) -> Path:
    """A script of runs: each with its base LoRA and the name it writes."""
    texts = (FUSED.replace("L.safetensors", base).replace("my_lora", output) for base, output in runs)
    return put(tmp_path / "all.sh", "".join(texts))


def test_of_several_runs_that_do_not_name_the_lora_it_is_asked_which(tmp_path):
    """Two claims that contradict each other are never both taken."""
    path = several(tmp_path, ("L.safetensors", "my_lora"), ("M.safetensors", "other"))
    with pytest.raises(FoundryError) as error:
        read_evidence(path, RENAMED)
    assert error.value.code == "evidence" and "renamed.safetensors" in error.value.what and "--run" in error.value.fix
    assert "1 (my_lora: L.safetensors)" in error.value.fix and "2 (other: M.safetensors)" in error.value.fix
    assert trained(read_evidence(path, RENAMED, run="other")) == trained(read_evidence(path, RENAMED, run="2"))
    assert trained(read_evidence(path, RENAMED, run="my_lora")) == [L]
    assert trained(read_evidence(path, Path("x/my_lora.safetensors"))) == [L]  # it names itself
    assert len(read_evidence(path)) == 2  # nothing is written down, so all is shown


@pytest.mark.parametrize("run", ["nobody", "0", "3", "-1", "", "9" * 5000], ids=lambda run: run[:9])
def test_a_run_that_is_not_there(tmp_path, run):
    path = several(tmp_path, ("L.safetensors", "my_lora"), ("M.safetensors", "other"))
    with pytest.raises(FoundryError, match="--run"):
        read_evidence(path, RENAMED, run=run)


def test_runs_that_agree_need_no_question(tmp_path):
    path = several(tmp_path, ("L.safetensors", "first"), ("L.safetensors", "second"))
    assert {each.trained_with for each in read_evidence(path, RENAMED)} == {read_evidence(path)[0].trained_with}


def test_two_runs_that_write_one_name_are_told_by_number(tmp_path):
    path = several(tmp_path, ("L.safetensors", "my_lora"), ("M.safetensors", "my_lora"))
    for run in ("", "my_lora"):
        with pytest.raises(FoundryError, match="--run"):
            read_evidence(path, Path("x/my_lora.safetensors"), run=run)
    assert trained(read_evidence(path, Path("x/my_lora.safetensors"), run="1")) == [L]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.sh", "echo 'never closed"),
        ("a.sh", b"\0\0\0\0"),
        ("a.sh", "#" * 2_000_000),
        ("a.sh", "x" * 200_000),
        ("a.json", "[" * 100_000),
        ("a.json", "{"),
        ("a.json", "1" * 10_000),
        ("a.yaml", f"a: &a [x,x,x,x,x,x,x,x,x]\n{BOMB}"),
        ("a.yaml", "[" * 50_000),
        ("a.yaml", "\t- a"),
        ("a.toml", "= 5"),
        ("a.toml", b"\xff\xfe"),
        ("a.log", b"\0" * 100),
        ("a.py", "import x"),
        ("a.safetensors", b""),
        ("noending", "x"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(tmp_path, name, text):
    if text == b"\xff\xfe":
        text += "= 5".encode("utf-16-le")
    path = put(tmp_path / name, text)
    with pytest.raises(FoundryError) as refused:
        read_evidence(path)
    assert refused.value.code == "evidence" and name in refused.value.what and str(refused.value).isprintable()
    assert beside(put(tmp_path / "a.safetensors", b"")) == beside(put(tmp_path / "noending.safetensors", b"")) == ()


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "no.sh", tmp_path, Path("\0"), tmp_path / "no" / "no.sh"):
        with pytest.raises(FoundryError, match=r"^\[evidence\]"):
            read_evidence(path)
        assert beside(path) == ()
    os.mkfifo(tmp_path / "pipe.sh")
    with pytest.raises(FoundryError, match="is not a regular file"):
        read_evidence(tmp_path / "pipe.sh")
    put(tmp_path / "pipe.safetensors", b"")
    assert beside(tmp_path / "pipe.safetensors") == ()


def test_a_log_of_any_length_is_read_from_its_begin(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "LOG_HEAD", 100)
    text = "Loading and fusing pretrained LoRA from: L.safetensors\n"
    assert trained(read_evidence(put(tmp_path / "a.log", text + "x" * 1000))) == [L]
    cut = put(tmp_path / "b.log", "y" * 55 + "\n" + text + "x" * 1000)  # the name ends after the cut
    assert read_evidence(cut) == ()
    assert read_evidence(put(tmp_path / "c.log", "x" * 10_000_000)) == ()


# Beside a LoRA


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("config.yaml", JOB % "my_lora", True),
        ("config.yaml", JOB % "My-Lora", True),
        ("config.yaml", JOB % "another", False),
        ("config.yaml", JOB % "my_lora_2", False),
        ("train.sh", FUSED, True),
        ("train.sh", FUSED.replace("my_lora", "lora"), False),
        ("train.sh", FUSED.replace("--output_path ./out/my_lora", ""), False),
        ("my_lora.sh", FUSED.replace("--output_path ./out/my_lora", ""), True),  # it carries its name
        ("my_lora.sh", FUSED.replace("my_lora", "another"), False),  # but says that it is of another
        ("my_lora.log", "Loading and fusing pretrained LoRA from: L.safetensors", True),
        ("run.log", "Loading and fusing pretrained LoRA from: L.safetensors", False),
        ("another.log", "Loading and fusing pretrained LoRA from: L.safetensors", False),
        ("run.log", "all weights merged: L.safetensors\nsaving checkpoint: /o/my_lora.safetensors", True),
        ("args.json", json.dumps({"base_weights": "L.safetensors", "output_name": "my_lora"}), True),
        ("other.json", json.dumps({"base_weights": "L.safetensors", "output_name": "my_lora"}), False),
        ("my_lora.txt", "a caption, lightning, --lora_fused L.safetensors", False),
        ("train.py", FUSED, False),
        ("sub/config.yaml", JOB % "my_lora", False),
    ],
)
def test_files_beside_count_when_they_name_the_lora(lora, name, text, counts):
    put(lora.parent / name, text)
    assert [each[0].name for each in trained(beside(lora))] == ["L.safetensors"] * counts


@pytest.mark.parametrize(
    ("file", "output", "counts"),
    [
        ("x-000010.safetensors", "x", True),
        ("x_000001500.safetensors", "x", True),
        ("x-step00000100.safetensors", "x", True),
        ("x-000010.safetensors", "x-000010", True),
        ("x-2.safetensors", "x", False),
        ("x_2024.safetensors", "x", False),
        ("x-v2.safetensors", "x", False),
        ("folder/epoch-4.safetensors", "folder", True),
        ("folder/step-500.safetensors", "folder", True),
        ("folder/pytorch_lora_weights.safetensors", "folder", True),
        ("folder/checkpoint-500/pytorch_lora_weights.safetensors", "folder", True),
        ("folder/sub/pytorch_lora_weights.safetensors", "folder", False),
        ("folder/mine.safetensors", "folder", False),
    ],
)
def test_names_of_checkpoints(tmp_path, file, output, counts):
    lora = put(tmp_path / file, b"")
    put(lora.parent / "train.sh", FUSED.replace("my_lora", output))
    assert bool(beside(lora)) is counts


def test_a_sidecar_that_knows_the_hash_is_better_than_its_place(lora):
    put(lora.with_name("my_lora.metadata.json"), json.dumps({"sha256": "a" * 64, "usage_tips": '{"strength": 0.8}'}))
    for sha256, level in [("", GUESSED), ("a" * 64, DERIVED), ("A" * 64, DERIVED), ("b" * 64, GUESSED)]:
        (claim,) = beside(lora, sha256)
        assert (claim.strength, claim.evidence.level) == ((0.8, 0.8), level)
    assert read_evidence(lora.with_name("my_lora.metadata.json"), sha256="a" * 64)[0].evidence.level == DERIVED


def test_a_card_counts_where_only_one_lora_lies(lora):
    put(lora.with_name("README.md"), "---\nbase_model: x/Qwen-Lightning\n---\n")
    put(lora.with_name("adapter_config.json"), '{"peft_type": "LORA", "base_model_name_or_path": "y-fused"}')
    assert [claim.evidence.level for claim in beside(lora)] == [GUESSED] * 2
    put(lora.with_name("second.safetensors"), b"")
    assert beside(lora) == ()


def test_no_more_than_some_files_are_looked_at(lora, monkeypatch):
    for number in range(100):
        put(lora.with_name(f"{number:03}.sh"), FUSED.replace("L.safe", f"L{number}.safe"))
    put(lora.with_name("my_lora.sh"), FUSED)
    assert len(beside(lora)) == evidence.MOST_FILES
    read = []
    monkeypatch.setattr(evidence, "_statements", lambda path, head: read.append(path.name) or ())
    beside(lora)
    assert len(read) == evidence.MOST_FILES


def test_a_folder_of_thousands_is_listed_once(tmp_path, monkeypatch):
    for number in range(3000):
        (tmp_path / f"x{number}.safetensors").touch()
        (tmp_path / f"x{number}.sh").touch()
    put(tmp_path / "config.yaml", JOB % "x7")
    for path in (tmp_path, tmp_path / "config.yaml"):
        os.utime(path, (1000, 1000))
    listed, read = [], []
    monkeypatch.setattr(evidence.os, "scandir", lambda path, real=os.scandir: listed.append(path) or real(path))
    monkeypatch.setattr(
        evidence, "_statements", lambda path, head, real=evidence._statements: read.append(path) or real(path, head)
    )
    found = {number for number in range(0, 3000, 7) if beside(tmp_path / f"x{number}.safetensors")}
    assert found == {7} and len(listed) == 1
    assert read.count(tmp_path / "config.yaml") == 1 and len(read) == 1 + len(range(0, 3000, 7))


def test_a_changed_file_or_folder_is_seen(lora):
    assert beside(lora) == ()
    script = put(lora.with_name("train.sh"), FUSED)
    assert trained(beside(lora)) == [L]
    put(script, FUSED.replace("L.safetensors", "M.safetensors"))
    assert trained(beside(lora)) == [(Ingredient("M.safetensors", strength=1.0),)]
    script.unlink()
    assert beside(lora) == ()


def test_a_name_is_safe_to_print(tmp_path):
    path = put(tmp_path / "a.sh", f"{HEAD} --lora_fused '\x1b[31m{'L' * 5000}\u202e.safetensors'")
    (claim,) = read_evidence(path)
    assert claim.trained_with[0].name.isprintable() and claim.evidence.quote.isprintable()
    assert len(claim.trained_with[0].name) < 1100 and len(claim.evidence.quote) < 210


NAMES = [
    "a.sh",
    "a.yaml",
    "a.toml",
    "a.json",
    "a.metadata.json",
    "a.civitai.info",
    "README.md",
    "a.log",
    "a.txt",
    "a",
]
BYTES = st.binary(max_size=60) | st.sampled_from(
    [FUSED.encode(), b"\xff\xfe" + FUSED.encode("utf-16-le"), b"#!" + FUSED.encode()]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(NAMES), BYTES, st.binary(max_size=10))
def test_any_bytes_under_any_name(tmp_path, name, data, more):
    path = put(tmp_path / name, data + more)
    lora = put(tmp_path / "a.safetensors", b"")
    assert isinstance(beside(lora), tuple)
    try:
        assert isinstance(read_evidence(path), tuple)
    except FoundryError as error:
        assert error.code == "evidence" and str(error).isprintable()
    path.unlink()
