"""The command line for one's own files, without a document; and what it says to slips of the pen."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml
from lora_foundry.cli.own import yaml_text
from lora_foundry.loaders.documents.document import load_document
from schemas import faults

OWN = ("--base", "base.safetensors", "--fuse", "lightning.safetensors", "--lora", "style.safetensors:0.7")


def test_a_bake_of_ones_own_files_is_that_of_the_document_that_says_the_same(folder, run):
    (folder / "same.yaml").write_text(
        "base: base.safetensors\nfuse: [lightning.safetensors]\nstack: [{path: style.safetensors, strength: 0.7}]\n",
        encoding="utf-8",
    )
    assert run("bake", "same.yaml", "-o", "document.safetensors")[0] == 0
    code, report, _ = run("bake", *OWN, "-o", "own.safetensors", "--json")
    assert code == 0 and [layer["path"] for layer in report["loras"]] == ["lightning.safetensors", "style.safetensors"]
    assert (folder / "own.safetensors").read_bytes() == (folder / "document.safetensors").read_bytes()


def test_init_writes_the_document_and_overwrites_nothing(folder, run):
    code, out, _ = run("init", *OWN, "--lora", "partial.safetensors", "--quantize", "fp8")
    document = load_document(folder / "stack.yaml")
    assert code == 0 and "lora-foundry check stack.yaml" in out
    assert [(row.path, row.strength) for row in (*document.fuse, *document.stack)] == [
        ("lightning.safetensors", 1.0), ("style.safetensors", 0.7), ("partial.safetensors", 1.0)]  # fmt: skip
    assert (document.base, document.quantize) == ("base.safetensors", "fp8")
    before = (folder / "stack.yaml").read_bytes()
    code, _, err = run("init", *OWN)
    assert code == 2 and "is there already" in err and (folder / "stack.yaml").read_bytes() == before


@pytest.mark.parametrize("words", [OWN, (*OWN, "--quantize", "fp8"), ("--fuse", "none"), ()])
def test_the_json_of_init_is_as_documented(words, folder, run):
    code, told, _ = run("init", *words, "-o", "mine.yaml", "--json")
    assert code == 0 and faults(told, "init") == []
    assert told["document"] == yaml.safe_load((folder / "mine.yaml").read_text(encoding="utf-8"))


def test_names_in_a_document_elsewhere_lead_to_the_same_files(folder, run):
    (folder / "documents").mkdir()
    assert run("init", *OWN, "-o", "documents/mine.yaml")[0] == 0
    code, report, _ = run("check", "documents/mine.yaml", "--json")
    assert code == 0 and [lora["matched"] for lora in report["loras"]] == [lora["modules"] for lora in report["loras"]]


def test_check_takes_the_same_options(folder, run):
    code, out, _ = run("check", *OWN)
    assert code == 0 and "lightning.safetensors" in out and "0.7" in out


def test_no_base_lora_on_purpose_is_written_as_such(folder, run):
    run("init", "--base", "base.safetensors", "--fuse", "none", "--lora", "style.safetensors")
    assert load_document(folder / "stack.yaml").vanilla


@pytest.mark.parametrize(
    ("name", "path", "strength"),
    [("C:\\loras\\style.safetensors", "C:\\loras\\style.safetensors", 1.0), ("a:b:-0.5", "a:b", -0.5),
     (":0.5", ":0.5", 1.0), ('a "b" ü.safetensors:1', 'a "b" ü.safetensors', 1.0), ("a:1e-5", "a", 1e-5),
     ("a:1.5e-7", "a", 1.5e-7), ("a\x85\x7f\u2028b", "a\x85\x7f\u2028b", 1.0), ("😀\ufeff", "😀\ufeff", 1.0),
     ("a\udcff.safetensors:0.5", "a\udcff.safetensors", 0.5)],
)  # fmt: skip
def test_a_colon_without_a_number_belongs_to_the_name(name, path, strength, folder, run):
    run("init", "--base", "base.safetensors", "--lora", name)
    (row,) = load_document(folder / "stack.yaml").stack
    assert (row.path, row.strength) == (path, strength)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bake", "-o", "o.safetensors"], "Nothing to bake"),
        (["bake", "stack.json", *OWN, "-o", "o.safetensors"], "Both a document and"),
        (["bake", "--lora", "style.safetensors", "-o", "o.safetensors"], "no base"),
        (["bake", *OWN, "--fuse", "none", "-o", "o.safetensors"], "--fuse none"),
        (["bake", *OWN[:4], "--lora", "style.safetensors:nan", "-o", "o.safetensors"], "nan"),
        (["check"], "Check one thing"),
        (["bkae"], "did you mean 'bake'?"),
        (["bake", *OWN, "-o", "o.safetensors", "--quantise", "fp8"], "did you mean '--quantize'?"),
        (["bake", *OWN, "-o", "o.safetensors", "--quantize", "int8"], "int8_convrot"),
        (["lineage", "show", "style.safetensors", "--jsn"], "did you mean '--json'?"),
        (["doctor", "twice"], "'twice' is one too many"),
        (["bake", *OWN, "-o", "o.safetensors", "--max-error", "two"], "2%"),
        (["bake", *OWN, "-o", "o.safetensors", "--max-shard-size", "999KB"], "under 1 MB"),
    ],
    ids=lambda given: " ".join(given[:3]) if isinstance(given, list) else None,
)
def test_wrong_use_is_one_line_that_says_what_to_do(arguments, says, folder, run):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1
    assert not (folder / "o.safetensors").exists()


@pytest.mark.parametrize(("written", "kept"), [("1%", 0.01), ("0.01", 0.01), ("1.5 %", 0.015)])
def test_a_share_may_be_written_in_percent(written, kept, folder, run):
    code, report, _ = run("bake", *OWN, "-o", "o.safetensors", "--quantize", "fp8", "--max-error", written, "--json")
    assert code == 0 and report["budget"]["max_error"] == kept


def test_the_command_alone_shows_what_to_begin_with(run):
    code, out, _ = run()
    assert code == 0 and out.count("\n  lora-foundry ") == 3


def test_a_workflow_whose_files_were_not_looked_at_is_no_plain_ok(folder, run, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    graph = '{"1": {"class_type": "UNETLoader", "inputs": {"unet_name": "a.safetensors", "weight_dtype": "default"}}}'
    (folder / "workflow.json").write_text(graph, encoding="utf-8")
    code, out, _ = run("check", "workflow.json")
    assert code == 0 and "Files were not looked at" in out and "as far as it says itself" in out


def test_yaml_of_any_name_is_read_back(tmp_path):
    rows = [{"path": name, "strength": 1.0} for name in ("a: b", "#c", "- d", "'e'", '"f"', "g\\h", "ü\u2028")]
    path = tmp_path / "a.yaml"
    path.write_text(yaml_text({"base": "b: c", "stack": rows}), encoding="utf-8")
    assert [row.path for row in load_document(path).stack] == [row["path"] for row in rows]


def test_init_into_a_folder_that_is_not_there_says_so(folder, run):
    code, _, err = run("init", *OWN, "-o", "no/stack.yaml")
    assert code == 2 and "stack.yaml cannot be written: its folder does not exist. Make no first." in err


@pytest.mark.parametrize(("lora", "said"), [
    ("s3://me:secret@b/face.safetensors:0.4", "holds a user name or a password"),
    ("https://example.org/face.safetensors", "does not say what the file must be"),
])  # fmt: skip
def test_init_writes_no_address_that_would_be_refused(folder, run, lora, said):
    code, out, err = run("init", *OWN, "--lora", lora)
    assert code == 2 and said in err and "secret" not in out + err and not (folder / "stack.yaml").exists()


@pytest.mark.parametrize("command", [
    ("bake", "a.yaml", "-o", "s3://me:secret@b/face.txt"), ("batch", "a.yaml", "-o", "s3://me:secret@b/")
])  # fmt: skip
def test_no_password_of_a_result_is_shown(folder, run, command):
    code, out, err = run(*command)
    assert code == 2 and "***@b/" in err and "secret" not in out + err


def test_a_strength_with_a_comma_is_told_how_it_is_written(folder, run):
    code, _, err = run("check", "--base", "base.safetensors", "--lora", "style.safetensors:0,7")
    assert code == 2 and "'0,7'" in err and "Write 0.7." in err
    (folder / "style.safetensors").rename(folder / "of:0,7")  # where a file is called so, it is that file
    assert "0.7" not in run("init", "--lora", "of:0,7")[1]


def test_a_command_to_copy_is_one_that_a_shell_takes(folder, run):
    (folder / "my stacks").mkdir()
    out = run("init", *OWN, "-o", "my stacks/a.yaml")[1]
    said = next(line for line in out.splitlines() if "Next: " in line).partition("Next: lora-foundry ")[2]
    assert shlex.split(said) == ["check", str(Path("my stacks/a.yaml"))]


@pytest.mark.parametrize("verb", [("inspect",), ("bake", "-o", "out.safetensors"), ("merge", "-o", "out.safetensors")])
def test_a_name_that_is_nearly_there_is_offered(verb, folder, run):
    code, _, err = run(*verb, "stile.safetensors")
    assert code == 2 and "does not exist" in err and "Did you mean style.safetensors" in err
    assert "Did you mean" not in run(*verb, "no/such/style.safetensors")[2]


def test_a_folder_is_no_document_of_a_batch(folder, run):
    code, _, err = run("batch", ".", "-o", "results")
    assert code == 2 and "is a folder" in err and not (folder / "results").exists()
