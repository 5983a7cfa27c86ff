"""The Triton kernels themselves: their maths in Triton's interpreter on the CPU, and that they compile for a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest
from sources import ROOT

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton: pip install triton")

IMPORTS = """
import json, runpy, sys
runpy.run_path({conftest!r})
sys.path.insert(0, {helpers!r})
import torch
from lora_foundry.engine import gemm, kernels, triton_kernels
from lora_foundry.engine.alike import Sums, aligned, view_at
from lora_foundry.engine.codes import hadamard
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.formats import FORMATS
from lora_foundry.engine.gemm import Product
from disk_fakes import File, on_disk
from fakes import a_layer, a_plan, noise, random_delta
from pretended_cuda import CUDA, MACHINE, OnDevice, pretended_cuda
from pretended_streams import BOARD, current_stream
from triton.runtime.interpreter import InterpreterBuilder
"""

SUMS = """
def steps(x, dtype):  # the distance of neighbouring codes around each number, in fp64
    if dtype == torch.int8:
        return torch.ones_like(x)
    info = torch.finfo(dtype)
    power = 2.0 ** torch.floor(torch.log2(x.abs().clamp(min=info.tiny)))
    return power * info.eps

def laid_out(count, rows, columns, more, dtype, ranks, kinds):
    sizes = [((rows, columns + more), dtype)]
    for rank, kind in zip(ranks, kinds):
        sizes += [((rows, rank), kind), ((rank, columns), kind)]
    shift = sum(aligned(a * b * kind.itemsize) for (a, b), kind in sizes)
    memory, all_sums = torch.zeros(count * shift, dtype=torch.uint8), []
    for number in range(count):
        at, views = number * shift, []
        for place, (shape, kind) in enumerate(sizes):
            values = torch.randn(shape) * ((1e-4, 1.0)[place % 2 == 0] if place else torch.logspace(-6, 0, shape[1]))
            views.append(view_at(memory, at, kind, shape).copy_(values))
            at += aligned(values.numel() * kind.itemsize)
        scales = [0.5 - i for i in range(len(ranks))]
        products = [Product(*each) for each in zip(views[1::2], views[2::2], scales)]
        all_sums.append(Sums(views[0][:, :columns], products))
    return Sums(all_sums[0].weight, all_sums[0].products, count, shift), all_sums

H256 = hadamard(256, torch.device("cpu")).double()

def turned(x, format):  # in fp64
    return (x.view(len(x), -1, 256) @ H256).view(x.shape) if format and format.group else x

def tried(dtype, count, rows, columns, more, kind, ranks, kinds, sampled):
    both, each = laid_out(count, rows, columns, more, kind, ranks, kinds)
    format = next((one for one in FORMATS.values() if one.dtype == dtype and one.name != "mxfp8"), None)
    lines = rows if format and format.row_scaled else 1
    peak, scale = torch.zeros(count * (lines + 1 if lines > 1 else 1)), torch.zeros(count * lines)
    out = torch.empty(count, rows, columns, dtype=dtype)
    if format is not None:
        triton_kernels.add_peaks(both, lines > 1, peak)
    triton_kernels.write_codes(both, out, format, peak, scale)
    found = triton_kernels.measures(both, out, sampled, format, peak, scale)
    off = dict(amax=0.0, scale=0.0, code=0.0, measure=0.0, moved=0.0)
    peaks = peak[count if lines > 1 else 0:].view(count, lines, 1)
    for number, sums in enumerate(each):
        deltas = [product.scale * (product.up.double() @ product.down.double()) for product in sums.products]
        exact, step = sums.weight.double() + sum(deltas), torch.tensor(1.0)
        prepared = turned(exact, format)
        if format is not None:
            most = prepared.abs().amax(1, keepdim=True) if lines > 1 else prepared.abs().amax()
            off["amax"] = max(off["amax"], float((peaks[number] / most - 1).abs().max()))
            off["amax"] = max(off["amax"], abs(float(peak[number] / prepared.abs().max()) - 1))
            step = peaks[number] / format.largest
            off["scale"] = max(off["scale"], float((scale.view(count, lines, 1)[number] != step).any()))
        wanted = prepared * step.reciprocal().double() if lines == 1 else prepared / step.double()
        wrong = (out[number].double() - wanted).abs() / steps(wanted, dtype)
        off["code"] = max(off["code"], float(wrong.max()))
        rows_of = slice(None, None, sampled.step)
        stored, base = (out[number].float() * step)[rows_of], sums.weight[rows_of].float()
        stored = turned(stored.double(), format)
        error, some = stored - exact[rows_of], [delta[rows_of] for delta in deltas]
        want, most = [error.square().sum(), exact[rows_of].square().sum()], [error.square().sum()]
        most.append(want[1])
        for delta in some:
            want += [(error * delta).sum(), delta.square().sum(), (error * delta).square().sum()]
            most += [(want[0] * want[-2]).sqrt(), want[-2], want[-1]]
        measured = ((found[number, 2:] - torch.stack(want)).abs() / torch.stack(most)).max()
        off["measure"] = max(off["measure"], float(measured))
        moved = float((stored != base).sum()) if dtype == kind else 1.0
        off["moved"] = max(off["moved"], abs(float(found[number, 1]) - moved))
        assert float(found[number, 0]) == float(peak[number])
    return off

