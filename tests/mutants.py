"""Faults put into the code on purpose, one at a time, and the tests that must see each: ``python tests/mutants.py``.

``--only WORD`` takes those whose name holds the word. Every mutant runs in a copy of the tree; 95 % must be seen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__")
LEAST = 0.95  # share that must be seen


@dataclass(frozen=True)
class Mutant:
    """``old``, which stands once in ``file``, becomes ``new``; ``tests`` are the paths that must fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant("scale: largest code", "engine/formats.py", "torch.float8_e4m3fn, 448.0,", "torch.float8_e4m3fn, 440.0,",
           "tests/engine/test_quantize.py"),
    Mutant("scale: too small a scale", "engine/formats.py", "scale < torch.finfo(torch.float32).tiny", "scale <= 0.0",
           "tests/engine/test_quantize.py"),
    Mutant("amax: one end", "engine/fuse.py", "torch.maximum(low.abs(), high.abs())", "torch.maximum(high, high.abs())",
           "tests/engine/test_quantize.py"),
    Mutant("finite: NaN is stored", "engine/formats.py", "    if not math.isfinite(amax.item()):",
           "    if math.isinf(amax.item()):", "tests/engine/test_quantize.py"),
    Mutant("dims: any is fit", "engine/formats.py", "DIVISOR = 16", "DIVISOR = 8", "tests/engine/test_quantize.py"),
    Mutant("keep: a dot is any sign", "engine/quantize.py", "re.escape(piece)", "piece",
           "tests/engine/test_quantize.py"),
    Mutant("chance: none", "engine/dither.py", ".add_(chance).floor_().mul_(step)", ".add_(0.5).floor_().mul_(step)",
           "tests/engine/test_dither.py tests/cli/test_demo.py"),
    Mutant("chance: smallest step", "engine/dither.py", "min=info.eps * info.tiny", "min=info.tiny",
           "tests/engine/test_dither.py tests/cli/test_demo.py"),
    Mutant("DoRA: rows for columns", "engine/adapters.py", "tuple(magnitude[:2]) == (1, size)",
           "tuple(magnitude[:2]) == (size, 1)", "tests/engine/test_adapters.py tests/engine/test_terms.py"),
    Mutant("DoRA: a row of zeros", "engine/adapters.py", "(total.norm(dim=1, keepdim=True) + EPS)",
           "total.norm(dim=1, keepdim=True)", "tests/engine/test_adapters.py tests/engine/test_terms.py"),
    Mutant("LoKr: alpha without a split", "engine/adapters.py",
           'adapter.scale if any(part.endswith("_a") for part, _ in adapter.parts) else 1.0', "adapter.scale",
           "tests/engine/test_adapters.py tests/engine/test_terms.py tests/loaders/loras/test_alphas.py"),
    Mutant("strength: no factor", "engine/terms.py", "layer.strength * patch.factor", "layer.strength",
           "tests/engine/test_terms.py tests/engine/test_parts.py tests/engine/test_fuse.py"),
    Mutant("swap: not done", "engine/terms.py", "torch.cat([scale, shift], dim=0)", "torch.cat([shift, scale], dim=0)",
           "tests/engine/test_terms.py tests/engine/test_parts.py tests/engine/test_fuse.py"),
    Mutant("gain: the tolerance", "engine/gain.py", "SIGMAS = 6.0", "SIGMAS = 0.0", "tests/engine/test_gain.py"),
    Mutant("gain: kept layers count", "engine/gain.py", "if quantized else (self.layers,)",
           "if True else (self.layers,)", "tests/engine/test_gain.py"),
    Mutant("gain: a sample is all", "engine/gain.py", "_squares(wide) * whole", "_squares(wide)",
           "tests/engine/test_gain.py"),
    Mutant("temps: ours is swept", "loaders/disk/temps.py", "or path.name in PROCESS.temps:", "or False:",
           "tests/loaders/disk/test_home_files.py tests/loaders/disk/test_writer_failures.py"),
    Mutant("parts: any is known", "loaders/loras/building.py", "            if part not in known:",
           "            if part in ():", "tests/loaders/loras"),
    Mutant("low precision: integers", "loaders/bases/checkpoint.py",
           'info.name.endswith("weight") and len(info.shape) >= 2', 'len(info.shape) >= 2 and info.name == ""',
           "tests/loaders/bases"),
)  # fmt: skip


def mutated(mutant: Mutant, tree: Path = ROOT) -> str:
    """The text of its file with the fault in it; ValueError where the old text does not stand there exactly once."""
    text = (tree / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: the old text stands {text.count(mutant.old)} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def is_seen(mutant: Mutant, tree: Path) -> bool:
    """Whether a test fails with the fault; the copy ``tree`` is as it was afterwards."""
    path, command = tree / mutant.file, [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command = command if sys.version_info >= (3, 11) else [part for part in command if part != "-P"]
    before = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutant, tree), encoding="utf-8")
    try:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*command, *mutant.tests.split()], cwd=tree, env=environment, capture_output=True)
    finally:
        path.write_text(before, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise ValueError(f"{mutant.name}: the tests did not run: {done.stdout.decode()[-500:]}")
    return done.returncode == 1


def main() -> int:
    """Print one line a mutant and the share that was seen; 1 when it is too small."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a word of the names")
    chosen = [mutant for mutant in MUTANTS if parser.parse_args().only in mutant.name]
    seen = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        for mutant in chosen:
            killed = is_seen(mutant, tree)
            seen += killed
            print(f"{'killed' if killed else 'SURVIVED'}  {mutant.name}", flush=True)
    print(f"{seen} of {len(chosen)} killed ({seen / max(1, len(chosen)):.0%})")
    return 0 if seen >= LEAST * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
