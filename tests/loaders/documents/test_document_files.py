"""Stack documents as files, and the paths that are named in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from document_parts import OURS
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk import text as text_module
from lora_foundry.loaders.documents.document import load_document
from lora_foundry.loaders.documents.paths import resolve_path


def write(folder: Path, content: str | bytes, name: str = "doc.yaml") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_file_knows_its_folder_and_may_begin_with_a_bom(tmp_path):
    path = write(tmp_path, "\ufeff" + OURS)
    assert load_document(path).folder == tmp_path
    assert load_document(path).base == "flux1-dev.safetensors"
    assert load_document(write(tmp_path, '\ufeff{"base": "a"}', "doc.json")).base == "a"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"# " + b"x" * 1_000_000, "larger than 1000000 bytes"), (b"base: \xff", "byte 6 is not UTF-8")],
)
def test_file_that_is_no_text_or_too_much_is_refused(content, says, tmp_path):
    with pytest.raises(FoundryError, match=says):
        load_document(write(tmp_path, content))


def test_weights_in_place_of_a_document_are_named_as_such(tmp_path):
    with pytest.raises(FoundryError, match="style.safetensors: it holds weights.*stack: "):
        load_document(write(tmp_path, bytes(100), "style.safetensors"))
    with pytest.raises(FoundryError, match="not a regular file. Name the file itself"):
        load_document(tmp_path)


def test_without_pyyaml_json_works_and_yaml_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "yaml", None)
    assert load_document(write(tmp_path, '{"base": "a"}')).base == "a"
    with pytest.raises(FoundryError, match="pip install pyyaml"):
        load_document(write(tmp_path, OURS))
    with pytest.raises(FoundryError, match="line 1: Expecting"):
        load_document(write(tmp_path, '{"base": }'))


@pytest.mark.posix
def test_paths_start_at_the_document_with_either_slash(tmp_path):
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "a.safetensors").touch()
    for name in (
        "loras/a.safetensors",
        r"loras\a.safetensors",
        "./loras/a.safetensors",
        str(tmp_path / "loras" / "a.safetensors"),
    ):
        assert resolve_path(name, tmp_path).samefile(tmp_path / "loras" / "a.safetensors")
    assert resolve_path(r"..\x\a", Path("d"), lambda path: True) == Path("d/../x/a")
    assert resolve_path("a", None, lambda path: True) == Path("a")


@pytest.mark.posix
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("styel.safetensors", "'styel.safetensors' does not exist .*Did you mean style.safetensors"),
        ("nowhere/a", "folder .* does not exist either"),
        ("s3://bucket/a.safetensors", "only files of this machine"),
        ("https://me:secret@x/a.safetensors", r"https://\*\*\*@x/a.safetensors is not on this machine"),
        (r"C:\models\a.safetensors", "Windows machine"),
        (r"\\server\share\a", "Windows machine"),
        ("x" * 300, "does not exist|too long"),
        ("a\x1b[2Jb", r"a\\x1b\[2Jb"),
        ("a\0b", r"a\\x00b"),
        ("~/a", "does not exist"),
    ],
)
def test_path_that_cannot_be_resolved_says_why(name, says, tmp_path):
    (tmp_path / "style.safetensors").touch()
    with pytest.raises(FoundryError, match=says) as caught:
        resolve_path(name, tmp_path)
    assert str(caught.value).isprintable()
