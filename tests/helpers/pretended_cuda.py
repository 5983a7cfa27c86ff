"""A CUDA device that is none: CPU tensors that call themselves cuda:0, for tests of the device path without a GPU.

What would be wrong on a real one raises or is counted: tensors of two devices in one operation, memory a stream touches
without waiting, waits of the host, launches, bytes, and memory that runs out where a test wants it to.
"""

from __future__ import annotations

import random
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_foundry.engine import bake, devices, room
from pretended_streams import BOARD, DEFAULT, Event, Stream, Use, current_stream, on_stream
from torch.utils._pytree import tree_map

CUDA = torch.device("cuda", 0)
PACK = Path(__file__).resolve().parents[2]
FACTORIES = ("empty", "zeros", "ones", "full", "arange", "eye", "tensor")
REAL: dict[str, Callable[..., torch.Tensor]] = {name: getattr(torch, name) for name in FACTORIES}
REAL_TO: Callable[..., torch.Tensor] = torch.Tensor.to
REAL_TOLIST: Callable[..., list[Any]] = torch.Tensor.tolist
REAL_RESOLVED = devices.resolved
NO_LAUNCH = {"_unsafe_view", "empty_like", "new_empty", "empty", "empty_strided", "new_empty_strided"}
DIVISIONS = {"div": torch.ops.aten.mul.Tensor, "div_": torch.ops.aten.mul_.Tensor}
READS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2"}  # the host waits


class Machine:
    """The device: how late copies are, what happened on it, how much memory is taken and when it is out.

    ``refuses(number, bytes)`` is asked at every allocation. ``syncs`` says what the host waited for, and where.
    """

    def __init__(self) -> None:
        self.delay, self.limit = (0.0, 0.0), 1 << 40
        self.refuses: Callable[[int, int], bool] = lambda number, size: False
        self.syncs: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.pinned: dict[int, torch.Tensor] = {}
        self.owners: dict[int, tuple[int, int]] = {}  # address -> (tensors over it, its size)
        self.allocated = self.peak = self.allocations = 0

    def sync(self, what: str) -> None:
        """The host waits for the device."""
        self.syncs[f"{what} at {_place()}"] += 1
        current_stream().drain()

    def take(self, storage: torch.UntypedStorage) -> None:
        """Count a tensor over a storage, and the memory with the first one; OutOfMemoryError where that is refused."""
        address, size = storage.data_ptr(), storage.nbytes()
        with BOARD.lock:
            count, _ = self.owners.get(address, (0, 0))
            if not count and size:
                self.allocations += 1
                if self.allocated + size > self.limit or self.refuses(self.allocations, size):
                    raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
                self.allocated += size
                self.peak = max(self.peak, self.allocated)
                BOARD.uses[address] = Use(current_stream().number)
                _HOMES[address] = current_stream()
            self.owners[address] = (count + 1, size)

    def let_go(self, address: int) -> None:
        """A tensor is gone; with the last one its memory is free."""
        with BOARD.lock:
            count, size = self.owners.get(address, (0, 0))
            if count > 1:
                self.owners[address] = (count - 1, size)
            elif count:
                del self.owners[address]
                self.allocated -= size
                BOARD.free(address, _HOMES.pop(address, None))


_HOMES: dict[int, Stream] = {}
MACHINE = Machine()


def _place() -> str:
    """The line of the pack that is running."""
    frame = sys._getframe(2)
    while frame is not None:
        if path := _of_pack(frame.f_code.co_filename):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "a test"


@cache
def _of_pack(file: str) -> str:
    """A file's path in the pack; empty for all others."""
    path = Path(file)
    inside = path.is_relative_to(PACK) and not {"tests", ".venv"}.intersection(path.relative_to(PACK).parts)
    return str(path.relative_to(PACK)) if inside else ""


