"""Memory: how much this process used at most, how much is free, and how much a bake may hold."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from .tensors import TensorInfo
from .texts.say import refuse

AUTO, LOW, LOWEST = MODES = ("auto", "low", "lowest")
HELD = {AUTO: 14, LOW: 5}  # bytes held for each number of the largest weight, at most


def choose_memory(wanted: str, infos: Iterable[TensorInfo], reproducible: bool = False) -> str:
    """``auto`` as it is when a few of the largest tensors fit into half of the free memory, else what does fit.

    Where the result is to be ``reproducible`` it does not depend on the free memory, so ``auto`` stays.
    """
    if wanted not in MODES:
        raise refuse("usage.memory", wanted=wanted, modes=", ".join(MODES))
    if reproducible:
        return wanted
    largest = max((info.nbytes // max(1, info.dtype.itemsize) for info in infos), default=0)
    free = available_bytes()
    fits = (mode for mode in (AUTO, LOW) if free is None or largest * HELD[mode] < free / 2)
    return next(fits, LOWEST) if wanted == AUTO else wanted


def available_bytes() -> int | None:
    """Memory that can be used without swapping, in bytes; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_bytes().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"MemAvailable:")), None)
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows, macOS
        return _told_by_psutil()


def _told_by_psutil() -> int | None:
    """The same through psutil, which comes with ComfyUI and is not needed elsewhere."""
    try:
        psutil = importlib.import_module("psutil")
    except ImportError:
        return None
    try:
        return int(psutil.virtual_memory().available)
    except (OSError, RuntimeError):  # what psutil raises where the system refuses to tell
        return None


def give_back() -> None:
    """Let the system have what was freed between what is in use: glibc keeps it for each thread. Elsewhere nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def peak_rss_bytes() -> int:
    """Highest resident set size of this process so far, in bytes; 0 where the system does not tell."""
    if peak := _linux_peak():
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return _windows_peak()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _linux_peak() -> int:
    """From /proc, because getrusage on Linux also counts the program that started this one."""
    try:
        lines = Path("/proc/self/status").read_bytes().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"VmHWM:")), 0)


def _windows_peak() -> int:
    from ctypes import wintypes

    class Counters(ctypes.Structure):
        _fields_ = [
            ("cb", wintypes.DWORD),
            ("PageFaultCount", wintypes.DWORD),
            *[
                (name, ctypes.c_size_t)
                for name in (
                    "PeakWorkingSetSize",
                    "WorkingSetSize",
                    "QuotaPeakPagedPoolUsage",
                    "QuotaPagedPoolUsage",
                    "QuotaPeakNonPagedPoolUsage",
                    "QuotaNonPagedPoolUsage",
                    "PagefileUsage",
                    "PeakPagefileUsage",
                )
            ],
        ]

    counters = Counters(cb=ctypes.sizeof(Counters))
    windll = getattr(ctypes, "windll")  # noqa: B009 (absent from the type stubs elsewhere)
    windll.psapi.GetProcessMemoryInfo(windll.kernel32.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return int(counters.PeakWorkingSetSize)
