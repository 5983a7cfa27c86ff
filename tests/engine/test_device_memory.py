"""Memory of a GPU: what a bake takes is known before, and where it runs out a bake takes less, then the CPU."""

from __future__ import annotations

import pytest
import torch
from adapter_bakes import W, layer
from disk_fakes import File, on_disk
from fakes import a_plan, noise
from forms import Maker, every_form
from lora_foundry.engine import bake as bake_module
from lora_foundry.engine import gemm, pipeline, room
from lora_foundry.engine import job as job_module
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.devices import arithmetic_of
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import AUTO
from lora_foundry.engine.plan import FUSE, STACK, Plan
from lora_foundry.engine.report import bake_sentence
from lora_foundry.engine.room import SHARE, SLOTS, Room, choose_device, need_of, room_in, worked_on
from pretended_cuda import CUDA

FORMATS = ("none", "float8_e4m3fn", "int8_convrot")
LARGE = Maker(512, 768, rank=8)
FORMS = dict(every_form(LARGE))
BELOW, PLAIN = LARGE.lora(), LARGE.lora()


def plan_of(form, count: int = 3, stage: str = STACK) -> Plan:
    """``count`` weights of which the first one has the adapter, on top of a plain LoRA."""
    names = [W, *(f"blocks.{number}.other.weight" for number in range(1, count))]
    values = {name: noise((512, 768), 0.02, seed) for seed, name in enumerate(names)}
    return on_disk(a_plan(values, layer(BELOW, 0.3, FUSE, "below"), layer(form, 0.5, stage)))


def need(plan: Plan, finish: Finish):
    made = blueprint(plan, finish)
    return need_of(plan.base.source, [worked_on(made)])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", FORMS)
def test_a_bake_takes_no_more_than_its_plan_says(kind, format, machine):
    plan, finish = plan_of(FORMS[kind]), Finish(format, keep=())
    said = need(plan, finish)
    bake(plan, finish, File(), device=CUDA)
    total = said.total(SLOTS, said.largest)
    assert machine.peak <= total
    assert machine.peak >= 0.4 * total, "much more is asked for than is taken"


@pytest.mark.parametrize("format", ["mxfp8", "nvfp4", "w4a8", "w6a8"])
def test_searching_scales_and_driving_loras_take_no_more_either(format, machine):
    plan, finish = plan_of(PLAIN), Finish(format, keep=())
    said = need(plan, finish)
    bake(plan, finish, File(), device=CUDA)
    assert 0 < machine.peak <= said.total(SLOTS, said.largest)


def codes_that_differ(one: File, other: File) -> float:
    pairs = [(one.values[name], other.values[name]) for name in one.values]
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
    wrong = [(a.reshape(-1).view(bits[a.itemsize]) != b.reshape(-1).view(bits[b.itemsize])) for a, b in pairs]
    return float(torch.cat(wrong).float().mean())


def whole(finish: Finish) -> File:
    sink = File()
    bake(plan_of(PLAIN), finish, sink, device=CUDA)
    return sink


@pytest.mark.parametrize(
    ("format", "step", "fast"), [("float8_e4m3fn", 1, False), ("int8_convrot", 4, False), ("int8_convrot", 9, True)]
)
def test_memory_that_runs_out_once_anywhere_costs_no_bake(format, step, fast, machine, monkeypatch, request):
    """At any allocation of a bake: half as many numbers at once are tried, then the CPU."""
    if fast:
        request.getfixturevalue("kernel")
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    machine.delay = (0.0, 0.0)
    finish = Finish(format, keep=())
    wanted = whole(finish)
    first = machine.allocations
    whole(finish)
    for at in range(1, machine.allocations - first + 1, step):
        start, sink = machine.allocations, File()
        machine.refuses = lambda number, size, refused=start + at: number == refused
        report = bake(plan_of(PLAIN), finish, sink, device=CUDA)
        assert codes_that_differ(sink, wanted) < 1e-3, at
        assert "on Pretended" in report.arithmetic
        assert report.quantized == 3


