"""Which device a bake gets from ComfyUI, what memory it asks for and gives back: every mode on a stub of the host."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from disk_fakes import File, on_disk
from fakes import a_layer, a_plan, noise, random_delta
from lora_foundry.engine.bake import bake_all
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.job import BakeRequest
from lora_foundry.engine.room import choose_device, device_bytes
from pretended_cuda import pretended_cuda
from sources import ROOT

COMFY = {"lora", "model_base", "model_detection", "model_management", "model_patcher"}
COMFY |= {"quant_ops", "sd", "utils", "weight_adapter"}
CUDA = ("cuda", 0)
# mode -> (the device ComfyUI computes on, bytes that are free there at first, bytes that unloading models frees)
MODES = {
    "normal": (CUDA, 0, 1 << 30),
    "--lowvram": (CUDA, 1 << 20, 1 << 30),
    "--novram": (CUDA, 1 << 20, 1 << 30),
    "dynamic VRAM": (CUDA, 1 << 20, 1 << 30),
    "--gpu-only": (CUDA, 1 << 20, 0),
    "--gpu-only, room for half": (CUDA, 12 << 20, 0),
    "two GPUs": (("cuda", 1), 1 << 30, 0),
    "ROCm": (CUDA, 1 << 30, 0),
    "--cpu": (("cpu",), 0, 0),
    "XPU": (("xpu", 0), 0, 0),
    "MPS": (("mps",), 0, 0),
    "DirectML": (("privateuseone", 0), 0, 0),
}


@pytest.fixture
def management():
    return SimpleNamespace(asked=[], given_back=0)


@pytest.fixture
def host(management, monkeypatch):
    """nodes/host.py over stubs of ComfyUI's modules."""
    package = ModuleType("lora_foundry.nodes")
    package.__path__ = [str(ROOT / "nodes")]
    comfy = ModuleType("comfy")
    stubs = {f"comfy.{name}": ModuleType(f"comfy.{name}") for name in COMFY}
    for name, stub in stubs.items():
        setattr(comfy, name.rpartition(".")[2], stub)
    stubs["comfy.model_management"].__dict__.update(vars(management))
    fresh = {"lora_foundry.nodes": package, "comfy": comfy, "folder_paths": ModuleType("folder_paths"), **stubs}
    ours = [name for name in sys.modules if name.startswith("lora_foundry.nodes")]
    with monkeypatch.context() as patch:
        for name in ours:
            patch.delitem(sys.modules, name)
        for name, module in fresh.items():
            patch.setitem(sys.modules, name, module)
        yield importlib.import_module("lora_foundry.nodes.host")
        for name in [name for name in sys.modules if name.startswith("lora_foundry.nodes.")]:
            del sys.modules[name]


def wanted():
    shape = (768, 768)
    names = [f"blocks.{number}.l.weight" for number in range(2)]
    values = {name: noise(shape, 0.02, seed) for seed, name in enumerate(names)}
    plan = on_disk(a_plan(values, a_layer([random_delta(name, shape, 8, 0.0002, 3) for name in names])))
    return blueprint(plan, Finish("float8_e4m3fn", keep=()))


@pytest.mark.parametrize("mode", MODES)
def test_a_bake_asks_for_memory_and_gives_it_back(mode, host, management):
    place, free, freed = MODES[mode]
    comfy = sys.modules["comfy.model_management"]
    with pretended_cuda() as machine:
        machine.limit = free

        def free_memory(size, device, keep_loaded=(), for_dynamic=False):
            management.asked.append((size, device))
            if mode != "dynamic VRAM" or not for_dynamic:  # else models that are loaded as they are needed stay
                machine.limit += min(freed, max(0, size - machine.limit))
            return []

        def soft_empty_cache(force=False):
            management.given_back += 1

        comfy.get_torch_device = lambda: torch.device(*place)
        comfy.free_memory, comfy.soft_empty_cache = free_memory, soft_empty_cache
        made = wanted()
        with host.borrowed(device_bytes([made])) as device:
            there = device.type == "cuda" and place != ("cuda", 1)
            chosen = choose_device([made], device)
            if chosen.type == "cpu" or there:
                (report,) = bake_all([BakeRequest(made, File())], device=chosen)
    assert device == (torch.device(*place) if place[0] == "cuda" else torch.device("cpu"))
    assert management.asked == ([(device_bytes([made]), torch.device(*place))] if place[0] == "cuda" else [])
    assert management.given_back == (place[0] == "cuda")
    on_cpu = place[0] != "cuda" or mode == "--gpu-only"
    assert chosen == (torch.device("cpu") if on_cpu else device)
    if mode != "two GPUs":
        assert ("CPU" in report.arithmetic) == on_cpu
        assert report.quantized == 2
    assert bool(host.why_cpu()) == (place[0] in ("xpu", "mps", "privateuseone"))


def test_memory_is_given_back_after_a_bake_that_failed(host, management):
    comfy = sys.modules["comfy.model_management"]
    comfy.get_torch_device = lambda: torch.device("cuda", 0)
    comfy.free_memory = lambda size, device, keep_loaded=(): []
    comfy.soft_empty_cache = lambda force=False: management.asked.append("back")
    with pytest.raises(RuntimeError), host.borrowed(1):
        raise RuntimeError
    assert management.asked == ["back"]
