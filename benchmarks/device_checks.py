"""Is a bake on this device right? Against the CPU in fp32, the same again, cancelled, and out of memory."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
from common import Keep, Memory
from lora_foundry.engine import bake as bakes
from lora_foundry.engine.bake import BakeReport, bake
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.formats import FORMATS
from lora_foundry.engine.memory import LOWEST, MODES
from lora_foundry.engine.plan import STACK, Adapter, Base, Coverage, Layer, LoRAInfo, Patch, Plan, Target
from lora_foundry.engine.room import Room

Told = Iterator[tuple[str, float | str, str]]  # what, value, unit
Check = Callable[[torch.device, bool], Told]
SHAPES = ((768, 512), (3072, 768), (1008, 784), (1000, 776), (128, 256), (48, 256))  # a format takes what fits it
LARGE = ((3072, 768), (48, 256))  # for more than one bake, and with --smoke
BITS = {1: torch.uint8, 2: torch.int16}
CLOSE = 1e-5  # how far a scale in fp32 may be off: those of rows are so many that their last bits would be a fault


ALONE = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("lora_foundry", {file!r})
sys.modules["lora_foundry"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["lora_foundry"])
import torch
from lora_foundry.engine import kernels
device = torch.device({device!r})
kernels.why_not(device), kernels.why_no_rotation(device), torch.zeros(1, device=device).cpu()
"""


