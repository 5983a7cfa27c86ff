"""Makes ``lora_foundry`` importable where it is not installed: a bare machine needs only the packages it uses."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

NAME, ROOT = "lora_foundry", Path(__file__).resolve().parents[1]
# module -> package
PACKAGES = {"torch": "torch", "safetensors": "safetensors", "numpy": "numpy", "einops": "einops", "yaml": "pyyaml"}


def load() -> None:
    """Import the pack of this folder, as ComfyUI does; what it lacks is one sentence."""
    if NAME in sys.modules or find_spec(NAME) is not None:
        return
    lacking = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if lacking:
        sys.exit(f"this Python lacks packages; install them with: pip install {' '.join(lacking)}")
    spec = spec_from_file_location(NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    sys.modules[NAME] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])


load()
