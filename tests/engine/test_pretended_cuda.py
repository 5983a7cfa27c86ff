"""The pretended device finds what a real one would punish: else a bake that passes on it proves nothing."""

from __future__ import annotations

import pytest
import torch
from pretended_cuda import CUDA, pretended_cuda
from pretended_streams import BOARD


def pinned(count=64):
    return torch.empty(count, pin_memory=True).copy_(torch.arange(float(count)))


def uploaded(late=0.005):
    """A late copy on a stream of its own."""
    stream, host = torch.cuda.Stream(CUDA), pinned()
    with torch.cuda.stream(stream):
        there = host.to(CUDA, non_blocking=True)
    return stream, there


def test_tensors_of_two_devices_do_not_mix_and_a_number_may():
    with pretended_cuda():
        there = torch.ones(4, device=CUDA)
        assert float((there * torch.tensor(2.0)).sum()) == 8
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(4)
        assert there.is_cuda
        assert there.device == CUDA


def test_a_copy_that_nobody_waits_for_is_a_fault_and_one_that_is_waited_for_is_right():
    with pretended_cuda() as machine:
        machine.delay = (0.002, 0.004)
        stream, there = uploaded()
        torch.cuda.current_stream().wait_stream(stream)
        assert there.double().sum().cpu() == 2016
        there.record_stream(torch.cuda.current_stream())
    with pytest.raises(AssertionError, match="does not wait"), pretended_cuda():
        _, there = uploaded()
        there.add_(1)


def test_memory_that_is_freed_while_another_stream_uses_it_is_a_fault():
    with pytest.raises(AssertionError, match="is freed while"), pretended_cuda():
        stream, there = uploaded()
        torch.cuda.current_stream().wait_stream(stream)
        there.add_(1)
        del there


def test_memory_that_is_written_again_while_it_is_read_is_a_fault():
    with pytest.raises(AssertionError, match="does not wait"), pretended_cuda():
        stream, there = torch.cuda.Stream(CUDA), torch.zeros(64, device=CUDA)
        there.add_(1)
        with torch.cuda.stream(stream):
            there.copy_(pinned(), non_blocking=True)


def test_what_the_host_waits_for_is_counted_with_its_place():
    with pretended_cuda() as machine:
        there = torch.ones(4).to(CUDA)
        assert float(there.sum()) == 4
        assert torch.equal(there, there)
        there.cpu()
        assert sum(machine.syncs.values()) == 4, machine.syncs
        assert machine.launches == {"sum": 1, "_local_scalar_dense": 1, "equal": 1}
        assert (machine.bytes["up"], machine.bytes["down"]) == (16, 16)


def test_a_number_of_the_host_in_where_is_copied_up_and_a_division_by_one_is_no_quotient():
    """Both as torch does it on CUDA: the one waits, the other multiplies by a rounded reciprocal."""
    numbers = torch.arange(1.0, 4097.0) / 7
    with pretended_cuda() as machine:
        there = numbers.to(CUDA)
        machine.syncs.clear()
        torch.where(there > 1, there, 0.0)
        assert sum(machine.syncs.values()) == 1
        wrong = {by: (there / by).cpu() != numbers / by for by in (448.0, 2.0)}
        assert 0 < int(wrong[448.0].sum()) < 4096 and not wrong[2.0].any()
        assert torch.equal((there / torch.full((), 448.0, device=CUDA)).cpu(), numbers / 448)
        assert torch.equal(there.div_(448).cpu(), numbers * torch.tensor(448.0).reciprocal())


def test_memory_is_counted_and_runs_out_where_it_is_told_to():
    with pretended_cuda() as machine:
        first = torch.empty(256, device=CUDA)
        view = first[:8]
        assert (machine.allocated, machine.allocations) == (1024, 1)
        del first
        assert machine.allocated == 1024
        del view
        assert (machine.allocated, machine.peak) == (0, 1024)
        machine.refuses = lambda number, size: number == 3
        kept = torch.empty(2, device=CUDA)
        with pytest.raises(torch.OutOfMemoryError):
            kept.clone()
        assert machine.allocated == 8


def test_nothing_of_it_is_left_behind():
    with pretended_cuda():
        pass
    assert not BOARD.faults
    assert not torch.cuda.is_available()
    assert torch.ones(2).to(torch.float64).dtype == torch.float64
