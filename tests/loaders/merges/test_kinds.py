"""Every kind of adapter a file may hold, merged with others and baked: the same weights as under the stack.

And a disk that is full at any write, a cancel at any step: the file that was there stays, and nothing else does.
"""

from __future__ import annotations

import errno
import json
import math
import os

import pytest
import torch
from fakes import Cancelled
from forms import Maker
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.merge.ranks import Policy
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.disk.writer import FileSink
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.merges.extracting import Wish, extract_lora
from lora_foundry.loaders.merges.merging import merge
from merged_files import a_base, a_request, apart, baked, some_loras
from safetensors.torch import load_file, save_file
from writing_parts import layers_of, native

STORED = {
    "up": "lora_up.weight", "down": "lora_down.weight", "mid": "lora_mid.weight", "magnitude": "dora_scale",
    "blocks": "oft_blocks", "turns": "oft_R.weight", "turned": "boft_R", "sizes": "boft_s",
    "rescale": "rescale", "set": "set_weight", "diff": "diff",
    **{name: f"{name}.weight" for name in ("a1", "a2", "b1", "b2")},
}  # fmt: skip
ADDITIVE = {
    "Tucker convolutions": lambda m: m.tucker() if m.kernel else m.lora(),
    "LoHa": lambda m: m.loha(),
    "Tucker LoHa": lambda m: m.loha_tucker() if m.kernel else m.loha(),
    "LoKr": lambda m: m.lokr(),
    "LoKr of two split factors": lambda m: m.lokr("split", "split"),
    "LoKr with a core": lambda m: m.lokr("whole", "core") if m.kernel else m.lokr("whole", "split"),
    "LoHa beside LoKr": lambda m: m.loha() if m.out % 8 else m.lokr("split"),
    "no alpha": lambda m: m.lora(None),
    "whole differences": lambda m: m.diff(),
}
DEPENDENT = {
    "DoRA by rows": lambda m: m.dora(m.lora(), "rows"),
    "DoRA of a LoHa by columns": lambda m: m.dora(m.loha(), "columns"),
    "OFT": lambda m: m.oft(),
    "BOFT": lambda m: m.boft(),
    "OFT of PEFT": lambda m: m.oft_in(),
    "BOFT of PEFT": lambda m: m.boft_in(1),
    "GLoRA": lambda m: m.set() if m.kernel else m.glora(),  # of convolutions it is not read
    "whole weights": lambda m: m.set(),
}


def a_file(path, shapes, make, rank=3, seed=0):
    """One adapter for every layer it can be cut for, in kohya's flat names with ComfyUI's layers."""
    tensors = {}
    for number, name in enumerate(layers_of(shapes)):
        out, inp, *kernel = shapes[name]
        if out % 8 or inp % 4:
            continue
        form = make(Maker(out, inp, tuple(kernel), rank, seed + number))
        module = f"diffusion_model.{name.removesuffix('.weight')}"
        stored = {part: STORED.get(part) or f"{form.kind.replace('loha', 'hada').replace('lokr', 'lokr')}_{part}"
                  for part in form.parts}  # fmt: skip
        tensors |= {f"{module}.{stored[part]}": tensor for part, tensor in form.parts.items()}
        if form.alpha is not None and form.kind != "diff":
            tensors[f"{module}.alpha"] = torch.tensor(form.alpha)
    assert tensors
    save_small(path, tensors)
    return path


@pytest.mark.parametrize("kind", ADDITIVE)
def test_kinds_that_add_are_merged_without_a_base(tmp_path, kind):
    base, (plain,) = a_base(tmp_path, "sd15"), some_loras(tmp_path, "sd15", 1)
    one = a_file(tmp_path / "one.safetensors", native("sd15"), ADDITIVE[kind])
    two = a_file(tmp_path / "two.safetensors", native("sd15"), ADDITIVE[kind], rank=2, seed=50)
    pairs = [(one, -0.7), (plain, 1.0), (two, 0.4), (one, 0.25)]
    merged = merge(a_request(tmp_path, [path for path, _ in pairs], strengths=[n for _, n in pairs]))
    assert merged.proof["error"] < 1e-6
    assert apart(baked(base, [(merged.path, 1.0)]), baked(base, pairs)) < 1e-6


