"""nvfp4, mxfp8, w4a8 and w6a8 in a bake: the same bytes in every memory mode, markers, header, what does not fit."""

from __future__ import annotations

import json

import pytest
import torch
from disk_fakes import File, on_disk
from fakes import a_layer, a_plan, noise, random_delta, same_all
from lora_foundry.engine import gemm
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.finish import FP8_MATMUL, Finish
from lora_foundry.engine.formats import FORMATS
from lora_foundry.engine.memory import AUTO, LOW, LOWEST

NAMES = ("mxfp8", "nvfp4", "w4a8", "w6a8")
every = pytest.mark.parametrize("name", NAMES)
Q, ODD = "blocks.0.self_attn.q.weight", "blocks.0.self_attn.k.weight"
SHAPE = (2080, 1024)  # several row blocks


def plan(strength: float = 1.0):
    values = {Q: noise(SHAPE, 0.02, 1), ODD: noise((24, 1024), 0.02, 2), "head.head.weight": noise((16, 256), 0.02, 3)}
    lora = a_layer([random_delta(Q, SHAPE, 4, 0.0006, 5)], strength, name="style.safetensors")
    return a_plan(values, lora, family="wan")


@every
def test_every_memory_mode_gives_the_same_bytes(name, monkeypatch):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    results, reports = {}, {}
    for memory in (AUTO, LOW, LOWEST):
        sink = File()
        reports[memory] = bake(on_disk(plan()), Finish(name), sink, memory=memory)
        results[memory] = sink.values
    assert same_all(results[LOW], results[AUTO]) and same_all(results[LOWEST], results[AUTO])
    assert reports[LOWEST].layers == pytest.approx(reports[AUTO].layers)


@every
def test_what_is_written_is_what_the_blueprint_says(name):
    sink, wanted = File(), blueprint(plan(), Finish(name))
    report = bake(on_disk(plan()), Finish(name), sink)
    assert [(each.name, each.dtype, each.shape) for each in wanted.entries] == [
        (key, tensor.dtype, tuple(tensor.shape)) for key, tensor in sink.values.items()
    ]
    assert report.quantized == 1 and wanted.quantized == (Q,)
    assert report.bytes_written == wanted.nbytes
    assert sink.values[ODD].dtype == torch.bfloat16  # 24 rows fit no kernel


@every
def test_marker_and_header_say_the_same(name):
    for matmul in (None, FP8_MATMUL):
        finish = Finish(name, matmul=matmul) if matmul else Finish(name)
        sink = File()
        bake(on_disk(plan()), finish, sink)
        marker = json.loads(sink.values[Q.removesuffix("weight") + "comfy_quant"].numpy().tobytes())
        header = json.loads(blueprint(plan(), finish).quantization_metadata["_quantization_metadata"])
        assert header == {"format_version": "1.0", "layers": {Q.removesuffix(".weight"): marker}}
        full = {"full_precision_matrix_mult": True} if matmul is None and name in ("mxfp8", "nvfp4") else {}
        assert marker == {"format": FORMATS[name].host_name, **FORMATS[name].options, **full}