MOVED, TENSORS = {}, {}  # bytes of each of these tensors that kernels read and write

def counting(name, place):
    plain = getattr(InterpreterBuilder, name)
    def call(self, at, *more):
        size = at.get_element_ty().primitive_bitwidth // 8
        for number, tensor in TENSORS.items():
            first = tensor.untyped_storage().data_ptr()
            there = (at.data >= first) & (at.data < first + tensor.untyped_storage().nbytes())
            MOVED[number] = MOVED.get(number, 0) + size * int((there & more[place].data).sum())
        return plain(self, at, *more)
    setattr(InterpreterBuilder, name, call)

def moved(dtype, format):  # bytes a number
    weight = (torch.randn(96, 512) * 0.02).bfloat16()
    product = Product(torch.randn(96, 4).bfloat16(), torch.randn(4, 512).bfloat16(), 0.5)
    out, peak, scale = torch.empty(1, 96, 512, dtype=dtype), torch.zeros(97), torch.zeros(96)
    MOVED.clear()
    TENSORS.update(weight=weight, out=out)
    if format is not None:
        triton_kernels.add_peaks(Sums(weight, [product]), bool(format.group), peak)
    triton_kernels.write_codes(Sums(weight, [product]), out, format, peak, scale)
    TENSORS.clear()
    return sum(MOVED.values()) / weight.numel()

torch.manual_seed(1)
B, H, F = torch.bfloat16, torch.float16, torch.float32
E4, E5, I = torch.float8_e4m3fn, torch.float8_e5m2, torch.int8
told = {"off": [
    tried(E4, 1, 96, 80, 0, B, (24,), (B,), range(0, 96)),
    tried(E5, 1, 96, 80, 8, H, (1, 16), (B, F), range(0, 96, 3)),
    tried(B, 2, 70, 100, 0, B, (5, 40), (H, B), range(0, 70, 5)),
    tried(E4, 2, 64, 64, 0, F, (4,) * 8, (B,) * 8, range(0, 64, 2)),
    tried(B, 1, 1, 48, 16, F, (3,) * 3, (F, B, F), range(0, 1)),
    tried(I, 1, 48, 512, 0, B, (24,), (B,), range(0, 48)),
    tried(I, 2, 16, 256, 8, H, (4,) * 8, (B,) * 8, range(0, 16, 3)),
    tried(I, 1, 80, 768, 0, F, (1, 16), (B, F), range(0, 80, 5)),
]}
both, (one,) = laid_out(1, 16, 256, 0, B, (4,), (B,))
one.weight[3, 5] = float("nan")
peaks = []
for values in (float("nan"), 3e38):
    one.weight[3, 5] = values
    one.products[0].up[3], one.products[0].down[:, 5] = 1e19, 1e19
    for dtype, format in ((E4, FORMATS["float8_e4m3fn"]), (I, FORMATS["int8_convrot"]), (B, None)):
        peak = torch.zeros(17)
        if format is not None:
            triton_kernels.add_peaks(both, bool(format.group), peak)
        triton_kernels.write_codes(both, torch.empty(1, 16, 256, dtype=dtype), format, peak, torch.zeros(16))
        peaks.append(float(peak[0]))
