"""Merged files against the stack they stand for: the same baked weights, whatever the LoRAs' dialects and kinds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from fakes import Cancelled
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.json_merge import MERGE_KEY
from lora_foundry.engine.merge.ranks import Policy
from lora_foundry.loaders.disk import writer
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.documents.document import Row
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.merges.merging import for_error, gather, merge
from lora_foundry.loaders.merges.record import told_apart
from lora_foundry.loaders.names.outgoing import DIALECTS, DIFFUSERS, text_key
from lora_foundry.loaders.plans.describe import describe
from merged_files import FC1, STRENGTHS, TEXT, a_base, a_request, apart, baked, baked_rows, of_kind, some_loras, wanted
from safetensors.torch import load_file
from writing_parts import native, written

FAMILIES = ("flux", "wan", "qwen-image", "sdxl")


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_exact_merge_is_the_stack(tmp_path, family, count):
    base, loras = a_base(tmp_path, family), some_loras(tmp_path, family, count)
    merged = merge(a_request(tmp_path, loras))
    stack = baked(base, list(zip(loras, STRENGTHS, strict=False)))
    assert apart(baked(base, [(merged.path, 1.0)]), stack) < 1e-6
    assert merged.proof["error"] < 1e-6 and all(abs(each["share"] - 1) < 1e-5 for each in merged.proof["shares"])
    assert not {finding.severity for finding in merged.gathered.findings} & {"error", "warning"}


@pytest.mark.parametrize("family", ["flux", "sd15", "z-image", "wan"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_holds_the_same_sum_with_and_without_a_base(tmp_path, family, dialect):
    base, loras = a_base(tmp_path, family), some_loras(tmp_path, family, 3)
    stack = baked(base, list(zip(loras, STRENGTHS, strict=False)))
    for named in (None, base):
        merged = merge(a_request(tmp_path, loras, dialect=dialect, base=named))
        assert apart(baked(base, [(merged.path, 1.0)]), stack) < 1e-6


def test_the_same_deltas_give_the_same_file_whatever_their_dialect_and_order(tmp_path):
    """Numbers that are equal give equal bytes: three dialects of one LoRA beside another, listed either way."""
    files = []
    for dialect in DIALECTS:
        path = tmp_path / f"{dialect}.safetensors"
        written(path, "wan", dialect, native("wan"), seed=1)
        files.append(path)
    other = tmp_path / "other.safetensors"
    written(other, "wan", "kohya", native("wan"), seed=2)
    tensors = []
    for path, turned in [(path, turned) for path in files for turned in (False, True)]:
        pair = [(path, 0.5), (other, 0.7)][:: -1 if turned else 1]
        merged = merge(a_request(tmp_path, [p for p, _ in pair], strengths=[n for _, n in pair]))
        tensors.append(load_file(merged.path))
    assert all(set(each) == set(tensors[0]) for each in tensors)
    assert all(torch.equal(each[name], tensors[0][name]) for each in tensors for name in tensors[0])


def test_text_encoders_are_merged_at_their_own_strength(tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    deltas = [
        written(one, "sdxl", "kohya", native("sdxl"), 1, TEXT),
        written(two, "sdxl", DIFFUSERS, native("sdxl"), 2, TEXT),
    ]
    first, second = wanted([one, two])
    pair = (replace(first, clip_strength=0.5), replace(second, clip_strength=-2.0))
    merged = merge(replace(a_request(tmp_path, []), loras=pair))
    lora = open_lora(merged.path)
    assert {text_key(adapter.module) for adapter in lora.text_adapters} == set(TEXT)
    for adapter in lora.text_adapters:
        up, down = (lora.read(dict(adapter.parts)[part]) for part in ("up", "down"))
        key = text_key(adapter.module)
        sum_ = 0.5 * deltas[0][key] - 2.0 * deltas[1][key]
        assert torch.allclose(up @ down * adapter.scale, sum_, atol=1e-4)


def in_dtype(loras, dtype):
    for path in loras:
        stored = load_file(path).items()
        save_small(path, {name: tensor.to(dtype) for name, tensor in stored if not name.endswith("alpha")})


@pytest.mark.parametrize(("dtype", "lost"), [("bf16", 1.1e-3), ("fp16", 2.2e-4)])
@pytest.mark.parametrize("dialect", ["comfyui", DIFFUSERS])
def test_16_bits_lose_no_more_than_is_printed_and_nothing_at_equal_or_power_of_two_strengths(
    tmp_path, dtype, lost, dialect
):
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    loras = some_loras(tmp_path, "wan", 3)
    in_dtype(loras, kind)
    merged = merge(a_request(tmp_path, loras, dtype=dtype, dialect=dialect))
    assert 0 < merged.proof["error"] < lost
    equal = merge(a_request(tmp_path, loras, strengths=[0.5, 2.0, -1.0], dtype=dtype, dialect=dialect))
    assert equal.proof["error"] < 1e-7
    stored = load_file(equal.path)
    assert {t.dtype for name, t in stored.items() if t.ndim} == {kind}


def test_kinds_that_depend_on_the_base_need_it_and_are_then_its_change(tmp_path):
    base, (plain,) = a_base(tmp_path, "wan"), some_loras(tmp_path, "wan", 1)
    stored = load_file(plain)
    module = "diffusion_model.blocks.0.self_attn.q"
    rows = stored[f"{module}.lora_up.weight"].shape[0]
    dora = tmp_path / "dora.safetensors"
    save_small(dora, {**stored, f"{module}.dora_scale": torch.rand(rows, 1) + 0.5})
    with pytest.raises(FoundryError) as caught:
        merge(a_request(tmp_path, [plain, dora]))
    assert caught.value.code == "LF502" and "base" in caught.value.fix
    merged = merge(a_request(tmp_path, [plain, dora], base=base))
    assert apart(baked(base, [(merged.path, 1.0)]), baked(base, [(plain, 1.0), (dora, 0.7)])) < 1e-6


def test_block_weights_and_strengths_are_those_of_the_bake(tmp_path):
    base, loras = a_base(tmp_path, "flux"), some_loras(tmp_path, "flux", 2)
    first, second = wanted(loras)
    pair = (replace(first, blocks="double=0.5"), replace(second, blocks="single=0"))
    merged = merge(replace(a_request(tmp_path, []), loras=pair))
    rows = (Row(str(loras[0]), 1.0, blocks="double=0.5"), Row(str(loras[1]), 0.7, blocks="single=0"))
    assert apart(baked(base, [(merged.path, 1.0)]), baked_rows(base, rows)) < 1e-6


def test_the_recipe_names_inputs_by_hash_and_no_folder(tmp_path):
    loras = some_loras(tmp_path, "wan", 2)
    merged = merge(a_request(tmp_path, loras))
    told = json.loads(read_header(merged.path).metadata[MERGE_KEY])
    assert [each["sha256"] for each in told["recipe"]["inputs"]] == [open_lora(path).info.sha256 for path in loras]
    assert [each["strength"] for each in told["recipe"]["inputs"]] == [1.0, 0.7]
    assert told["recipe_sha256"] == merged.recipe.sha256 and told["proof"]["error"] < 1e-6
    assert set(told["proof"]["layers"]) == set(merged.entries) and len(told["proof"]["shares"]) == 2
    assert str(tmp_path) not in json.dumps(read_header(merged.path).metadata)
    assert describe(merged.path)["writers"] == "LoRA Foundry (merge)"


# --- what is refused: one sentence, nothing written


def nothing_written(tmp_path, request, code, *words):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FoundryError) as caught:
        merge(request)
    assert caught.value.code == code, caught.value
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_input_is_one_sentence_and_nothing_is_written(tmp_path):
    loras = some_loras(tmp_path, "wan", 2)
    (tmp_path / "flux").mkdir()
    (other,) = some_loras(tmp_path / "flux", "flux", 1)
    nothing_written(tmp_path, a_request(tmp_path, [loras[0], other]), "LF504", "wan", "flux", "lora0.safetensors")
    nothing_written(tmp_path, a_request(tmp_path, [loras[0], tmp_path / "gone.safetensors"]), "file", "gone")
    nothing_written(tmp_path, a_request(tmp_path, loras, strengths=[0.0, 0.0]), "LF502", "weight other than 0")
    nothing_written(tmp_path, a_request(tmp_path, loras, dialect="peft"), "LF505", "peft", "comfyui")
    nothing_written(tmp_path, a_request(tmp_path, loras, method="dare"), "LF501", "dare")
    stored = load_file(loras[0])
    name = next(name for name in stored if name.endswith("lora_up.weight"))
    stored[name][0, 0] = float("nan")
    bad = tmp_path / "bad.safetensors"
    save_small(bad, stored)
    nothing_written(tmp_path, a_request(tmp_path, [loras[1], bad]), "LF502", "bad.safetensors", "NaN")
    same = a_request(tmp_path, loras)
    nothing_written(tmp_path, replace(same, out=loras[1]), "usage", "one of the LoRAs")
    nothing_written(tmp_path, replace(same, out=tmp_path / "no" / "m.safetensors"), "file", "folder")


def test_a_merge_that_loses_more_than_is_allowed_is_refused(tmp_path):
    loras = some_loras(tmp_path, "wan", 2)
    nothing_written(tmp_path, a_request(tmp_path, loras, dtype="bf16", max_error=1e-5), "LF506", "1e-05", "bf16")
    assert merge(a_request(tmp_path, loras, dtype="bf16", max_error=0.01)).proof["error"] > 1e-5


def test_fp16_takes_loras_of_any_dtype(tmp_path):
    merged = merge(a_request(tmp_path, some_loras(tmp_path, "wan", 3), dtype="fp16"))
    assert 2.2e-4 < merged.proof["error"] < 3.5e-4, "both factors are rounded"


def test_bf16_that_rounds_most_of_the_sum_is_refused_until_more_is_allowed(tmp_path):
    loras = some_loras(tmp_path, "wan", 3)
    in_dtype(loras, torch.bfloat16)
    request = a_request(tmp_path, loras, strengths=[0.9, 0.8, 0.7], dtype="bf16")
    nothing_written(tmp_path, request, "LF506", "0.0011 is allowed", "max_error")
    merged = merge(replace(request, max_error=1.7e-3, policy=for_error(1.7e-3, "bf16")))
    assert 1.1e-3 < merged.proof["error"] < 1.7e-3
    assert open_lora(merged.path).adapters[0].rank == sum(open_lora(path).adapters[0].rank for path in loras)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("most", [0.003, 0.005, 0.02])
def test_an_error_alone_shrinks_in_every_dtype_and_holds(tmp_path, dtype, most):
    """Rounding takes its part of both factors, which are new numbers: many small values, so that the error is used."""
    for seed in range(2):
        random = torch.Generator().manual_seed(seed)
        fall = torch.exp(-0.6 * torch.arange(10))
        stored = {}
        for block in range(20):
            module = f"diffusion_model.blocks.{block}.self_attn.q"
            stored[f"{module}.lora_up.weight"] = (torch.randn(96, 10, generator=random) * fall).bfloat16()
            stored[f"{module}.lora_down.weight"] = torch.randn(10, 96, generator=random).bfloat16()
        save_small(tmp_path / f"{seed}.safetensors", stored)
    loras = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    merged = merge(a_request(tmp_path, loras, dtype=dtype, max_error=most, policy=for_error(most, dtype)))
    assert 0.8 * most < merged.proof["error"] <= most
    assert min(entry.rank for entry in merged.entries.values()) < 20


def test_a_full_disk_or_a_cancel_leaves_nothing(tmp_path, monkeypatch):
    loras = some_loras(tmp_path, "wan", 2)
    before = sorted(tmp_path.iterdir())
    modules = len(gather(a_request(tmp_path, loras)).units)
    for stop in (0, modules // 2, modules - 1):

        def cancel(done, total, stop=stop):
            if done == stop:
                raise Cancelled

        with pytest.raises(Cancelled):
            merge(a_request(tmp_path, loras), cancel)
        assert sorted(tmp_path.iterdir()) == before
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: type("U", (), {"free": 10})())
    nothing_written(tmp_path, a_request(tmp_path, loras), "file", "free")


def test_a_lora_that_makes_weights_larger_is_refused(tmp_path):
    wide = {
        "img_in.lora_A.weight": torch.randn(2, 6), "img_in.lora_B.weight": torch.randn(8, 2),
        "double_blocks.0.img_attn.norm.query_norm.scale": torch.ones(4),
    }  # fmt: skip
    save_small(tmp_path / "control.safetensors", wide)
    nothing_written(tmp_path, a_request(tmp_path, [tmp_path / "control.safetensors"]), "LF504", "img_in")


def test_a_module_of_loha_beside_plain_factors_is_one_module(tmp_path):
    """Kinds that have factors stay factors: no full-size delta in the file."""
    shapes = native("qwen-image")
    save_small(tmp_path / "loha.safetensors", of_kind("loha", shapes))
    loras = [tmp_path / "loha.safetensors", *some_loras(tmp_path, "qwen-image", 1)]
    merged = merge(a_request(tmp_path, loras))
    assert all(entry.rank for entry in merged.entries.values())


# --- smaller files


def size_of(merged):
    return merged.path.stat().st_size


def test_a_size_is_kept_and_used(tmp_path):
    loras = some_loras(tmp_path, "flux", 3)
    whole = merge(a_request(tmp_path, loras))
    for share, dialect in ((0.7, "comfyui"), (0.4, "kohya"), (0.6, DIFFUSERS)):
        asked = int(size_of(whole) * share)
        merged = merge(a_request(tmp_path, loras, policy=Policy("size", asked), dialect=dialect))
        assert 0.9 * asked < size_of(merged) <= asked and 0 < merged.proof["error"] < 1


def test_a_size_is_kept_to_2_percent_where_modules_are_not_tiny(tmp_path):
    for seed in range(2):
        down, up = torch.randn(64, 512), torch.randn(512, 64)
        names = (f"diffusion_model.blocks.{block}.self_attn.q" for block in range(6))
        stored = {
            f"{name}.{part}.weight": t * (seed + 1)
            for name in names
            for part, t in (("lora_up", up), ("lora_down", down))
        }
        save_small(tmp_path / f"{seed}.safetensors", stored)
    asked = 1_000_000
    loras = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    merged = merge(a_request(tmp_path, loras, policy=Policy("size", asked)))
    assert 0.98 * asked < size_of(merged) <= asked


def test_error_energy_and_rank_are_kept(tmp_path):
    loras = some_loras(tmp_path, "wan", 3)
    merged = merge(a_request(tmp_path, loras, policy=for_error(0.2, "fp32"), max_error=0.2))
    assert 0.1 < merged.proof["error"] <= 0.2
    merged = merge(a_request(tmp_path, loras, policy=Policy("energy", 0.99)))
    assert merged.proof["error"] <= 0.1 and merged.recipe.settings["policy"] == "energy 0.99"
    merged = merge(a_request(tmp_path, loras, policy=Policy("rank", 2, uniform=True)))
    assert {entry.rank for entry in merged.entries.values()} == {2}
    nothing_written(tmp_path, a_request(tmp_path, loras, policy=Policy("rank", 2), max_error=0.01), "LF506", "0.01")


def test_a_module_without_rank_is_left_out_and_counted(tmp_path):
    loras = some_loras(tmp_path, "wan", 2)
    merged = merge(a_request(tmp_path, loras, policy=Policy("energy", 0.3)))
    gone = [key for key, entry in merged.entries.items() if entry.rank == 0]
    assert gone and not any(name.startswith(f"{gone[0]}.") for name in load_file(merged.path))
    assert merged.proof["error"] == pytest.approx(0.7**0.5, abs=0.1)


@pytest.mark.parametrize("method", ["tsv", "ties", "keep first"])
def test_other_methods_tell_what_they_keep(tmp_path, method):
    merged = merge(a_request(tmp_path, some_loras(tmp_path, "qwen-image", 3), method=method))
    assert merged.proof["error"] > 1e-3 and all(each["share"] is not None for each in merged.proof["shares"])


def test_a_lora_of_text_encoders_only_is_merged_too(tmp_path):
    (plain,) = some_loras(tmp_path, "sdxl", 1)
    module = f"lora_te1_{FC1}"
    only = {f"{module}.lora_up.weight": torch.ones(12, 2), f"{module}.lora_down.weight": torch.ones(2, 8)}
    save_small(tmp_path / "te.safetensors", only)
    merged = merge(a_request(tmp_path, [plain, tmp_path / "te.safetensors"]))
    assert merged.entries[module].rank == open_lora(plain).text_adapters[0].rank + 2


def test_a_quantized_base_gives_names_and_its_numbers_only_when_told_to(tmp_path):
    """Most LoRAs need no number of the base: the document of a bake on an fp8 base can be merged."""
    base, loras = a_base(tmp_path, "wan"), some_loras(tmp_path, "wan", 2)
    fp8 = {n: t.to(torch.float8_e4m3fn) if t.ndim > 1 else t for n, t in load_file(base).items()}
    save_small(tmp_path / "fp8.safetensors", fp8)
    merged = merge(a_request(tmp_path, loras, base=tmp_path / "fp8.safetensors"))
    assert merged.proof["error"] < 1e-6 and merged.recipe.settings["base"] == "fp8.safetensors"
    stored = load_file(loras[0])
    module = "diffusion_model.blocks.0.self_attn.q"
    rows = stored[f"{module}.lora_up.weight"].shape[0]
    save_small(tmp_path / "dora.safetensors", {**stored, f"{module}.dora_scale": torch.rand(rows, 1) + 0.5})
    request = a_request(tmp_path, [tmp_path / "dora.safetensors", loras[1]], base=tmp_path / "fp8.safetensors")
    merged.path.unlink()
    nothing_written(tmp_path, request, "LF201", "fp8.safetensors")
    assert merge(replace(request, on_quantized_base="dequantize")).proof["error"] < 1e-5


@pytest.mark.parametrize(("error", "allowed", "texts"), [
    (0.00113, 0.0011, ("0.00113", "0.0011")), (0.81, 0.1, ("0.81", "0.1")), (0.10000001, 0.1, ("0.10000001", "0.1")),
])  # fmt: skip
def test_an_error_is_told_with_digits_that_set_it_above_what_is_allowed(error, allowed, texts):
    assert tuple(told_apart(error, allowed).values()) == texts
