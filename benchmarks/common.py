"""What the benchmarks share: CPU time of runs, here or in processes, in-memory plans, a ComfyUI to compare with."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pack_here as pack_here  # first: it makes the rest importable
import torch
from lora_foundry.cli.demo.comfyui import find_tree
from lora_foundry.engine.plan import STACK, Adapter, Base, Coverage, Layer, LoRAInfo, Patch, Plan, Target
from lora_foundry.engine.tensors import InMemory, TensorInfo

WEIGHT = "blocks.0.linear.weight"


class Memory(InMemory):
    """A TensorSource over a dict."""

    label = "memory"

    def __init__(self, values: dict[str, torch.Tensor]) -> None:
        self.values = values
        self.tensors = {name: TensorInfo(name, value.dtype, tuple(value.shape)) for name, value in values.items()}

    def read(self, name: str) -> torch.Tensor:
        """The tensor itself."""
        return self.values[name]


class Discard:
    """A sink that forgets, as done with a tensor as a file is: what is timed is the work, not the keeping."""

    on_disk = True

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Nothing."""


class Keep:
    """A sink that keeps what it gets, by name."""

    on_disk = False

    def __init__(self) -> None:
        self.values: dict[str, torch.Tensor] = {}

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Hold the tensor itself, no copy."""
        self.values[name] = tensor


def plan_of(weight: torch.Tensor, factors: Sequence[tuple[torch.Tensor, torch.Tensor, float]], copies: int) -> Plan:
    """A plan of ``copies`` times the same weight and (up, down, strength) LoRAs on each, everything in memory."""
    names = [f"blocks.{number}.linear.weight" for number in range(copies)]
    plan = Plan(Base("memory", None, Memory(dict.fromkeys(names, weight))))
    for number, (up, down, strength) in enumerate(factors):
        parts = (("up", "up"), ("down", "down"))
        shape = (up.shape[0], down.shape[1])
        patches = tuple(Patch(Adapter(name, "lora", parts, down.shape[0], shape), Target(name)) for name in names)
        source = Memory({"up": up, "down": down})
        info = LoRAInfo(f"{number}", f"{number:064x}", "down/up")
        plan = plan.add(Layer(STACK, info, strength, patches, Coverage(copies, copies), factors=source))
    return plan


def cpu_ms(*jobs: Callable[[], object], rounds: int = 5) -> list[float]:
    """Best CPU time in ms of each job; they take turns, so that a busy machine is busy for all of them."""
    forget_freed_memory()
    best = [float("inf")] * len(jobs)
    for _ in range(rounds):
        for number, job in enumerate(jobs):
            start = time.process_time()
            job()
            best[number] = min(best[number], 1e3 * (time.process_time() - start))
    return best


def best_of(modes: Sequence[str], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The least of each number that the running benchmark prints as JSON when called with ``--mode MODE FOLDER``.

    Each mode runs in a process of its own, ``rounds`` times, all modes in turn.
    """
    seen = [{mode: _child(mode, folder) for mode in modes} for _ in range(rounds)]
    return {mode: {key: min(each[mode][key] for each in seen) for key in seen[0][mode]} for mode in modes}


def _child(mode: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1], "--mode", mode, str(folder)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "LORA_FOUNDRY_HOME": str(folder / "home")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def forget_freed_memory() -> None:
    """Make glibc give tensors over 4 MB back to the system when they are freed, as a fresh process does.

    Else a job may find pages that another one had fetched: ComfyUI's times halve after ours have run.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if tune is not None:
        tune(-3, 4 << 20)  # M_MMAP_THRESHOLD


def enter_host() -> Path:
    """Make ``comfy`` importable; returns the ComfyUI tree (COMFYUI_PATH, or the one tests/install.py installs)."""
    tree = Path(os.environ["COMFYUI_PATH"]) if os.environ.get("COMFYUI_PATH") else find_tree()
    if tree is None:
        sys.exit("needs a ComfyUI: set COMFYUI_PATH, or run: python tests/install.py host")
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    sys.argv = ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    return tree