told["bad"] = peaks
counting("create_masked_load", 0)
counting("create_masked_store", 1)
told["moved"] = {name: moved(dtype, format) for name, dtype, format in (
    ("fp8", E4, FORMATS["float8_e4m3fn"]), ("int8_convrot", I, FORMATS["int8_convrot"]), ("bf16", B, None))}
"""

BAKES = """
GIVEN = 1 + 4 * triton_kernels.MOST + 4  # weight, factors, ranks, scales, shape: what follows is written

def start(kernel, grid, given, settings):
    stream = current_stream()
    stream.drain()
    MACHINE.launches[kernel.fn.__name__] += 1
    for number, each in enumerate(given):
        if isinstance(each, OnDevice):
            BOARD.touch(stream, each.inside.untyped_storage().data_ptr(), number >= GIVEN, kernel.fn.__name__)
    kernel[grid](*(each.inside if isinstance(each, OnDevice) else each for each in given), *settings)

triton_kernels.start = start
gemm.fast_bf16 = lambda device_type: False

def plan(count, shape):
    names = [f"blocks.{number}.l.weight" for number in range(count)]
    values = {name: noise(shape, 0.02, seed) for seed, name in enumerate(names)}
    deltas = [random_delta(name, shape, 8, 0.002, seed) for seed, name in enumerate(names)]
    return on_disk(a_plan(values, *(a_layer(deltas, 0.5 + i, name=f"{i}") for i in range(4))))

