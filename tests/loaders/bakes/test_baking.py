"""Files from plans: made once, only as far as something changed, in one pass for one base, and never overwriting."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bake_parts import FP8, bake, content, planned
from fakes import Cancelled, same_all
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import LOW, LOWEST
from lora_foundry.loaders.bakes import baking, rot
from lora_foundry.loaders.bakes.baking import (
    CACHED,
    MADE,
    UNCHANGED,
    BakeOptions,
    FileRequest,
    bake_files,
    resolve,
)
from lora_foundry.loaders.bakes.cache import BakeCache
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk import filling, ranges, reading, writer
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.documents.document import parse_document
from lora_foundry.loaders.plans.planner import plan_document


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A tiny Wan of two blocks, a LoRA on each of them and one on both."""
    folder = tmp_path_factory.mktemp("files")
    base = tiny.state_dict("wan", width=128, layers=2)
    save_small(folder / "base.safetensors", base)
    for name, modules in (("first", r"^blocks\.0\."), ("second", r"^blocks\.1\."), ("both", r"^blocks\.")):
        save_small(folder / f"{name}.safetensors", tiny.lora(base, rank=8, alpha=8, modules=modules, seed=len(name)))
    return folder


def a_plan(files: Path, base: str = "base", **weights: float):
    stack = [{"path": f"{name}.safetensors", "strength": strength} for name, strength in weights.items()]
    return planned(files, stack, f"{base}.safetensors")


def test_an_unchanged_plan_does_nothing_and_tells_the_same(files, tmp_path, monkeypatch):
    out = tmp_path / "out.safetensors"
    first = bake(a_plan(files, first=1.0, both=0.5), out)
    written = (out.stat().st_mtime_ns, out.stat().st_ino)
    monkeypatch.setattr(baking, "bake_all", None)  # nothing is to be baked
    again = bake(a_plan(files, both=0.5, first=1.0), out)
    assert (first.state, again.state) == (MADE, UNCHANGED)
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == written
    assert again.sha256 == first.sha256 and again.files == first.files == (out,)
    assert again.report.gains == pytest.approx(first.report.gains[::-1])
    assert again.report.relative_error == pytest.approx(first.report.relative_error)
    assert (again.report.bytes_read, again.report.bytes_written) == (0, 0)
    assert again.report.touched == first.report.touched and again.report.reused == first.report.tensors


@pytest.mark.parametrize("memory", ["auto", LOW, LOWEST])
def test_a_changed_strength_reads_only_what_it_touches(files, tmp_path, memory):
    out, fresh = tmp_path / "out.safetensors", tmp_path / "fresh.safetensors"
    bake(a_plan(files, first=1.0, second=0.5), out, memory=memory)
    changed = bake(a_plan(files, first=1.0, second=0.7), out, memory=memory)
    anew = bake(a_plan(files, first=1.0, second=0.7), fresh, memory=memory)
    assert changed.state == MADE and same_all(content(out), content(fresh))
    assert changed.report.reused == changed.report.tensors - 10 and anew.report.reused == 0
    assert changed.report.gains == pytest.approx(anew.report.gains)
    assert changed.report.bytes_read < anew.report.bytes_read


@pytest.mark.parametrize("way", ["kernel", "by hand", "without pread", "in shards"])
def test_what_is_unchanged_goes_from_file_to_file(way, files, tmp_path, monkeypatch):
    """The earlier result is not read into this program, whatever the system can do."""
    if way in ("by hand", "without pread"):
        monkeypatch.delattr(os, "copy_file_range", raising=False)
        monkeypatch.setattr(ranges, "PIECE", 1000)
    if way == "without pread":
        for name in ("pread", "pwrite"):
            monkeypatch.delattr(os, name, raising=False)
    how = {"max_shard": 600_000} if way == "in shards" else {}
    out, fresh = tmp_path / "out.safetensors", tmp_path / "fresh.safetensors"
    old = bake(a_plan(files, first=1.0, second=0.5), out, **how).files
    copied, opened = [], set()
    copy, take, fill = writer.FileSink.copy, reading.FileReader._tensor, filling.Filler.fill

    def copying(sink, name, extent):
        copied.append(name)
        copy(sink, name, extent)

    def taking(reader, header, *more):
        opened.add(header.path)
        return take(reader, header, *more)

    def put(filler, header, *more):  # into memory of the bake, for a GPU
        opened.add(header.path)
        return fill(filler, header, *more)

    monkeypatch.setattr(filling.Filler, "fill", put)
    monkeypatch.setattr(writer.FileSink, "copy", copying)
    monkeypatch.setattr(reading.FileReader, "_tensor", taking)
    changed = bake(a_plan(files, first=1.0, second=0.7), out, **how)
    assert changed.report.reused == changed.report.tensors - 10 and len(copied) >= changed.report.reused
    assert opened == {files / "base.safetensors"}
    names = [file.name.replace("out.b-", "out-") for file in changed.files]  # shards take turns with two sets of names
    assert names == [file.name for file in old] and all(file.exists() for file in changed.files)
    bake(a_plan(files, first=1.0, second=0.7), fresh, fresh=True)
    place = tmp_path / "out.safetensors.index.json" if way == "in shards" else out
    assert same_all(content(place), content(fresh))


