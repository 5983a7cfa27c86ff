"""A strategy's process from the outside: started, waited for, ended with us, and its failure turned into a sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

PACK = Path(__file__).resolve().parents[2]
# glibc keeps freed blocks of up to 32 MB and hardly finds them again; in a real model weights are larger than that.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
# The folder may be called anything and need not be on the path: the pack is loaded by its place, as ComfyUI does it.
BOOT = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import importlib.util
from pathlib import Path
root = Path(sys.argv[1])
name = "lora_foundry"
spec = importlib.util.spec_from_file_location(name, root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[name])
from lora_foundry.cli.benchmark.child import main
main()
"""
_FOLDERS = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\s\\/'\":()]+)+(?=[\\/])[\\/]")


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a job, or ``{"error": sentence}``. Whatever interrupts the waiting ends the process."""
    command = [sys.executable, "-c", BOOT, str(PACK), json.dumps(job)]
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(  # noqa: S603 (this interpreter)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **MALLOC}
        )
        try:
            said = child.stdout.read() if child.stdout else b""
            code = child.wait()
        finally:
            child.kill()
            child.communicate()
        if code != 0:
            return {"error": without_folders(_why(code, errors))}
        answer: dict[str, Any] = json.loads(said.strip().rpartition(b"\n")[2])
        return answer | ({"error": without_folders(answer["error"])} if "error" in answer else {})


def _why(code: int, errors: IO[bytes]) -> str:
    errors.seek(0)
    last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    if code == -9 or re.search("out of memory|can't allocate memory|MemoryError", last, re.IGNORECASE):
        return "It ran out of memory."
    return f"Its process ended with code {code}: {last or 'it said nothing'}"


def without_folders(text: str) -> str:
    """A message with the folders of its paths left out: results are shown to others."""
    return _FOLDERS.sub("", text)