class OnDevice(torch.Tensor):
    """A tensor on cuda:0; ``inside`` has its numbers."""

    inside: torch.Tensor

    @staticmethod
    def __new__(cls: type[OnDevice], inside: torch.Tensor) -> OnDevice:
        MACHINE.take(inside.untyped_storage())
        with torch.inference_mode(False):  # whatever is true of the mode is true of what is inside
            made: OnDevice = torch.Tensor._make_wrapper_subclass(
                cls,
                inside.size(),
                strides=inside.stride(),
                storage_offset=inside.storage_offset(),
                dtype=inside.dtype,
                device=torch.device("cpu"),
            )
        made.inside = inside
        weakref.finalize(made, MACHINE.let_go, inside.untyped_storage().data_ptr()).atexit = False
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    def record_stream(self, stream: Stream) -> None:  # type: ignore[override]
        """The allocator keeps the memory until the stream is done with it."""
        use = BOARD.uses.get(self.inside.untyped_storage().data_ptr())
        if use is not None:
            use.recorded.add(stream.number)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        if name == "copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
            return transfer(args[0], args[1], args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if name == "_to_copy" and torch.device(kwargs.get("device") or CUDA).type == "cpu":
            return REAL_TO(_down(args[0]), kwargs.get("dtype") or args[0].dtype)
        given: list[torch.Tensor] = []

        def inside(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                given.append(value)
                return value.inside if isinstance(value, OnDevice) else value
            return torch.device("cpu") if isinstance(value, torch.device) else value

        plain_args, plain_kwargs = tree_map(inside, args), tree_map(inside, kwargs)
        _require_one_device(name, given)
        launched = _launch(func, name, args, given)
        if name in DIVISIONS and not kwargs and _is_of_host(args[1]) and plain_args[0].is_floating_point():
            reciprocal = torch.tensor(
                1.0 / float(args[1]), dtype=plain_args[0].dtype
            )  # as CUDA does it: not the quotient
            func, plain_args = DIVISIONS[name], (plain_args[0], reciprocal)
        made = func(*plain_args, **plain_kwargs)
        before = {id(each.inside): each for each in given if isinstance(each, OnDevice)}

        def outside(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) in before:
                return before[id(value)]
            fresh = OnDevice(value)
            if launched:
                BOARD.touch(current_stream(), value.untyped_storage().data_ptr(), True, name)
            return fresh

        return tree_map(outside, made)


def _is_of_host(value: Any) -> bool:
    """Whether this is a number, or a tensor of one, in the host's memory."""
    return not isinstance(value, OnDevice) and not (isinstance(value, torch.Tensor) and value.ndim)


def _require_one_device(name: str, given: list[torch.Tensor]) -> None:
    """A number on the CPU may join in, as on a real device; so may an index, for which the host waits."""
    if name == "where" and not all(isinstance(each, OnDevice) for each in given):
        MACHINE.sync("a number of the host in where")  # it is copied up, from memory that is not page-locked
    others = [each for each in given if not isinstance(each, OnDevice) and each.ndim]
    if others and name.startswith("index"):
        MACHINE.sync("an index on the CPU")
    elif others:
        shapes = [(type(each).__name__, tuple(each.shape)) for each in given]
        raise RuntimeError(f"Expected all tensors to be on the same device: {name} of {shapes}")


def _launch(func: Any, name: str, args: Any, given: list[torch.Tensor]) -> bool:
    """Whether this is a kernel; count it, what the host waits for, and the times of all memory it touches."""
    returns = func._schema.returns
    is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in returns)
    if is_view or name in NO_LAUNCH:
        return False
    indices = args[1] if name in ("index", "index_put_") else ()
    if name in READS or any(each is not None and each.dtype == torch.bool for each in indices):
        MACHINE.sync(name)
    stream = current_stream()
    stream.drain()
    MACHINE.launches[name] += 1
    written = {each.name for each in func._schema.arguments if each.alias_info is not None and each.alias_info.is_write}
    first = func._schema.arguments[0].name if func._schema.arguments else ""
    for number, each in enumerate(given):
        if isinstance(each, OnDevice):
            writes = (number == 0 and first in written) or ("out" in written and number == len(given) - 1)
            BOARD.touch(stream, each.inside.untyped_storage().data_ptr(), writes, name)
    return True


def is_pinned(tensor: torch.Tensor) -> bool:
    """Whether a CPU tensor lies in page-locked memory."""
    return tensor.untyped_storage().data_ptr() in MACHINE.pinned


def transfer(target: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> torch.Tensor:
    """A copy between the devices: late where it may be, else the host waits."""
    stream, up = current_stream(), isinstance(target, OnDevice)
    there, host = (target, source) if up else (source, target)
    assert isinstance(there, OnDevice)
    MACHINE.bytes["up" if up else "down"] += source.numel() * source.dtype.itemsize
    BOARD.touch(stream, there.inside.untyped_storage().data_ptr(), up, "a copy up" if up else "a copy down")
    to, of = (there.inside, host) if up else (host, there.inside)
    if non_blocking and is_pinned(host) and to.dtype == of.dtype:
        low, high = MACHINE.delay
        if not stream.default and to.ndim and to.is_contiguous():
            to.view(torch.uint8).fill_(0xFF)  # what is looked at too early is wrong
        stream.submit(partial(_late, to, of, random.uniform(low, high)))
        return target
    MACHINE.sync("a pageable copy up" if up else "a copy down")
    to.copy_(of)
    return target


def _late(to: torch.Tensor, of: torch.Tensor, seconds: float) -> None:
    time.sleep(seconds)
    to.copy_(of)


def _down(tensor: OnDevice) -> torch.Tensor:
    made = REAL["empty"](tensor.shape, dtype=tensor.dtype)
    return transfer(made, tensor, False)


def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """``Tensor.to`` of both devices."""
    wanted: list[Any] = [*args, kwargs.get("device"), kwargs.get("other"), kwargs.get("dtype")]
    device = next((torch.device(each) for each in wanted if isinstance(each, (torch.device, str))), None)
    like = next((each for each in wanted if isinstance(each, torch.Tensor)), None)
    device = device if like is None else like.device
    if device is None or (device.type == "cuda") == isinstance(self, OnDevice):
        plain = {key: value for key, value in kwargs.items() if key not in ("device", "other")}
        rest = [each for each in args if not isinstance(each, (torch.device, str, torch.Tensor))]
        types = [like.dtype] if like is not None else []
        return REAL_TO(self, *types, *rest, **plain) if types or rest or plain else self
    dtype = next((each for each in wanted if isinstance(each, torch.dtype)), self.dtype if like is None else like.dtype)
    if isinstance(self, OnDevice):
        return REAL_TO(_down(self), dtype)
    if self.is_meta:
        return REAL_TO(self, "cpu")  # raises as torch does: there is nothing to copy
    made = OnDevice(REAL["empty"](self.shape, dtype=self.dtype))
    return REAL_TO(transfer(made, self, bool(kwargs.get("non_blocking", False))), dtype)


def _factory(name: str) -> Callable[..., torch.Tensor]:
    def make(*args: Any, **kwargs: Any) -> torch.Tensor:
        device, pin = kwargs.get("device"), kwargs.pop("pin_memory", False)
        if device is not None and torch.device(device).type == "cuda":
            made: torch.Tensor = REAL[name](*args, **{**kwargs, "device": "cpu"})
            MACHINE.launches[name] += name not in ("empty", "tensor")
            if name == "empty" and made.ndim and made.numel():
                made.view(torch.uint8).fill_(0xFF)
            return OnDevice(made)
        made = REAL[name](*args, **kwargs)
        if pin:
            MACHINE.pinned[made.untyped_storage().data_ptr()] = made
            MACHINE.bytes["pinned"] += made.nbytes
        return made

    return make


class _Device:
    """``torch.cuda.device``."""

    def __init__(self, device: Any) -> None:
        assert torch.device(device).index in (0, None)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _peak_reset(device: Any = None) -> None:
    MACHINE.peak = MACHINE.allocated


@contextmanager
def pretended_cuda() -> Iterator[Machine]:
    """The device for the length of a block; leaving it fails when memory was used without waiting."""
    MACHINE.__init__()  # type: ignore[misc]
    for log in (BOARD.faults, BOARD.uses, BOARD.waits, BOARD.host, DEFAULT.clock):  # else a clock knows every stream
        log.clear()
    with pytest.MonkeyPatch.context() as patch:
        for name in FACTORIES:
            patch.setattr(torch, name, _factory(name))
        patch.setattr(torch.Tensor, "to", to)
        patch.setattr(torch.Tensor, "cpu", lambda self: self.to("cpu"))
        patch.setattr(torch.Tensor, "tolist", lambda self: REAL_TOLIST(self.to("cpu")))
        patch.setattr(torch.Tensor, "is_pinned", lambda self, device=None: is_pinned(self))
        cuda: dict[str, Any] = {"Stream": Stream, "Event": Event, "stream": on_stream, "device": _Device}
        cuda |= {"current_stream": current_stream, "default_stream": lambda device=None: DEFAULT}
        cuda |= {"is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0}
        cuda |= {"get_device_name": lambda device=None: "Pretended", "empty_cache": lambda: None}
        cuda |= {"get_device_capability": lambda device=None: (9, 0)}
        cuda |= {"synchronize": lambda device=None: MACHINE.sync("synchronize")}
        cuda |= {"memory_allocated": lambda device=None: MACHINE.allocated}
        cuda |= {"memory_reserved": lambda device=None: MACHINE.allocated}
        cuda |= {"max_memory_allocated": lambda device=None: MACHINE.peak, "reset_peak_memory_stats": _peak_reset}
        cuda |= {"mem_get_info": lambda device=None: (MACHINE.limit - MACHINE.allocated, MACHINE.limit)}
        for name, value in cuda.items():
            patch.setattr(torch.cuda, name, value)
        yield MACHINE
    assert not BOARD.faults, BOARD.faults[:5]


def threads_of(prefix: str) -> list[str]:
    """The living threads whose names begin so."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


@contextmanager
def bakes_on_cuda() -> Iterator[Machine]:
    """The same, and every bake that names no device runs on it."""
    with pretended_cuda() as machine, pytest.MonkeyPatch.context() as patch:
        machine.delay = (0.0, 0.001)
        for module in (bake, devices, room):
            patch.setattr(module, "resolved", lambda device: CUDA if device is None else REAL_RESOLVED(device))
        yield machine
