"""Faults put into the code on purpose, one at a time, and the tests that must see each: ``python tests/mutants.py``.

``--only WORD`` takes those whose name holds the word, ``--list`` prints names and runs nothing. Every mutant runs in a
copy of the tree; 95 % must be seen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import faults
import faults_of_merges
from faults import Mutant

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__")
LEAST = 0.95  # share that must be seen
MUTANTS = (*faults.FAULTS, *faults_of_merges.FAULTS)


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
    parser.add_argument("--list", action="store_true", help="print the names")
    asked = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if asked.only in mutant.name]
    if asked.list:
        print("\n".join(f"{mutant.file}: {mutant.name}" for mutant in chosen))
        return 0
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
