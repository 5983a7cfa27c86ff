"""Reading ahead and writing behind: the same bits in the same order, errors where they belong, no thread left over."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fakes import Cancelled, Collected, Tensors, a_layer, a_plan, noise, random_delta
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.pipeline import Direct, Read, WriteBehind, read_in_order, worked_ahead

FP8 = Finish("float8_e4m3fn", keep=())
NAMES = [f"blocks.{i}.self_attn.q.weight" for i in range(6)]


class SlowTensors(Tensors):
    on_disk = True


class SlowSink(Collected):
    on_disk = True

    def __init__(self, fail_at: str = "") -> None:
        super().__init__()
        self.threads: set[str] = set()
        self.fail_at = fail_at

    def write(self, name: str, tensor: torch.Tensor) -> None:
        self.threads.add(threading.current_thread().name)
        if name == self.fail_at:
            raise OSError("disk full")
        super().write(name, tensor.clone())  # its memory is used again


def plan_on(source: type[Tensors]):
    values = {name: noise((64, 64), 0.02, i) for i, name in enumerate(NAMES)}
    layer = a_layer([random_delta(name, (64, 64), 4, 0.001, i) for i, name in enumerate(NAMES)])
    plan = a_plan(values, layer)
    object.__setattr__(plan.base, "source", source(values))
    return plan


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lora-foundry")]


def test_same_bits_in_the_same_order_as_without_threads():
    plain, threaded = Collected(), SlowSink()
    bake(plan_on(Tensors), FP8, plain)
    plan = plan_on(SlowTensors)
    bake(plan, FP8, threaded)
    assert list(plain.values) == list(threaded.values)
    as_bytes = {name: value.view(torch.uint8) if value.ndim else value for name, value in threaded.values.items()}
    for name, value in plain.values.items():
        assert torch.equal(value.view(torch.uint8) if value.ndim else value, as_bytes[name])
    assert plan.base.source.reads == NAMES
    assert all(name.startswith("lora-foundry-write") for name in threaded.threads) and workers() == []


def test_one_tensor_is_read_ahead_and_no_more():
    source = SlowTensors({name: torch.zeros(2) for name in NAMES})
    reading = read_in_order([Read(Direct(source), name) for name in NAMES])
    next(reading)
    reading.close()
    assert 1 <= len(source.reads) <= 2 and workers() == []


def test_an_error_while_writing_ends_the_bake():
    with pytest.raises(OSError, match="disk full"):
        bake(plan_on(SlowTensors), FP8, SlowSink(fail_at=NAMES[2]))
    assert workers() == []


def test_an_error_at_the_very_last_write_is_not_lost():
    with pytest.raises(OSError, match="disk full"), WriteBehind(SlowSink(fail_at="last")) as sink:
        sink.write("last", torch.zeros(1))


def test_an_error_while_reading_ends_the_bake():
    plan = plan_on(SlowTensors)
    del plan.base.source.values[NAMES[3]]
    with pytest.raises(KeyError):
        bake(plan, FP8, SlowSink())
    assert workers() == []


def test_cancel_ends_both_threads():
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Cancelled

    sink = SlowSink()
    with pytest.raises(Cancelled):
        bake(plan_on(SlowTensors), FP8, sink, stop)
    assert workers() == [] and not {name for name in sink.values if NAMES[5] in name}


def test_what_is_worked_ahead_comes_in_order_and_two_at_a_time():
    meet = threading.Barrier(2, timeout=10)

    def work(item):
        if item < 4:
            meet.wait()
        return item * item

    assert list(worked_ahead(work, range(6), lambda item: False)) == [0, 1, 4, 9, 16, 25]


def test_those_who_work_share_the_cores_and_leave_them_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        shares = list(worked_ahead(lambda item: torch.get_num_threads(), range(6), lambda item: item == 3))
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert shares == [2, 2, 2, 4, 2, 2]


def test_what_is_alone_is_worked_by_itself():
    running, seen = [], []

    def work(item):
        running.append(item)
        seen.append((item, len(running)))
        time.sleep(0.002)
        running.remove(item)
        return item

    assert list(worked_ahead(work, range(9), lambda item: item % 3 == 0)) == list(range(9))
    assert [count for item, count in sorted(seen) if item % 3 == 0] == [1, 1, 1]


def test_an_error_is_raised_in_its_turn_and_ends_the_work():
    done = []

    def work(item):
        if item == 2:
            raise ValueError("two")
        done.append(item)
        return item

    stream = worked_ahead(work, range(100), lambda item: False)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(stream)
    assert len(done) < 10 and next(stream, None) is None
