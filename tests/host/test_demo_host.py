"""``lora-foundry demo --host``: a real ComfyUI, a picture, and a refused wire."""

from __future__ import annotations

import json

import pytest
from lora_foundry.cli.demo import comfyui
from lora_foundry.cli.main import main
from lora_foundry.engine.errors import FoundryError
from schemas import faults


def test_demo_host_makes_a_picture(inprocess, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COMFYUI_PATH", str(inprocess.tree))
    code = main(["demo", "--host", "--json", "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (code, result["ok"], err) == (0, True, ""), out
    assert faults(result, "demo") == faults(result, "demo", "host_demo") == []
    assert [lora["matched"] for lora in result["loras"]] == [10, 10] and result["findings"] == []
    assert result["wrong"]["status"] == 400 and "already stacked" in result["wrong"]["message"]
    assert (tmp_path / "lora_foundry_demo.png").stat().st_size > 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["lora_foundry_demo.png"]


def test_a_workflow_that_fails_is_one_error_and_the_server_ends(inprocess, tmp_path):
    with comfyui.ComfyUI(inprocess.tree, tmp_path) as server:
        prompt = {"1": {"class_type": "FoundryNoSuchNode", "inputs": {}}}
        with pytest.raises(FoundryError, match="refused the workflow"):
            server.run(prompt)
        info = server.request("/object_info/FoundryQuantizeFP8")[1]
        assert "FoundryQuantizeFP8" in info
    assert server.process.poll() is not None
