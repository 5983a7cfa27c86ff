"""Calibrations as files: whole or not there, damaged ones told, matched with what is baked by what differs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from fakes import a_layer, a_plan, noise, random_delta
from lora_foundry.cli.demo.formats import made_up_inputs
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.calibration import Origin, Range
from lora_foundry.engine.collect import Collector
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import FP8_MATMUL, Finish
from lora_foundry.engine.formats import DEFAULT
from lora_foundry.loaders.bakes.calibrated import calibration_findings
from lora_foundry.loaders.bakes.calibrations import (
    KEY,
    calibration_names,
    calibration_path,
    find_calibration,
    load_calibration,
    save_calibration,
    spilled,
)
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.disk.source import FileSource

Q, K = "blocks.0.self_attn.q.weight", "blocks.0.self_attn.k.weight"
WIDTH = 256


def collected(*weights: str, size: int = 256, tokens: int = 400, **more) -> Collector:
    found, inputs = Collector(size, **more), made_up_inputs(WIDTH, tokens=tokens)[0][None]
    for each in weights or (Q, K):
        found.add(each, inputs)
    return found


def a_plan_of(*layers, width: int = WIDTH):
    return a_plan({Q: noise((64, width), 0.02, 1), K: noise((64, width), 0.02, 2)}, *layers, family="wan")


def wanted(calibration, *layers, format: str = "nvfp4", **more):
    return blueprint(a_plan_of(*layers), Finish(format, calibration=calibration, **more), {"fingerprint": "f" * 64})


def style(strength: float = 1.0, name: str = "style.safetensors"):
    return a_layer([random_delta(Q, (64, WIDTH), 4, 0.001, 5)], strength, name=name)


def origin_of(made, *others: str) -> Origin:
    """What a MODEL of this result would say of itself."""
    base = made.recipe["base"]
    return Origin(base["name"], base["fingerprint"], tuple(made.recipe["layers"]), others)


def saved(path: Path, origin: Origin | None = None, **more):
    save_calibration(path, collected(**more), origin or Origin())
    return load_calibration(path)


def forged(path: Path, gram: torch.Tensor, held: torch.Tensor | None = None, **seen):
    """A calibration that nothing collected."""
    told = {
        "schema": 1, "origin": asdict(Origin()), "ranges": {Q: {"amax": 1.0, "rms": 0.5, "tokens": 9, **seen}},
        "sets": {Q: "0"},
    }  # fmt: skip
    held = torch.zeros(16, len(gram)) if held is None else held
    save_small(path, {"0.gram": gram, "0.held": held}, {KEY: json.dumps(told)})
    return load_calibration(path)


def test_other_inputs_with_the_same_ranges_are_another_calibration(tmp_path):
    """Ranges alone tell nothing of the size of blocks, nor of how inputs hang together."""
    gram = torch.eye(512)
    first = forged(tmp_path / "a.safetensors", gram)
    blocks = torch.cat([torch.eye(256)] * 2)
    assert forged(tmp_path / "b.safetensors", gram).identity == first.identity
    others = [(gram + 0.1,), (blocks,), (gram, torch.ones(16, 512))]
    found = {forged(tmp_path / "c.safetensors", *each).identity for each in others}
    assert len({first.identity, *found}) == 4


@pytest.mark.parametrize("shape", [(512, 100), (300, 200), (2048, 2048), (1280, 512)])
def test_a_block_of_a_size_that_is_never_collected_is_refused(tmp_path, shape):
    """A format that rotates columns cannot work with it, and the time it takes grows with the cube."""
    with pytest.raises(FoundryError, match="a.safetensors"):
        forged(tmp_path / "a.safetensors", torch.zeros(shape))


@pytest.mark.parametrize("seen", [{"tokens": 10**400}, {"amax": 1e39}, {"amax": 10**400}])
def test_a_number_beyond_all_floats_is_refused(tmp_path, seen):
    with pytest.raises(FoundryError, match="a.safetensors"):
        forged(tmp_path / "a.safetensors", torch.eye(256), **seen)


@pytest.mark.parametrize("amax", [0.0, 1e-40])
def test_inputs_that_were_all_zero_are_not_divided_by_zero(amax):
    assert Range(amax, amax / 2, 9).input_scale is None


def test_what_was_collected_is_read_again(tmp_path):
    origin = origin_of(wanted(None, style()), "patches of another node")
    known, found = saved(tmp_path / "a.safetensors", origin), collected()
    assert known.ranges == found.ranges() and known.sets == found.sets() and known.origin == origin
    tensors = {info.name: make() for info, make in found.parts()}
    torch.testing.assert_close(known.inputs(K).gram, tensors["0.gram"])
    torch.testing.assert_close(known.inputs(K).held, tensors["0.held"])
    assert known.identity == saved(tmp_path / "b.safetensors", origin).identity
    assert known.identity != saved(tmp_path / "c.safetensors", origin, tokens=800).identity
    assert (known.name, known.covers(Q, WIDTH), known.covers(Q, 512), known.covers("other", WIDTH)) == (
        "a", True, False, False,
    )  # fmt: skip


def test_names_are_kept_below_the_users_folder():
    assert calibration_names() == []
    with pytest.raises(FoundryError, match=r"no calibration 'people'; there are: none"):
        find_calibration("people")
    saved(calibration_path("people"))
    before = calibration_path("people").stat()
    assert calibration_names() == ["people"] and find_calibration("people") == calibration_path("people")
    save_calibration(calibration_path("people"), collected(tokens=800), Origin())
    assert calibration_path("people").stat().st_ino != before.st_ino  # a new file in its place: nodes watch for that
    assert sorted(path.name for path in calibration_path("people").parent.iterdir()) == ["people.safetensors"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "..\\x", "con", " a", "a.", "x" * 300, 'a"b', "a\nb", "\udc80"])
def test_names_that_no_file_can_have_are_refused(name):
    with pytest.raises(FoundryError, match="A calibration cannot be called"):
        calibration_path(name)


def spoilt(path: Path, **changes) -> Path:
    """The calibration with other JSON in its header."""
    save_calibration(path, collected(), Origin())
    source = FileSource(path)
    told = {**json.loads(source.metadata[KEY]), **changes}
    save_small(path, {name: source.read(name) for name in source.tensors}, {KEY: json.dumps(told)})
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 99},
        {"ranges": {Q: {"amax": float("nan"), "rms": 1.0, "tokens": 4}}},
        {"ranges": {Q: {"amax": -1.0, "rms": 1.0, "tokens": 4}}},
        {"ranges": {Q: {"amax": 1.0}}},
        {"ranges": [1, 2]},
        {"sets": {Q: "7"}},
        {"sets": 3},
        {"origin": None},
        {"origin": {"layers": 3, "others": []}},
        {"origin": {**asdict(Origin()), "more": 1}},
        {"origin": {**asdict(Origin()), "base": 3}},
        {"origin": {**asdict(Origin()), "others": [1]}},
        {"origin": {**asdict(Origin()), "layers": [1]}},
        {"origin": {**asdict(Origin()), "layers": [{"lora": "a"}]}},
        {"origin": {**asdict(Origin()), "layers": [{"lora": "a", "sha256": "", "strength": "1"}]}},
        {"origin": {**asdict(Origin()), "layers": [{"lora": [], "sha256": "", "strength": 1.0}]}},
    ],
)
def test_a_header_that_makes_no_sense_is_told(tmp_path, changes):
    with pytest.raises(FoundryError, match="calibration") as refused:
        load_calibration(spoilt(tmp_path / "a.safetensors", **changes))
    assert refused.value.code == "file" and refused.value.fix


def test_another_file_is_no_calibration(tmp_path):
    save_small(tmp_path / "lora.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(FoundryError, match="is no calibration"):
        load_calibration(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("part", ["gram", "held"])
def test_numbers_that_are_none_are_refused_when_they_are_read(tmp_path, part):
    path = tmp_path / "a.safetensors"
    save_calibration(path, collected(), Origin())
    source = FileSource(path)
    tensors = {name: source.read(name) for name in source.tensors}
    tensors[f"0.{part}"][3, 3] = float("nan")
    save_small(path, tensors, {KEY: source.metadata[KEY]})
    with pytest.raises(FoundryError, match=rf"LF205.*no usable numbers for {Q}"):
        load_calibration(path).inputs(Q)


def test_matrices_may_lie_on_the_disk(tmp_path):
    with spilled(tmp_path / "spill") as allocate:
        found = collected(allocate=allocate)
        assert sum(each.stat().st_size for each in (tmp_path / "spill").glob(".*.tmp/*")) == 4 * WIDTH * WIDTH
        save_calibration(tmp_path / "a.safetensors", found, Origin())
    assert not list((tmp_path / "spill").glob(".*.tmp"))
    save_calibration(tmp_path / "b.safetensors", collected(), Origin())
    one, other = ((tmp_path / name).read_bytes() for name in ("a.safetensors", "b.safetensors"))
    assert one == other


def told(known, *layers, **more) -> list[str]:
    return [f"{each.text} {each.severity}" for each in calibration_findings(wanted(known, *layers, **more))]


def test_the_same_base_and_loras_are_silent(tmp_path):
    made = wanted(None, style(), style(0.5, "other.safetensors"))
    known = saved(tmp_path / "a.safetensors", origin_of(made))
    assert told(known, style(0.5, "other.safetensors"), style()) == []  # listed in another order
    assert calibration_findings(wanted(None, style())) == ()


def test_other_loras_are_named(tmp_path):
    known = saved(tmp_path / "a.safetensors", origin_of(wanted(None, style()), "a patch of another node"))
    (found,) = calibration_findings(wanted(known, style(0.5), style(1.0, "new.safetensors")))
    assert (found.code, found.severity) == ("LF205", "warning")
    for words in ("without style.safetensors x 0.5", "without new.safetensors x 1", "with style.safetensors x 1",
                  "a patch of another node"):  # fmt: skip
        assert words in found.seen


def test_another_base_is_refused(tmp_path):
    origin = replace(origin_of(wanted(None)), fingerprint="e" * 64)
    known = saved(tmp_path / "a.safetensors", origin)
    (found,) = calibration_findings(wanted(known))
    assert found.severity == "error" and "another file called base.safetensors" in found.seen
    assert told(saved(tmp_path / "b.safetensors", replace(origin, base="x"))) == ["LF205.base error"]


def test_what_does_not_say_where_it_is_from_is_a_note(tmp_path):
    assert told(saved(tmp_path / "a.safetensors")) == ["LF205.unknown note"]


def test_how_many_layers_are_known_is_told(tmp_path):
    known = saved(tmp_path / "a.safetensors", origin_of(wanted(None)))
    assert told(replace(known, sets={Q: "0"})) == ["LF205.partly note"]
    assert told(replace(known, sets={"other.weight": "0"})) == ["LF205.nothing error"]


def test_ranges_alone_serve_fp8_products_only(tmp_path):
    known = saved(tmp_path / "a.safetensors", origin_of(wanted(None)), size=0)
    assert told(known) == told(known, format=DEFAULT.name) == ["LF205.ranges note"]
    assert told(known, format=DEFAULT.name, matmul=FP8_MATMUL) == []
    assert told(replace(known, ranges={"x": Range(1.0, 1.0, 1)})) == ["LF205.nothing error"]
