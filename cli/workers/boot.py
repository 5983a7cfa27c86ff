"""How a process of this pack is started: by the place of the pack, which may be called anything."""

from __future__ import annotations

import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
# The folder may be called anything and need not be on the path: the pack is loaded by its place, as ComfyUI does it.
BOOT = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import importlib
import importlib.util
from pathlib import Path
root = Path(sys.argv[1])
name = "lora_foundry"
spec = importlib.util.spec_from_file_location(name, root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[name])
importlib.import_module(name + "." + sys.argv[2]).main()
"""


def interpreter(module: str) -> list[str]:
    """The command that runs ``main()`` of a module of the pack; what is added to it is in ``sys.argv`` from 3 on."""
    return [sys.executable, "-c", BOOT, str(PACK), module]
