"""A strategy's process from the outside: started, waited for, ended with us, and its failure turned into a sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from typing import IO, Any

from ..workers.boot import interpreter

# glibc keeps freed blocks of up to 32 MB and hardly finds them again; in a real model weights are larger than that.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
_FOLDERS = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\s\\/'\":()]+)+(?=[\\/])[\\/]")


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a job, or ``{"error": sentence}``. Whatever interrupts the waiting ends the process."""
    command = [*interpreter("cli.benchmark.child"), json.dumps(job)]
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
