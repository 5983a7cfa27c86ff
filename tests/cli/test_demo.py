"""The demo measures what it shows, and says so when something is not as it should be."""

from __future__ import annotations

import json
import zlib

import pytest
import torch
from lora_foundry.cli.demo import comfyui
from lora_foundry.cli.demo import files as demo_files
from lora_foundry.cli.demo import host as demo_host
from lora_foundry.cli.demo import run as demo
from lora_foundry.cli.main import main
from lora_foundry.cli.orders import stochastic
from lora_foundry.engine import terms
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.formats import FORMATS
from lora_foundry.loaders.disk.small import save_small
from pngs import chunk, png
from schemas import faults


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """(result, folder with the files) of the real demo."""
    folder = tmp_path_factory.mktemp("demo")
    return demo.run(folder), folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo_files, "WIDTH", 128)
    monkeypatch.setattr(demo_files, "LAYERS", 1)
    monkeypatch.setattr(demo, "WIDE", 256)
    monkeypatch.setattr(demo, "FORMAT_NUMBERS", 1)


def test_every_order_comes_out_as_expected(shown):
    result, _ = shown
    assert result["ok"], demo.text(result)
    right, nearest, stochastic, cast, alpha, *refused = result["orders"]
    assert all(abs(gain - 1) < 0.01 for gain in right["gains"].values())
    assert all(gain < 0.6 for row in (nearest, cast) for gain in row["gains"].values())
    assert right["error"] < nearest["error"] and right["error"] < 0.8 * stochastic["error"]
    assert abs(alpha["gains"]["lightning"] - 8) < 0.1
    assert ["LF201" in refused[0]["refusal"], "LF303" in refused[1]["refusal"]] == [True, True]


def test_the_json_is_as_documented(shown):
    result, _ = shown
    assert faults(result, "demo") == faults(result, "demo", "demo") == []


def test_the_text_ends_with_the_verdict(shown):
    result, folder = shown
    lines = demo.text(result).splitlines()
    assert lines[-1].startswith("OK: the right order kept ") and "6 wrong orders" in lines[-1]
    assert str(folder / "stack.json") in demo.text(result)


def test_every_format_is_shown_with_its_errors(shown):
    result, _ = shown
    rows = {row["format"]: row for row in result["formats"]}
    assert list(rows) == list(FORMATS)
    for name, low, high in (("float8_e4m3fn", 0.025, 0.028), ("int8_convrot", 0.007, 0.009), ("nvfp4", 0.078, 0.084)):
        assert low < rows[name]["weight_error"] < high and low < rows[name]["output_error"] < high
    assert all(row["calibrated_output_error"] < 0.7 * row["output_error"] for row in rows.values())
    assert all(abs(row["gain"] - 1) < 0.05 and row["seconds"] > 0 for row in rows.values())
    assert 0.56 < rows["nvfp4"]["bytes"] < 0.57 and 1 < rows["float8_e4m3fn"]["bytes"] < 1.001
    assert f"{rows['w4a8']['calibrated_output_error']:.2%}" in demo.text(result) and "CPU s/10^9" in demo.text(result)


def test_the_kept_files_can_be_used_again(shown, capsys):
    _, folder = shown
    assert main(["check", str(folder / "stack.json"), "--strict"]) == 0
    assert main(["check", str(folder / "other_family.json")]) == 1
    capsys.readouterr()


def test_json_is_one_object(small, capsys):
    assert main(["demo", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["ok"] and err == ""


def test_it_can_fail(small, capsys, monkeypatch):
    """An engine that forgets alpha: the demo must not call that right."""
    monkeypatch.setattr(terms, "effective_scale", lambda layer, patch: layer.strength)
    assert main(["demo"]) == 1
    assert "FAILED: not as expected: fuse -> stack -> quantize" in capsys.readouterr().out


def test_a_refusal_that_does_not_come_is_seen(small, tmp_path):
    demo_files.make_files(tmp_path)
    row = demo.refused("fine", demo_files.document(tmp_path, "fine"), "LF201")
    assert not row.ok and "not refused" in row.verdict


def test_nothing_is_left_behind(small, monkeypatch, tmp_path):
    monkeypatch.setattr(demo.tempfile, "tempdir", str(tmp_path))
    demo.run()
    assert not list(tmp_path.iterdir())


def test_stochastic_rounding_is_on_the_grid_and_without_bias():
    codes = torch.linspace(-448, 448, 20001, dtype=torch.float64)
    rounded = stochastic(codes, torch.Generator().manual_seed(1)).double()
    assert torch.equal(rounded.to(torch.float8_e4m3fn).double(), rounded)
    assert torch.all((rounded - codes).abs() <= torch.exp2(codes.abs().clamp(min=2**-6).log2().floor() - 3))
    many = stochastic(torch.full((40000,), 1.03, dtype=torch.float64), torch.Generator().manual_seed(1)).double()
    assert abs(many.mean() - 1.03) < 0.002


def test_delta_reads_every_dialect(tmp_path):
    up, down = torch.randn(32, 4, dtype=torch.float64), torch.randn(4, 32, dtype=torch.float64)
    for number, (down_name, up_name) in enumerate(demo_files.tiny.DIALECTS.values()):
        path = tmp_path / f"{number}.safetensors"
        save_small(path, {f"x.q{down_name}": down, f"x.q{up_name}": up, "x.q.alpha": torch.tensor(2.0)})
        assert torch.allclose(demo.delta(demo.FileSource(path), "x.q"), 0.5 * up @ down)


# --- the parts of demo --host that need no host ----------------------------------------------------------------------


def test_a_black_picture_is_told_from_a_picture(tmp_path):
    for name, pixels, count in (("black", bytes(300), 1), ("noise", bytes(range(256)), 256)):
        (tmp_path / name).write_bytes(png(pixels=chunk(b"IDAT", zlib.compress(pixels))))
        assert demo_host.colours(tmp_path / name) == count


def test_the_wrong_workflow_differs_by_two_wires():
    right, wrong = demo_host.workflow(), demo_host.wrong_workflow()
    assert [name for name in right if right[name] != wrong[name]] == ["fuse", "stack", "check"]
    assert wrong["fuse"]["inputs"]["model"] == ["stack", 0]


def test_a_refusal_is_told_once():
    error = {"message": "Custom validation failed for node", "details": "model - stack first"}
    assert comfyui.refusal({"node_errors": {"1": {"errors": [error, error]}}}) == "stack first"
    assert comfyui.refusal({"error": {"message": "no"}}) == "{'message': 'no'}" and comfyui.refusal("text") == "text"


def test_a_path_that_holds_no_comfyui(monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(FoundryError, match="holds no ComfyUI"):
        comfyui.find_tree()
    (tmp_path / "comfy").mkdir()
    (tmp_path / "main.py").touch()
    assert comfyui.find_tree() == tmp_path.resolve() and comfyui.comfyui_version(tmp_path) == "unknown version"
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    assert comfyui.comfyui_version(tmp_path) == "1.2.3"


def test_on_a_narrow_terminal_the_verdicts_are_apart(shown):
    result, _ = shown
    lines = demo.text(result, 79).splitlines()
    tables = [line for line in lines if "  " in line]
    assert max(map(len, tables)) <= 79 and not any("..." in line for line in tables)
    assert "quantized file -> bake: refused: LF201" in lines
    assert demo.text(result, 200) == demo.text(result)
