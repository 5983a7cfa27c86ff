"""Base models on disk: bare names, shards, what is refused, what a fingerprint tells apart, files that change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.tensors import InMemory, TensorInfo
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk import source as source_module
from lora_foundry.loaders.disk.source import FileSource, base_fingerprint
from safetensors.torch import load_file, save_file

NET = {
    "blocks.0.q.weight": torch.arange(12.0).reshape(3, 4),
    "blocks.0.q.bias": torch.ones(3, dtype=torch.bfloat16),
    "blocks.1.q.weight": torch.full((4096, 3), 0.5, dtype=torch.float16),
    "norm.weight": torch.tensor(2.0),
}


def save(path: Path, tensors: dict, prefix: str = "", metadata: dict | None = None) -> Path:
    save_file({prefix + name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def shards(folder: Path, count: int = 2, index: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    names, weight_map = list(NET), {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        part = {name: NET[name] for name in names[i::count]}
        save(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def assert_is_net(source) -> None:
    assert set(source.tensors) == set(NET)
    for name, tensor in NET.items():
        info = source.tensors[name]
        assert (info.name, info.dtype, info.shape) == (name, tensor.dtype, tuple(tensor.shape))
        read = source.read(name)
        assert read.is_contiguous()
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "model.", "net."])
def test_names_come_out_bare(prefix, tmp_path):
    base = open_checkpoint(save(tmp_path / "a.safetensors", NET, prefix, {"format": "pt"}))
    assert_is_net(base)
    assert base.prefix == prefix
    assert base.metadata == {"format": "pt"}
    assert base.files == (tmp_path / "a.safetensors",)
    assert base.label == "a.safetensors"
    assert base.quantized is None


def test_other_models_of_an_all_in_one_checkpoint_are_left_out(tmp_path):
    others = {
        "first_stage_model.decoder.weight": torch.ones(2),
        "cond_stage_model.position_ids": torch.ones(1, 77).long(),
    }
    path = tmp_path / "a.safetensors"
    save_file({**others, **{"model.diffusion_model." + name: tensor for name, tensor in NET.items()}}, path)
    assert_is_net(open_checkpoint(path))


@pytest.mark.parametrize("prefix", ["model.", "net."])
def test_a_word_that_only_some_names_begin_with_is_no_prefix(prefix, tmp_path):
    path = save(tmp_path / "a.safetensors", {prefix + "a.weight": torch.ones(2), "b.weight": torch.ones(2)})
    assert open_checkpoint(path).prefix == ""


@pytest.mark.parametrize("form", ["folder", "index", "folder without index", "one shard", "folder of one file"])
def test_shards_are_one_model(form, tmp_path):
    folder = shards(tmp_path / "model", index=form in ("folder", "index"), count=1 if "file" in form else 2)
    part = {"index": "model.safetensors.index.json", "one shard": "model-00002-of-00002.safetensors"}.get(form)
    base = open_checkpoint(folder / part if part else folder)
    assert_is_net(base)
    assert len(base.files) == (1 if "file" in form else 2)


def test_symlinked_shards_of_a_download_cache_are_read(tmp_path):
    real, folder = shards(tmp_path / "blobs"), tmp_path / "snapshot"
    folder.mkdir()
    for file in real.iterdir():
        (folder / file.name).symlink_to(file)
    assert_is_net(open_checkpoint(folder))


@pytest.mark.parametrize("index", [True, False])
def test_missing_shard_is_named(index, tmp_path):
    folder = shards(tmp_path / "model", index=index)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FoundryError, match=r"1 are missing: model-00002-of-00002\.safetensors"):
        open_checkpoint(folder)


def test_tensor_that_only_the_index_knows_is_named(tmp_path):
    folder = shards(tmp_path / "model")
    index = folder / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"]["blocks.9.q.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(data))
    with pytest.raises(FoundryError, match="does not hold the tensor 'blocks.9.q.weight'"):
        open_checkpoint(folder)


def test_tensor_in_two_shards_is_refused(tmp_path):
    for i in (1, 2):
        save(tmp_path / f"m-0000{i}-of-00002.safetensors", NET)
    with pytest.raises(FoundryError, match="'blocks.0.q.bias', and so does m-00001-of-00002"):
        open_checkpoint(tmp_path)


OUTSIDE = [
    "../a.safetensors",
    "/etc/a.safetensors",
    r"..\a.safetensors",
    r"C:\a.safetensors",
    "C:a",
    "x/../../a",
    "",
    ".",
    3,
    "a\0",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_index_that_points_outside_its_folder_is_refused(name, tmp_path):
    (tmp_path / "sub").mkdir()
    save(tmp_path / "a.safetensors", NET)
    index = tmp_path / "sub" / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(FoundryError, match="outside its folder"):
        open_checkpoint(index)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "{}", '{"weight_map": {}}', '{"weight_map": [1]}', "[" * 100_000, "\xff"]
)
def test_damaged_index_is_refused(text, tmp_path):
    index = tmp_path / "m.safetensors.index.json"
    index.write_bytes(text.encode("latin-1"))
    with pytest.raises(FoundryError, match="index"):
        open_checkpoint(index)


def test_folder_without_or_with_several_models_says_what_it_holds(tmp_path):
    with pytest.raises(FoundryError, match="holds no .safetensors model, only: nothing"):
        open_checkpoint(tmp_path)
    for name in ("a", "b"):
        save(tmp_path / f"{name}.safetensors", NET)
    with pytest.raises(FoundryError, match="several models: a.safetensors, b.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "pair", [("lora_up.weight", "lora_down.weight"), ("lora_A.default.weight", "lora_B.default.weight")]
)
def test_lora_given_as_base_is_refused(pair, tmp_path):
    tensors = {f"diffusion_model.q.{i}.{part}": torch.ones(2, 2) for i in range(3) for part in (*pair, "alpha")}
    with pytest.raises(FoundryError, match="is a LoRA, not a model"):
        open_checkpoint(save(tmp_path / "a.safetensors", tensors))


def test_file_without_tensors_is_refused(tmp_path):
    with pytest.raises(FoundryError, match="contains no tensors"):
        open_checkpoint(save(tmp_path / "a.safetensors", {}, metadata={"a": "b"}))


FP8 = torch.ones(4, 4).to(torch.float8_e4m3fn)
HEADER = {"_quantization_metadata": '{"layers": {}}'}
STORED = [
    ({}, {}, None),
    ({}, HEADER, None),
    ({"a.weight": FP8}, {}, "float8_e4m3fn without scales"),
    ({"a.weight": FP8.to(torch.float8_e5m2)}, {}, "float8_e5m2 without scales"),
    ({"a.weight": FP8, "a.scale_weight": torch.ones(1)}, {}, "scaled fp8 (scale_weight)"),
    ({"scaled_fp8": torch.ones(2).to(torch.float8_e4m3fn)}, {}, "scaled fp8 (scale_weight)"),
    (
        {"a.weight": FP8, "a.weight_scale": torch.ones(())},
        HEADER,
        "float8_e4m3fn with weight_scale (_quantization_metadata)",
    ),
    ({"a.weight": FP8, "a.weight_scale": torch.ones(())}, {}, "float8_e4m3fn with weight_scale"),
    ({"a.weight": FP8, "a.weight_scale": torch.ones(()), "a.comfy_quant": torch.ones(5).byte()}, {}, "comfy_quant"),
    ({"a.weight": torch.ones(8, 1).char(), "a.weight_codebook": torch.ones(16)}, HEADER, "w4a8 (weight_codebook)"),
    ({"a.weight": torch.ones(8, 1).byte()}, {}, "uint8 weights"),
    ({"a.qweight": torch.ones(8, 4).to(torch.int8)}, {}, "int8 weights"),
    ({"a.position_ids": torch.ones(1, 77).long()}, {}, None),
]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize(
    ("tensors", "metadata", "quantized"), STORED, ids=[str(row[2]) + str(i) for i, row in enumerate(STORED)]
)
def test_how_the_weights_are_stored_is_told_from_the_header(tensors, metadata, quantized, prefix, tmp_path):
    assert open_checkpoint(save(tmp_path / "a.safetensors", NET | tensors, prefix, metadata)).quantized == quantized


def test_quantized_text_encoder_beside_the_model_does_not_count(tmp_path):
    path = tmp_path / "a.safetensors"
    net = {"model.diffusion_model." + name: tensor for name, tensor in NET.items()}
    save_file({**net, "text_encoders.a.weight": FP8, "text_encoders.a.scale_weight": torch.ones(1)}, path)
    assert open_checkpoint(path).quantized is None


def test_read_tensor_lives_on_after_its_file(tmp_path):
    path = save(tmp_path / "a.safetensors", NET)
    source = FileSource(path)
    tensor = source.read("blocks.0.q.weight")
    expected = load_file(path)["blocks.0.q.weight"]
    path.unlink()
    assert torch.equal(tensor, expected)
    with pytest.raises(FoundryError, match="does not exist"):
        source.read("blocks.0.q.weight")


@pytest.mark.parametrize("change", ["truncated", "longer", "rewritten", "replaced"])
def test_file_changed_after_planning_is_refused(change, tmp_path):
    path = save(tmp_path / "a.safetensors", NET)
    source = FileSource(path)
    content = path.read_bytes()
    if change == "replaced":
        (tmp_path / "b").write_bytes(content)
        (tmp_path / "b").replace(path)
    else:
        path.write_bytes({"truncated": content[:-1], "longer": content + b"1", "rewritten": content}[change])
    os.utime(path, ns=(1, source.headers[0].mtime_ns + (change in ("rewritten", "replaced"))))
    for name in NET:
        with pytest.raises(FoundryError, match="changed during read"):
            source.read(name)


def test_file_cut_in_the_middle_of_a_read_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.safetensors", NET)
    source = FileSource(path)
    real = Path.open

    def cut(self, *args, **kwargs):
        os.truncate(self, 100)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", cut)
    with pytest.raises(FoundryError, match="changed during read"):
        source.read("blocks.1.q.weight")


def test_fingerprint_is_of_the_weights_not_of_the_packaging(tmp_path):
    one = base_fingerprint(FileSource(save(tmp_path / "a.safetensors", NET, metadata={"a": "b"})))
    assert one == base_fingerprint(open_checkpoint(save(tmp_path / "b.safetensors", NET, "model.diffusion_model.")))
    assert one == base_fingerprint(open_checkpoint(shards(tmp_path / "model")))
    assert one == base_fingerprint(Held())
    assert len(one) == 64


class Held(InMemory):
    label = "memory"
    tensors = {name: TensorInfo(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in NET.items()}

    def read(self, name):
        return NET[name]


def test_fingerprint_sees_names_dtypes_shapes_and_both_ends(tmp_path):
    weight = NET["blocks.1.q.weight"]
    first, last = weight.clone(), weight.clone()
    first[0, 0], last[-1, -1] = 1, 1
    variants = [
        NET,
        {**NET, "blocks.1.q.weight": first},
        {**NET, "blocks.1.q.weight": last},
        {**NET, "blocks.1.q.weight": weight.reshape(3, 4096)},
        {**NET, "blocks.1.q.weight": weight.view(torch.bfloat16)},
        {**{name: tensor for name, tensor in NET.items() if name != "norm.weight"}, "norm.bias": NET["norm.weight"]},
    ]
    prints = {base_fingerprint(FileSource(save(tmp_path / f"{i}.safetensors", v))) for i, v in enumerate(variants)}
    assert len(prints) == len(variants)


def test_fingerprint_reads_only_the_edges(tmp_path, monkeypatch):
    source = FileSource(save(tmp_path / "a.safetensors", NET))
    sizes, real = [], source_module._read
    monkeypatch.setattr(
        source_module, "_read", lambda header, begin, end: sizes.append(end - begin) or real(header, begin, end)
    )
    base_fingerprint(source)
    assert max(sizes) == 4096
