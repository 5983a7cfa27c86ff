"""Is this machine ready? Python, packages, what torch can do here, disk, ComfyUI, extras, and what mends it."""

from __future__ import annotations

import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

from ..engine.errors import FoundryError
from ..engine.json_verbs import DoctorJSON, MachineCheckJSON
from ..engine.units import size
from .demo.comfyui import comfyui_version, find_tree
from .terminal import table

PYTHON = (3, 10)
TORCH = (2, 5)
PACKAGES = ("safetensors", "numpy", "einops", "pyyaml")
CLIENTS = {"obstore": "s3://", "huggingface_hub": "hf://"}  # of files elsewhere
MPS = "available; it has no fp8: use int8_convrot or no quantization to sample there"
LITTLE_ROOM = 20_000_000_000  # bytes; a model of the larger families in bf16


def examine() -> DoctorJSON:
    """Every check, and whether all that are required are ok; imports torch, nothing of ComfyUI."""
    packages = [*map(_package, PACKAGES), *(_client(name, scheme) for name, scheme in CLIENTS.items())]
    checks = [_python(), *packages, *_torch(), _disk(Path.cwd()), _comfyui(), _browser(), _completion()]
    return {"ok": all(check["ok"] for check in checks if check["required"]), "checks": checks}


def _check(name: str, ok: bool, seen: str, fix: str = "", required: bool = True) -> MachineCheckJSON:
    return {"name": name, "ok": ok, "seen": seen, "fix": fix, "required": required}


def text(result: DoctorJSON) -> str:
    """The report as a table and one closing line."""
    rows = [
        (_mark(check), check["name"], check["seen"] + (f". {check['fix']}" if check["fix"] and not check["ok"] else ""))
        for check in result["checks"]
    ]
    return table(rows) + ("\nOK: ready." if result["ok"] else "\nNot ready: mend what is marked MISSING.")


def _mark(check: MachineCheckJSON) -> str:
    return "ok" if check["ok"] else "MISSING" if check["required"] else "no"


def _python() -> MachineCheckJSON:
    seen = sys.version.split()[0]
    return _check("python", sys.version_info >= PYTHON, seen, "Use Python 3.10 or newer.")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _package(name: str) -> MachineCheckJSON:
    version = _version(name)
    return _check(name, version is not None, version or "not installed", f"Run: pip install {name}")


def _client(name: str, scheme: str) -> MachineCheckJSON:
    version = _version(name)
    return _check(name, version is not None, version or "not installed", f"For {scheme}: pip install {name}", False)


def _torch() -> list[MachineCheckJSON]:
    """The version, and what is only known by trying."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library torch is linked against is missing
        return [_check("torch", False, f"cannot be imported ({error})", "Run: pip install torch")]
    version = torch.__version__
    recent = tuple(map(int, re.findall(r"\d+", version)[:2])) >= TORCH
    fix = "Run: pip install -U torch"
    devices = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    cuda = torch.cuda.get_device_name() if devices["cuda"] else "not available"
    return [
        _check("torch", recent, version, fix),
        _check("fp8 on this CPU", *_cast("float8_e4m3fn"), fix),
        _check("bf16 on this CPU", *_cast("bfloat16"), fix),
        _check("cuda", devices["cuda"], cuda, "Baking works without it.", required=False),
        _check("mps", devices["mps"], MPS if devices["mps"] else "not available", required=False),
    ]


def _cast(name: str) -> tuple[bool, str]:
    """(whether a cast there and back gives the expected numbers, what was seen)."""
    import torch

    dtype = getattr(torch, name, None)
    if dtype is None:
        return False, f"this torch has no {name}"
    values = torch.tensor([1.0, -0.5, 448.0])
    try:
        works = torch.equal(values.to(dtype).float(), values)
    except RuntimeError as error:
        return False, str(error)
    return works, "works" if works else f"casting to {name} changes 1.0, -0.5 or 448"


def _disk(folder: Path) -> MachineCheckJSON:
    free = shutil.disk_usage(folder).free
    fix = "A baked model of the larger families needs 10 to 40 GB."
    return _check("disk", free >= LITTLE_ROOM, f"{size(free)} free in {folder}", fix, required=False)


def _comfyui() -> MachineCheckJSON:
    fix = "Only demo --host and the host tests need one: set COMFYUI_PATH to its folder."
    try:
        tree = find_tree()
    except FoundryError as error:
        return _check("ComfyUI", False, error.what, fix, required=False)
    return _check("ComfyUI", True, f"{comfyui_version(tree)} in {tree}", required=False)


def _browser() -> MachineCheckJSON:
    version = _version("playwright")
    seen, fix = f"{version or 'not installed'}, for the browser tests", "If you want it: pip install playwright"
    return _check("playwright", version is not None, seen, fix, required=False)


def _completion() -> MachineCheckJSON:
    version = _version("argcomplete")
    fix = 'For completion in a shell: pip install argcomplete; eval "$(register-python-argcomplete lora-foundry)"'
    return _check("argcomplete", version is not None, version or "not installed", fix, required=False)