@pytest.mark.parametrize("kind", DEPENDENT)
def test_kinds_that_depend_on_the_base_are_refused_without_it_and_its_change_with_it(tmp_path, kind):
    base, (plain,) = a_base(tmp_path, "sd15"), some_loras(tmp_path, "sd15", 1)
    one = a_file(tmp_path / "one.safetensors", native("sd15"), DEPENDENT[kind])
    pairs = [(plain, 0.5), (one, 0.8)]
    request = a_request(tmp_path, [path for path, _ in pairs], strengths=[n for _, n in pairs])
    with pytest.raises(FoundryError) as caught:
        merge(request)
    assert caught.value.code == "LF502", caught.value
    assert "base" in str(caught.value) and not request.out.exists()
    merged = merge(a_request(tmp_path, [path for path, _ in pairs], strengths=[n for _, n in pairs], base=base))
    assert merged.proof["error"] < 1e-6
    assert apart(baked(base, [(merged.path, 1.0)]), baked(base, pairs)) < 1e-6
    small = merge(a_request(tmp_path, [one], strengths=[0.8], base=base, policy=Policy("error", 0.05)))
    assert small.proof["error"] <= 0.05 and small.path.stat().st_size > 0


def test_a_lora_at_nothing_changes_no_byte_but_the_recipe(tmp_path):
    loras = some_loras(tmp_path, "wan", 3)
    without = load_file(merge(a_request(tmp_path, loras[:2])).path)
    merged = merge(a_request(tmp_path, loras, strengths=(1.0, 0.7, 0.0)))
    found = load_file(merged.path)
    assert found.keys() == without.keys() and all(torch.equal(found[name], without[name]) for name in found)
    assert merged.proof["shares"][2]["share"] is None


@pytest.mark.parametrize("policy", [None, Policy("rank", 80, uniform=True), Policy("energy", 1.0)])
def test_ranks_above_the_layer_lose_nothing(tmp_path, policy):
    """Two LoRAs of rank 40 on layers a few numbers wide: as many values as there are, however many are asked for."""
    base = a_base(tmp_path, "wan")
    paths = [a_file(tmp_path / f"{n}.safetensors", native("wan"), lambda m: m.lora(), 40, 90 * n) for n in range(2)]
    merged = merge(a_request(tmp_path, paths, policy=policy))
    assert merged.proof["error"] < 1e-6
    assert apart(baked(base, [(merged.path, 1.0)]), baked(base, [(paths[0], 1.0), (paths[1], 0.7)])) < 1e-6
    there = [entry for entry in merged.entries.values() if entry.rank]
    assert policy is None or all(e.rank <= min(e.shape[0], math.prod(e.shape[1:])) for e in there)