def kinds(shape: tuple[int, int]) -> dict[str, dict[str, torch.Tensor]]:
    """Parts of an adapter of each kind of maths on a weight of this shape, rms of the delta about 1 % of a weight."""
    rows, columns, rank = *shape, 16
    up, down = random(rows, rank, scale=5e-5), random(rank, columns)
    sizes = {"a": (rows, rank), "b": (rank, columns)}
    halves = {f"w{i}_{side}": random(*size, scale=0.007) for i in "12" for side, size in sizes.items()}
    return {
        "lora": {"up": up.bfloat16(), "down": down.bfloat16()},
        "lora in fp32": {"up": up, "down": down},
        "dora": {"up": up, "down": down, "magnitude": random(rows, 1).abs() * 0.4},
        "loha": halves,
        "lokr": {"w1": random(4, 4, scale=0.01), "w2": random(rows // 4, columns // 4, scale=0.02)},
        "diff": {"diff": random(rows, columns, scale=2e-4)},
        "glora": {"a1": random(columns, rank, scale=1e-3), "a2": random(rank, columns, scale=1e-2),
                  "b1": random(rows, rank, scale=1e-4), "b2": random(rank, columns)},
        "oft": {"blocks": random(rows // 8, 8, 8, scale=1e-3)},
    }  # fmt: skip


def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers in fp32."""
    return torch.randn(shape) * scale


def a_plan(shape: tuple[int, int], kind: str, count: int = 2) -> Plan:
    """Weights of one shape with a plain LoRA each, and on the first one an adapter of this kind too."""
    names = [f"blocks.{number}.l.weight" for number in range(count)]
    plan = Plan(Base("memory", None, Memory({name: random(*shape, scale=0.02).bfloat16() for name in names})))
    parts = kinds(shape)
    plain, other = parts["lora"], parts[kind]
    for number, (given, on) in enumerate(((plain, names), (other, names[:1]))):
        adapter = kind.split()[0].replace("dora", "lora") if number else "lora"
        spelled = tuple((part, part) for part in given)
        patches = tuple(Patch(Adapter(name, adapter, spelled, 16, shape), Target(name)) for name in on)
        told = LoRAInfo(kind, f"{number:064x}", "down/up")
        plan = plan.add(Layer(STACK, told, 0.7, patches, Coverage(len(on), len(on)), factors=Memory(given)))
    return plan


def baked(plan: Plan, format: str, device: torch.device | None, memory: str = "auto") -> tuple[Keep, BakeReport]:
    """(what a bake gave, its report)."""
    sink = Keep()
    finish = Finish(format, keep=()) if format in FORMATS else Finish()
    return sink, bake(plan, finish, sink, device=device, memory=memory)


def differ(one: Keep, other: Keep) -> float:
    """Share of the stored numbers that are not the same bits; scales in fp32 may be off by what sums in fp32 are."""
    wrong = [unlike(one.values[name].reshape(-1), each.reshape(-1)) for name, each in other.values.items()]
    return float(torch.cat(wrong).float().mean())


def unlike(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Which numbers are not the same."""
    if other.dtype == torch.float32:
        return ~torch.isclose(one, other, rtol=CLOSE, atol=0.0)
    return one.view(BITS[other.itemsize]) != other.view(BITS[other.itemsize])


def right(device: torch.device, smoke: bool) -> Told:
    """Formats, memory modes and kinds of adapters; each row is the worst of all shapes."""
    torch.manual_seed(0)
    for format in (*FORMATS, "none"):
        for kind in list(kinds((48, 256)))[: 3 if smoke else None]:
            wrong, gains = 0.0, 0.0
            fit = [shape for shape in SHAPES if format not in FORMATS or FORMATS[format].fits(shape)]
            for shape in fit[-1:] if smoke else fit:
                plan = a_plan(shape, kind)
                here, wanted = baked(plan, format, None, LOWEST)
                for memory in MODES:
                    there, report = baked(plan, format, device, memory)
                    wrong = max(wrong, differ(there, here))
                    pairs = zip(report.gains, wanted.gains, strict=True)
                    gains = max(gains, *(abs((a or 0.0) - (b or 0.0)) for a, b in pairs))
            limit = 5e-3 if format == "none" else 1e-3
            verdict = "right" if wrong <= limit and gains <= 1e-3 else "WRONG"
            yield f"{format}, {kind}: numbers unlike the CPU's", f"{wrong:.1e} ({verdict})", "share"


def the_same_again(device: torch.device, smoke: bool) -> Told:
    """Twenty bakes, one hash."""
    plan = a_plan(LARGE[smoke], "lora", 12)
    hashes = set()
    for _ in range(3 if smoke else 20):
        kept, digest = baked(plan, "float8_e4m3fn", device)[0], hashlib.sha256()
        for value in kept.values.values():
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        hashes.add(digest.hexdigest())
    yield "bakes of one plan: different results", len(hashes), "1 is right"


class Cancelled(Exception):
    """The user pressed Cancel."""


def cancelled(device: torch.device, smoke: bool) -> Told:
    """A bake that is stopped in the middle ends at once, and the next one is right."""

    def stop(done: int, total: int) -> None:
        if done == total // 2:
            raise Cancelled

    plan = a_plan(LARGE[smoke], "lora", 12)
    try:
        bake(plan, Finish("float8_e4m3fn", keep=()), Keep(), stop, device)
        yield "cancel", "WRONG: it went on", ""
    except Cancelled:
        yield "cancel, then numbers unlike the CPU's", differ(
            baked(plan, "float8_e4m3fn", device)[0], baked(plan, "float8_e4m3fn", None, LOWEST)[0]
        ), "share"  # fmt: skip


def out_of_memory(device: torch.device, smoke: bool) -> Told:
    """Little room, then none: fewer numbers at once, then the CPU."""
    shape = LARGE[smoke]
    plan = a_plan(shape, "lora", 4)
    wanted = baked(plan, "float8_e4m3fn", None, LOWEST)[0]
    for what, room in (("a quarter of a weight at once", Room(2, math.prod(shape) // 4)), ("no room", None)):
        with patch.object(bakes, "room_in", lambda need, free, room=room: room):
            kept, report = baked(plan, "float8_e4m3fn", device)
        yield f"{what}: numbers unlike the CPU's, in {report.arithmetic}", differ(kept, wanted), "share"
    if device.type == "cuda" and not smoke:
        yield from _really_out(device, plan, wanted)


def _really_out(device: torch.device, plan: Plan, wanted: Keep) -> Told:
    """torch is only allowed a few MB more than it holds."""
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    for more in (24 << 20, 12 << 20, 2 << 20):
        torch.cuda.set_per_process_memory_fraction((held + more) / total, device)
        try:
            kept, report = baked(plan, "float8_e4m3fn", device)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
            torch.cuda.empty_cache()
        yield f"{more >> 20} MB for all: unlike the CPU's, in {report.arithmetic}", differ(kept, wanted), "share"


def ends_a_process(device: torch.device, seconds: float = 180.0) -> str:
    """How a process that tries the Triton kernels ends, where that is not well: what they did to one that goes on,
    a fault in device memory say, would be in every row after it. Empty where it ends well."""
    code = ALONE.format(file=sys.modules["lora_foundry"].__file__, device=str(device))
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"it took more than {seconds:.0f} s"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return "" if done.returncode == 0 else " ".join([f"exit status {done.returncode}", *last])[:200].replace("|", "/")


CHECKS: tuple[Check, ...] = (right, the_same_again, cancelled, out_of_memory)