told["baked"] = {}
for format, shape in (("float8_e4m3fn", (48, 64)), ("int8_convrot", (32, 256)), ("none", (48, 64))):
    finish, wanted = Finish(format, keep=()), File()
    here = bake(plan(2, shape), finish, wanted)
    with pretended_cuda() as machine:
        machine.delay = (0.0, 0.002)
        why_not = kernels.why_not(CUDA) + kernels.why_no_rotation(CUDA)
        bake(plan(1, shape), finish, File(), device=CUDA)  # what is made once a process
        launches = []
        for count in (1, 2):
            machine.launches.clear(); machine.syncs.clear()
            there = File()
            report = bake(plan(count, shape), finish, there, device=CUDA)
            launches.append(sum(machine.launches.values()))
        scales = {n: t for n, t in wanted.values.items() if n.endswith("_scale")}
        told["baked"][format] = {
            "why_not": why_not, "arithmetic": report.arithmetic, "launches": launches[1] - launches[0],
            "syncs": list(machine.syncs.values()), "each": dict(machine.launches),
            "codes": max(float((there.values[n].view(torch.int8) != t.view(torch.int8)).float().mean())
                         for n, t in wanted.values.items() if n.endswith("l.weight")),
            "scales": max(float((there.values[n] / t - 1).abs().max()) for n, t in scales.items()) if scales else 0.0,
            "gains": max(abs(a - b) for a, b in zip(report.gains, here.gains)),
            "errors": max(abs(report.layers[n] / e - 1) for n, e in here.layers.items()),
        }
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    """What the scripts tell, from one process for both: the interpreter is chosen when Triton is imported."""
    environment, tests = {**os.environ, "TRITON_INTERPRET": "1"}, ROOT / "tests"
    begin = IMPORTS.format(conftest=str(tests / "conftest.py"), helpers=str(tests / "helpers"))
    command = [sys.executable, "-c", begin + SUMS + BAKES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@needs_triton
def test_the_kernels_round_the_exact_sum_to_the_nearest_and_measure_it(interpreted):
    """Against float64: odd shapes, dtypes side by side, several weights in one launch."""
    for off in interpreted["off"]:
        assert off["amax"] < 1e-6 and off["scale"] == 0 and off["moved"] == 0, off
        assert off["code"] <= 0.5001 and off["measure"] < 1e-4, off
    assert interpreted["bad"] == [float("inf")] * 6


@needs_triton
def test_a_weight_is_read_twice_and_written_once(interpreted, ways):
    """What the time model says of the memory that is moved."""
    for name, found in interpreted["moved"].items():
        assert found == ways[f"{name}, Triton"].moved <= 5, name


@needs_triton
def test_a_weight_takes_five_launches_and_no_wait_and_is_that_of_the_cpu(interpreted, ways):
    """A whole bake on the pretended device, the real kernels in the interpreter."""
    names = {"float8_e4m3fn": "fp8", "none": "bf16"}
    for format, found in interpreted["baked"].items():
        assert found["why_not"] == "" and found["arithmetic"] == "fp32 with Triton on Pretended", found
        assert found["launches"] == ways[f"{names.get(format, format)}, Triton"].launches <= 5, found
        assert found["syncs"] == [1], found
        assert found["codes"] < 1e-4 and found["scales"] < 1e-6, found
        assert found["gains"] < 1e-6 and found["errors"] < 1e-4, found


def arguments(module, kernel, stored, settings):
    """(types, constants, what divides them) of two bf16 products on a bf16 weight, as a launch would find them."""
    settings = {"ROTATED": False, **settings}
    block = module.SAMPLED if kernel is module._measure_kernel else module.ROWS
    rows, columns = module._tile(block, settings["ROTATED"])
    constants = {"COUNT": 2, "ROWS": rows, "COLUMNS": columns, "BLOCK": module.RANKS, **settings}
    kinds = {"peak": "*fp32", "scale": "*fp32", "told": "*fp64", "out": stored, "largest": "fp32", "weight": "*bf16"}
    numbered = {"u": "*bf16", "d": "*bf16", "r": "i32", "s": "fp32"}
    kinds |= {f"{name}{at}": kind for name, kind in numbered.items() for at in range(module.MOST)}
    types = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in kernel.arg_names}
    numbers = enumerate(kernel.arg_names)
    whole = {(at,): [["tt.divisibility", 16]] for at, name in numbers if "*" in types[name] or name == "width"}
    return types, {(kernel.arg_names.index(name),): value for name, value in constants.items()}, whole


@needs_triton
@pytest.mark.parametrize("capability", [80, 89, 90])
def test_the_kernels_compile_for_a_gpu(capability, monkeypatch, tmp_path):
    """Down to machine code, without one: the interpreter takes what no compiler does."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from lora_foundry.engine import triton_kernels as module
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    fp8 = {"BITS": 3, "BIAS": 7, "SIGN": 7, "SCALED": True}
    int8 = {"BITS": 0, "BIAS": 0, "SIGN": 7, "SCALED": True, "ROTATED": True}
    bf16 = {"BITS": 7, "BIAS": 127, "SIGN": 15, "SCALED": False}
    for kernel, stored, settings in (
        (module._amax_kernel, "", {}),
        (module._codes_kernel, "*i8", fp8),
        (module._codes_kernel, "*i16", bf16),
        (module._measure_kernel, "*i8", {**fp8, "SAME": False}),
        (module._amax_kernel, "", {"ROTATED": True}),
        (module._codes_kernel, "*i8", int8),
        (module._measure_kernel, "*i8", {**int8, "SAME": False}),
    ):
        if capability == 89 and kernel is not module._codes_kernel:
            continue  # its matrix units are those of 80
        source = ASTSource(kernel, *arguments(module, kernel, stored, settings))
        made = compile(source, target=GPUTarget("cuda", capability, 32))
        assert made.asm["cubin"] and "mma" in made.asm["ptx"], "products of 16 bits are done by matrix units"