def test_ranks_and_alphas_by_patterns_and_rank_stabilised_scales_are_read(tmp_path):
    """A PEFT folder: ``rank_pattern``, ``alpha_pattern`` and ``use_rslora`` of its config count in the merge."""
    base, (plain,) = a_base(tmp_path, "wan"), some_loras(tmp_path, "wan", 1)
    paths = []
    for number, rslora in enumerate((False, True)):
        folder = tmp_path / f"peft{number}"
        folder.mkdir()
        tensors, random = {}, torch.Generator().manual_seed(number)
        for block, rank in (("q", 2), ("k", 6)):
            module = f"base_model.model.blocks.0.self_attn.{block}"
            out, inp = native("wan")[f"blocks.0.self_attn.{block}.weight"]
            tensors[f"{module}.lora_A.weight"] = torch.randn(rank, inp, generator=random)
            tensors[f"{module}.lora_B.weight"] = torch.randn(out, rank, generator=random)
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": rslora}
        config |= {"rank_pattern": {"blocks.0.self_attn.k": 6}, "alpha_pattern": {"blocks.0.self_attn.k": 3}}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "adapter_model.safetensors")
        paths.append(folder / "adapter_model.safetensors")
        scales = {a.module.rpartition(".")[2]: a.scale for a in open_lora(paths[-1]).adapters}
        assert scales == pytest.approx({"q": 4 / 2**0.5, "k": 3 / 6**0.5} if rslora else {"q": 2.0, "k": 0.5})
    pairs = [(paths[0], 1.0), (paths[1], -0.5), (plain, 0.3)]
    merged = merge(a_request(tmp_path, [path for path, _ in pairs], strengths=[n for _, n in pairs]))
    assert apart(baked(base, [(merged.path, 1.0)]), baked(base, pairs)) < 1e-6


# --- nothing half written, whatever happens


def steps_of(run):
    """How often a run tells of its progress."""
    steps = []
    run(lambda *step: steps.append(step))
    return len(steps)


def stopped_at(number):
    """Progress that cancels at its call of this number."""
    calls = iter(range(1 << 30))

    def told(done, total):
        if next(calls) == number:
            raise Cancelled

    return told


@pytest.mark.parametrize("policy", [None, Policy("rank", 2)])
def test_a_cancel_at_any_moment_leaves_the_file_that_was_there(tmp_path, policy):
    loras = some_loras(tmp_path, "wan", 3)
    merge(a_request(tmp_path, loras, strengths=(1.0, 1.0, 1.0)))
    request = a_request(tmp_path, loras, policy=policy)
    other = tmp_path / "other"
    other.mkdir()
    count = steps_of(lambda told: merge(a_request(other, loras, policy=policy), told))
    before, bytes_ = sorted(tmp_path.rglob("*")), request.out.read_bytes()
    assert count >= 10 * (1 if policy is None else 2)
    for number in range(count):
        with pytest.raises(Cancelled):
            merge(request, stopped_at(number))
        assert sorted(tmp_path.rglob("*")) == before and request.out.read_bytes() == bytes_


class FullAt:
    """A disk that takes ``left`` writes more."""

    def __init__(self, left):
        self.left, self.put = left, FileSink.put

    def __call__(self, sink, *args):
        self.left -= 1
        if self.left < 0:
            sink._file = self
        return self.put(sink, *args)

    def seek(self, offset):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self):
        pass


@pytest.mark.parametrize("verb", ["merge", "resize", "extract"])
def test_a_disk_that_is_full_at_any_write_is_one_sentence_and_leaves_the_file_that_was_there(
    tmp_path, monkeypatch, verb
):
    loras, base = some_loras(tmp_path, "wan", 2), a_base(tmp_path, "wan")
    request = a_request(tmp_path, loras, policy=Policy("rank", 2) if verb == "resize" else None)
    save_small(tmp_path / "tuned.safetensors", baked(base, [(loras[0], 1.0)]))

    def run():
        if verb == "extract":
            extract_lora(Wish(tmp_path / "tuned.safetensors", base, request.out, Policy("rank", 2)))
        else:
            merge(request)

    run()
    before, bytes_ = sorted(tmp_path.iterdir()), request.out.read_bytes()
    for writes in range(200):
        disk = FullAt(writes)
        with monkeypatch.context() as patch:
            patch.setattr(FileSink, "put", lambda sink, *args, disk=disk: disk(sink, *args))
            try:
                run()
                break
            except FoundryError as error:
                assert error.code == "file" and "No space left" in error.what and "\n" not in str(error)  # noqa: PT017
        assert sorted(tmp_path.iterdir()) == before and request.out.read_bytes() == bytes_
    assert 10 < writes < 199, "and with room it is made"
