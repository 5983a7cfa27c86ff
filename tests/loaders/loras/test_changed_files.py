"""Any change of any LoRA file: one sentence, or an answer that accounts for every tensor and can be computed."""

from __future__ import annotations

from dataclasses import replace

import torch
from fixtures_dialects import FIXTURES
from fixtures_parts import ZOO, numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_foundry.engine.adapters import delta_rows
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.loras.file import LoRAFile
from lora_foundry.loaders.names.dialects import SUFFIXES
from samples import ShapeSource

DTYPES = (torch.float32, torch.float8_e4m3fn, torch.int8, torch.bool, torch.complex64, torch.int64, torch.uint8)


def every_tensor_is_accounted_for(file, source):
    used = {name for adapter in file.adapters for _, name in adapter.parts} | set(file.scales) | set(file.unused)
    used |= set(file.text_encoder_tensors())
    beside = {a.module for a in file.adapters}
    left = [name for name in source.tensors if name not in used]
    assert all(name.endswith(".alpha") and name.removesuffix(".alpha") in beside for name in left), left
    assert bool(file.unused) == any(finding.code == "LF302" for finding in file.findings)


@st.composite
def changed_files(draw):
    shapes = dict(FIXTURES[draw(st.sampled_from(sorted(FIXTURES)))][1])
    names = sorted(shapes)
    for name in draw(st.lists(st.sampled_from(names), max_size=6)):
        shapes.pop(name, None)
    source = ShapeSource(shapes, {name: torch.tensor(4.0) for name in shapes if name.endswith(".alpha")})
    for name in draw(st.lists(st.sampled_from(names), max_size=3)):
        if name in source.tensors:
            shape = draw(st.lists(st.sampled_from([0, 1, 3, 8, 16, 640, 3072]), max_size=5).map(tuple))
            dtype = draw(st.sampled_from(DTYPES))
            old = source.tensors[name]
            source.tensors[name] = draw(st.sampled_from([replace(old, shape=shape), replace(old, dtype=dtype)]))
            source.values.pop(name, None)
    prefix = draw(st.sampled_from(["", "", "x.", "transformer.", "lora_unet_", "te1.", "_", ".", "model.model."]))
    source.tensors = {prefix + name: replace(info, name=prefix + name) for name, info in source.tensors.items()}
    source.values = {prefix + name: value for name, value in source.values.items()}
    return source


@settings(max_examples=300, deadline=None)
@given(changed_files())
def test_any_change_gives_an_answer_or_a_sentence(source):
    try:
        file = LoRAFile(source, "x.safetensors", "0" * 64)
    except FoundryError as error:
        assert error.code == "LF304" and error.fix
    else:
        every_tensor_is_accounted_for(file, source)


ENDINGS = [suffix.text.replace("|", "") for suffix in SUFFIXES] + [
    ".weight",
    ".bias",
    ".scale",
    ".x",
    "_scale",
    ".scale_weight",
]
MADE_UP = st.tuples(
    st.sampled_from(["m", "n.0.to_q", "n.0.to_k", "n.0.to_v", "lora_te_x", "", ".", "_norm"]),
    st.sampled_from(ENDINGS),
    st.sampled_from(["a", "default", "weight", "w1_a", "blocks", ""]),
    st.sampled_from(["", "", "", ".weight_scale", ".alpha", "_scale"]),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(MADE_UP, min_size=1, max_size=8), st.data())
def test_made_up_names_give_an_answer_or_a_sentence(names, data):
    shapes = st.lists(st.sampled_from([0, 1, 2, 6]), max_size=4)
    tensors = {
        module + ending.replace("*", wild) + more: torch.ones(data.draw(shapes)).to(data.draw(st.sampled_from(DTYPES)))
        for module, ending, wild, more in names
    }
    source = ShapeSource({}, tensors)
    try:
        file = LoRAFile(source, "x.safetensors", "0" * 64)
    except FoundryError as error:
        assert error.code == "LF304"
    else:
        every_tensor_is_accounted_for(file, source)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_accepted_can_be_computed(data):
    """Small real tensors, cut, stretched, dropped and mixed: what the loader takes the engine can use."""
    first, second = (dict(ZOO[data.draw(st.sampled_from(sorted(ZOO)))][2]) for _ in range(2))
    tensors = {**first, **{("m" if data.draw(st.booleans()) else "n") + k[1:]: v for k, v in second.items()}}
    names = sorted(tensors)
    for name in data.draw(st.lists(st.sampled_from(names), max_size=2)):
        shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), max_size=4))
        tensors[name] = numbers(*shape)
    for name in data.draw(st.lists(st.sampled_from(names), max_size=2)):
        tensors.pop(name, None)
    try:
        file = LoRAFile(ShapeSource({}, tensors), "x.safetensors", "0" * 64)
    except FoundryError as error:
        assert error.code == "LF304"
        return
    every_tensor_is_accounted_for(file, ShapeSource({}, tensors))
    for adapter in file.adapters:
        rows, *rest = adapter.delta_shape
        columns = 5 if adapter.kind in ("oft", "boft") else int(torch.tensor(rest).prod()) if rest else 1
        if adapter.kind == "oft_in" and (rows, adapter.rank) == (1, 1):
            rows, columns = 3, 2 * columns  # one block serves as many as there are, and rows may be any
        read = {part: file.read(name) for part, name in adapter.parts}
        delta = delta_rows(adapter, read, torch.ones(rows, columns))(slice(0, rows))
        assert delta.shape == (rows, columns)