def test_an_earlier_result_that_ends_too_soon_leaves_it_as_it_is(files, tmp_path, monkeypatch):
    out = tmp_path / "out.safetensors"
    bake(a_plan(files, first=1.0, second=0.5), out)
    before, copy = out.read_bytes(), writer.copy_range

    def short(source, begin, end, *more):
        return copy(source, begin, end - 1, *more)

    monkeypatch.setattr(writer, "copy_range", short)
    with pytest.raises(FoundryError, match="the earlier result ends within"):
        bake(a_plan(files, first=1.0, second=0.7), out)
    assert out.read_bytes() == before and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_bake_that_fails_for_another_reason_does_not_read_the_earlier_result_again(files, tmp_path, monkeypatch):
    """Which may be many gigabytes on a slow disk, with nothing on the screen."""
    out = tmp_path / "out.safetensors"
    bake(a_plan(files, first=1.0), out)
    before = out.read_bytes()
    lora = FileSource(files / "second.safetensors")
    save_small(files / "huge.safetensors", {name: lora.read(name).float() * 1e25 for name in lora.tensors})
    monkeypatch.setattr(rot, "is_as_hashed", lambda path: pytest.fail("the earlier result is read"))
    with pytest.raises(FoundryError, match="LF304"):
        bake(a_plan(files, first=1.0, huge=1.0), out)
    assert out.read_bytes() == before


@pytest.mark.parametrize("memory", ["auto", LOW, LOWEST])
def test_odd_tensors_pass_through(files, tmp_path, memory):
    odd = {"none": torch.zeros(0, 5), "empty": torch.zeros(5, 0), "deep": torch.zeros(3, 0, 4), "one": torch.tensor(2)}
    odd |= {"flags": torch.tensor([[True], [False]]), "nan": torch.full((3, 4), float("nan"))}
    save_small(tmp_path / "odd.safetensors", tiny.state_dict("wan", width=128, layers=2) | odd)
    document = {"base": str(tmp_path / "odd.safetensors"), "stack": [{"path": str(files / "first.safetensors")}]}
    out = tmp_path / "out.safetensors"
    bake(plan_document(parse_document(document, "test")), out, memory=memory)
    stored = content(out)
    for name, tensor in odd.items():
        assert stored[name].shape == tensor.shape and stored[name].dtype == tensor.dtype
        assert torch.equal(stored[name].isnan(), tensor.isnan())
        assert torch.equal(stored[name].nan_to_num(), tensor.nan_to_num())


def test_what_was_baked_is_made_again_when_the_file_is_not_as_it_was(files, tmp_path):
    out, plan = tmp_path / "out.safetensors", a_plan(files, first=1.0)
    bake(plan, out)
    good = content(out)
    with out.open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"\xff\xff")
    assert bake(plan, out).state == MADE and bake(plan, out).state == UNCHANGED
    out.unlink()
    assert bake(plan, out).report.reused == 0 and same_all(content(out), good)
    assert bake(plan, out, fresh=True).state == MADE


