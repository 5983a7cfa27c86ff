"""The machine a benchmark ran on, in facts that may be shown to others: no host name, no user, no paths."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from pathlib import Path

import torch

from ...engine.json_demo import MachineJSON
from ...engine.memory import available_bytes


def multiplied_in(device: torch.device, stored: torch.dtype) -> torch.dtype:
    """The dtype of the products: as stored where the device multiplies that natively, else fp32 (bf16 on a GPU)."""
    half = stored in (torch.bfloat16, torch.float16)
    if device.type == "cuda":
        return stored if half else torch.bfloat16
    native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # type: ignore[no-untyped-call]
    return torch.bfloat16 if native and stored == torch.bfloat16 else torch.float32


def machine(device: torch.device) -> MachineJSON:
    """Processor, threads, memory, system and versions."""
    gpu = device.type == "cuda"
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "free_memory_bytes": free_memory(),
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "device_memory_bytes": torch.cuda.get_device_properties(device).total_memory if gpu else None,
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()


def free_memory() -> int | None:
    """Bytes of memory a process may still take: of the machine, or of its container; None where nobody tells."""
    limits = [available_bytes()]
    with suppress(OSError, ValueError):  # "max" where a container has no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        limits.append(max(0, limit - used))
    return min((limit for limit in limits if limit is not None), default=None)
