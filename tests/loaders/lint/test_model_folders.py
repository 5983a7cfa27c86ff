"""Files of a workflow found without a ComfyUI: by kind and name, never outside the folders."""

from __future__ import annotations

import pytest
from lora_foundry.loaders.lint.model_folders import ModelFolders


@pytest.fixture()
def models(tmp_path):
    for name in ("loras/a.safetensors", "loras/sub/b.safetensors", "unet/m.safetensors", "loras/note.txt"):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "models" / "diffusion_models" / "sharded").mkdir(parents=True)
    (tmp_path / "secret.safetensors").write_bytes(b"")
    return ModelFolders([tmp_path / "none", tmp_path / "models"])


@pytest.mark.parametrize(
    "kind, name",
    [
        ("loras", "a.safetensors"),
        ("loras", "sub/b.safetensors"),
        ("loras", "sub\\b.safetensors"),
        ("diffusion_models", "m.safetensors"),
        ("diffusion_models", "sharded"),
    ],
)
def test_a_name_finds_its_file(models, kind, name):
    found = models(kind, name)
    assert found is not None and found.exists() and found.name == name.replace("\\", "/").rpartition("/")[2]


@pytest.mark.parametrize(
    "kind, name",
    [
        ("loras", "gone.safetensors"),
        ("checkpoints", "a.safetensors"),
        ("vae", "a.safetensors"),
        ("loras", "../../secret.safetensors"),
        ("loras", "..\\..\\secret.safetensors"),
        ("loras", "sub/../a.safetensors"),
        ("loras", "/etc/passwd"),
        ("loras", "C:\\a.safetensors"),
        ("loras", "a\0"),
        ("loras", ""),
    ],
)
def test_nothing_else_is_found(models, kind, name):
    assert models(kind, name) is None


def test_only_weights_are_listed(models):
    assert models.names("loras") == ["a.safetensors", "sub/b.safetensors"] and models.names("vae") == []