def test_a_base_changed_in_the_middle_is_seen(files, tmp_path):
    base = tmp_path / "base.safetensors"
    base.write_bytes((files / "base.safetensors").read_bytes())
    for name in ("first",):
        (tmp_path / f"{name}.safetensors").write_bytes((files / f"{name}.safetensors").read_bytes())
    out = tmp_path / "out.safetensors"
    bake(a_plan(tmp_path, first=1.0), out)
    with base.open("r+b") as file:
        file.seek(base.stat().st_size // 2)
        file.write(b"\x00\x3c" * 64)
    again = bake(a_plan(tmp_path, first=1.0), out)
    assert again.state == MADE and again.report.reused == 0


def test_a_scale_changed_beside_a_lora_is_seen(files, tmp_path):
    out, cache = tmp_path / "out.safetensors", BakeCache(tmp_path / "cache", 10**9)
    folder, base = tmp_path / "lora", tiny.state_dict("wan", width=128, layers=2)
    folder.mkdir()
    factors = tiny.lora(base, rank=8, alpha=8)
    save_small(folder / "peft.safetensors", {name: factors[name] for name in factors if not name.endswith(".alpha")})
    hashes = set()
    for alpha in (8, 4):
        (folder / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": alpha}))
        document = {"base": str(files / "base.safetensors"), "stack": [{"path": str(folder / "peft.safetensors")}]}
        plan = plan_document(parse_document(document, "test"))
        baked = bake(plan, out, cache=cache)
        assert baked.state == MADE and baked.report.reused < baked.report.tensors
        assert baked.report.gains == [pytest.approx(1.0, abs=0.05)]
        hashes.add(baked.sha256)
    assert len(hashes) == 2


def test_several_documents_read_one_base_once(files, tmp_path, monkeypatch):
    reads: list[str] = []
    real = baking.bake_all
    monkeypatch.setattr(baking, "bake_all", lambda orders, *more: reads.append(len(orders)) or real(orders, *more))
    plans = [a_plan(files, first=1.0), a_plan(files, second=0.5), a_plan(files, both=0.3)]
    outs = [tmp_path / f"{number}.safetensors" for number in range(3)]
    finishes = [FP8, Finish("none"), Finish("int8_convrot", keep=())]
    steps: list[tuple[int, int]] = []
    wanted = [FileRequest(resolve(*each), out) for *each, out in zip(plans, finishes, outs, strict=True)]
    baked = bake_files(wanted, BakeOptions(), lambda done, total: steps.append((done, total)))
    assert reads == [3] and [each.files for each in baked] == [(out,) for out in outs]
    assert steps == sorted(steps) and steps[-1][0] == steps[-1][1]
    for plan, finish, out in zip(plans, finishes, outs, strict=True):
        alone = tmp_path / "alone.safetensors"
        bake(plan, alone, finish, fresh=True)
        assert same_all(content(alone), content(out))


def test_an_error_in_one_of_several_leaves_nothing_new(files, tmp_path):
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise Cancelled

    outs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    wanted = [FileRequest(resolve(a_plan(files, first=1.0), FP8), out) for out in outs]
    with pytest.raises(Cancelled):
        bake_files(wanted, BakeOptions(), stop)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FoundryError, match="LF203.*Nothing would change"):
        bake_files([wanted[0], FileRequest(resolve(a_plan(files), Finish()), outs[1])], BakeOptions())
    assert list(tmp_path.iterdir()) == []


def test_shards_hold_the_same_and_are_known_again(files, tmp_path):
    one, many = tmp_path / "one.safetensors", tmp_path / "many.safetensors"
    plan = a_plan(files, both=1.0)
    bake(plan, one)
    sharded = bake(plan, many, max_shard=600_000)
    assert len(sharded.files) > 2 and all(path.stat().st_size < 1_200_000 for path in sharded.files)
    assert same_all(content(tmp_path / "many.safetensors.index.json"), content(one))
    assert bake(plan, many, max_shard=600_000).state == UNCHANGED
    changed = bake(a_plan(files, both=1.0, first=0.1), many, max_shard=600_000)
    assert changed.state == MADE and changed.report.reused > 0


def test_the_cache_serves_what_it_holds_and_lends_its_tensors(files, tmp_path):
    cache = BakeCache(tmp_path / "cache", 10**9)
    first, second, third = (tmp_path / f"{name}.safetensors" for name in "abc")
    made = bake(a_plan(files, first=1.0, second=0.5), first, cache=cache)
    served = bake(a_plan(files, first=1.0, second=0.5), second, cache=cache)
    assert (made.state, served.state) == (MADE, CACHED) and first.read_bytes() == second.read_bytes()
    assert served.report.gains == pytest.approx(made.report.gains)
    changed = bake(a_plan(files, first=1.0, second=0.7), third, cache=cache)
    assert changed.report.reused == changed.report.tensors - 10
    assert bake(a_plan(files, first=1.0, second=0.5), second, cache=cache).state == UNCHANGED


def test_fresh_does_not_serve_what_the_cache_holds(files, tmp_path):
    out, cache, plan = tmp_path / "out.safetensors", BakeCache(tmp_path / "cache", 10**9), a_plan(files, first=1.0)
    stored = bake(plan, out, cache=cache).entry.path
    good, state = out.read_bytes(), stored.stat()
    with stored.open("r+b") as file:  # a disk that forgot a bit: nothing but the contents shows it
        file.seek(-5, 2)
        file.write(b"\xff\xff")
    os.utime(stored, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert bake(plan, out, cache=cache, fresh=True).state == MADE and out.read_bytes() == good


@pytest.mark.parametrize("max_error", [0.0255, 0.02, 0.012])
def test_a_budget_keeps_the_worst_layers_and_says_what_it_costs(files, tmp_path, max_error):
    plain, held = tmp_path / "plain.safetensors", tmp_path / "held.safetensors"
    plan = a_plan(files, both=1.0)
    without = bake(plan, plain)
    finish = Finish("float8_e4m3fn", max_error=max_error)
    within = bake(plan, held, finish)
    assert without.report.relative_error > max_error >= within.report.relative_error
    assert within.cost.error_without == pytest.approx(without.report.relative_error)
    grown = held.stat().st_size - plain.stat().st_size
    assert within.cost.extra_bytes == pytest.approx(grown, abs=6_000) and 0 < len(within.cost.kept) < 20
    stored = FileSource(held).tensors
    assert all(stored[name].dtype == torch.bfloat16 for name in within.cost.kept)
    again, third = (bake(plan, held, finish) for _ in range(2))
    assert again == replace(within, state=UNCHANGED, report=again.report)
    assert replace(again.report, peak_rss_bytes=0) == replace(third.report, peak_rss_bytes=0)  # the process grows


def test_a_budget_that_holds_anyway_keeps_nothing(files, tmp_path):
    plan = a_plan(files, both=1.0)
    baked = bake(plan, tmp_path / "out.safetensors", Finish("float8_e4m3fn", max_error=0.05))
    assert baked.cost.kept == () and baked.cost.extra_bytes == 0


@pytest.mark.parametrize(
    ("finish", "message"),
    [
        (Finish("float8_e4m3fn", max_error=1e-5), "LF204.*cannot be held"),
        (Finish("float8_e4m3fn", max_error=0.0015), "LF204"),
        (Finish("float8_e4m3fn", max_error=0.0), "max_error is 0"),
        (Finish("none", torch.float16, max_error=0.1), "needs a quantized format"),
    ],
)
def test_a_budget_that_cannot_be_held_is_refused(files, tmp_path, finish, message):
    with pytest.raises(FoundryError, match=message):
        bake(a_plan(files, both=1.0), tmp_path / "out.safetensors", finish)
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_names_the_budget_and_not_what_followed_from_it(files, tmp_path):
    out = tmp_path / "out.safetensors"
    bake(a_plan(files, both=1.0), out, Finish("float8_e4m3fn", max_error=0.02))
    finish = json.loads(open_checkpoint(out).metadata["lora_foundry"])["recipe"]["finish"]
    assert finish["max_error"] == 0.02 and "keep_names" not in finish


def test_a_host_that_names_fewer_linears_gets_another_result_in_the_same_file(files, tmp_path):
    """The second bake once said "unchanged" over a file in which all of them are quantized."""
    out, plan = tmp_path / "out.safetensors", a_plan(files, first=1.0)
    first = bake(plan, out)
    few = frozenset(resolve(plan, FP8).quantized[:3])
    second = bake(plan, out, replace(FP8, linears=few))
    assert (first.state, second.state) == (MADE, MADE) and second.sha256 != first.sha256
    assert {name.removesuffix("_scale") for name in content(out) if name.endswith("weight_scale")} == few
    assert second.report.quantized == 3 < first.report.quantized
    assert bake(plan, out, replace(FP8, linears=few)).state == UNCHANGED