def test_memory_that_stays_out_leaves_the_rest_to_the_cpu_and_says_so(machine, monkeypatch):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    finish, sink = Finish("float8_e4m3fn", keep=()), File()
    wanted, first = whole(finish), machine.allocations
    whole(finish)
    for at in (1, 7, machine.allocations - first - 25):
        start, sink = machine.allocations, File()
        machine.refuses = lambda number, size, first=start + at: number >= first
        report = bake(plan_of(PLAIN), finish, sink, device=CUDA)
        assert codes_that_differ(sink, wanted) < 1e-3
        assert report.arithmetic.endswith("fp32 on the CPU")
    assert report.arithmetic.startswith("fp32 on Pretended, ")
    assert "fp32 on Pretended, 2 weights in fp32 on the CPU" in bake_sentence(report)


def test_a_reproducible_bake_stops_where_memory_runs_out_rather_than_mix_two_arithmetics(machine):
    finish = Finish("float8_e4m3fn", keep=(), arithmetic=arithmetic_of(CUDA, AUTO))
    whole(finish)
    start = machine.allocations
    machine.refuses = lambda number, size: number >= start + 12
    with pytest.raises(FoundryError, match=r"\[device\] .* fp32 on Pretended, 1 weights in .* CPU"):
        whole(finish)


def test_what_would_not_fit_is_not_tried(machine, monkeypatch):
    """Less memory: two weights there instead of three, then fewer numbers at once, then the CPU."""
    monkeypatch.setattr(room, "LEAST", 1 << 14)
    said = need(plan_of(PLAIN), Finish("float8_e4m3fn", keep=()))
    whole_weight, little = said.total(SLOTS, said.largest), said.total(SLOTS - 1, said.largest // 4)
    rooms = [
        room_in(said, round(free / SHARE)) for free in (whole_weight * 1.01, whole_weight * 0.95, little * 1.01, 1e5)
    ]
    assert [each and (each.slots, each.most) for each in rooms[:2]] == [(3, said.largest), (2, said.largest)]
    assert rooms[2].slots == 2
    assert rooms[2].most < said.largest
    assert rooms[3] is None
    made = blueprint(plan_of(PLAIN), Finish("float8_e4m3fn", keep=()))
    assert choose_device([made], torch.device("cuda")) == CUDA
    machine.limit = 1 << 20
    assert choose_device([made], torch.device("cuda")) == torch.device("cpu")
    assert whole(Finish("float8_e4m3fn", keep=())).values
    assert machine.bytes["up"] == 0


@pytest.mark.parametrize("format", FORMATS)
def test_half_the_numbers_at_once_give_the_same_codes(format, machine, monkeypatch):
    finish, wanted = Finish(format, keep=()), whole(Finish(format, keep=()))
    monkeypatch.setattr(bake_module, "room_in", lambda need, free: Room(2, need.largest // 3))
    assert codes_that_differ(whole(finish), wanted) < 1e-4


def test_cuda_and_its_number_are_one_device(machine, monkeypatch):
    """Buffers are kept by device: under two names each was there twice."""
    seen = set()

    def watch(kind, name):
        plain = getattr(kind, name)

        def call(self, *given, **more):
            seen.update(each for each in (*given, *more.values()) if isinstance(each, torch.device))
            return plain(self, *given, **more)

        monkeypatch.setattr(kind, name, call)

    watch(gemm.Workspace, "take")
    watch(pipeline.Reused, "buffer")
    report = bake(plan_of(PLAIN), Finish("int8_convrot", keep=()), File(), device=torch.device("cuda"))
    assert report.arithmetic == "fp32 on Pretended"
    assert seen == {CUDA}


def test_a_library_that_has_no_memory_says_so_in_its_own_way(machine, monkeypatch):
    wanted, seen, plain = whole(Finish("float8_e4m3fn", keep=())), [], job_module.make_result

    def failing(*given):
        seen.append(given)
        if len(seen) == 1:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return plain(*given)

    monkeypatch.setattr(job_module, "make_result", failing)
    assert codes_that_differ(whole(Finish("float8_e4m3fn", keep=())), wanted) < 1e-3
    monkeypatch.setattr(job_module, "make_result", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        whole(Finish("float8_e4m3fn", keep=()))


def test_a_system_without_page_locked_memory_bakes_all_the_same(machine, monkeypatch):
    wanted, plain = whole(Finish("float8_e4m3fn", keep=())), torch.empty

    def refusing(*given, **more):
        if more.get("pin_memory"):
            raise RuntimeError("CUDA error: out of memory")
        return plain(*given, **more)

    monkeypatch.setattr(torch, "empty", refusing)
    assert codes_that_differ(whole(Finish("float8_e4m3fn", keep=())), wanted) == 0
