"""How long files and functions of the pack are, and the limits: ``python tests/helpers/sizes.py`` prints both."""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # where pytest does not do it, or python runs with -P

from sources import PACK, name_of, nodes_of  # noqa: E402

Function = ast.FunctionDef | ast.AsyncFunctionDef
LONGEST_FILE, MEDIAN_FILE = 350, 130
SHORT_FUNCTION, SHORT_SHARE = 30, 0.9  # lines, and how many of all functions have no more
LONGEST_FUNCTION, MEDIAN_FUNCTION = 60, 10


def lines_of(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> list[Function]:
    """Every function and method of a file."""
    return [*nodes_of(path, ast.FunctionDef), *nodes_of(path, ast.AsyncFunctionDef)]


def length(node: Function) -> int:
    """Lines of a function, its docstring counted."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def short_share() -> float:
    """The share of functions of at most ``SHORT_FUNCTION`` lines."""
    lengths = [length(node) for path in PACK for node in functions(path)]
    return sum(each <= SHORT_FUNCTION for each in lengths) / len(lengths)


def main() -> None:
    """Print a line for each figure with its limit, then the longest files."""
    files = {name_of(path): lines_of(path) for path in PACK}
    lengths = sorted(length(node) for path in PACK for node in functions(path))
    longest = sorted(files, key=files.__getitem__, reverse=True)
    print(f"{len(files)} files, {sum(files.values())} lines")
    print(f"median file {statistics.median(files.values()):.0f} (at most {MEDIAN_FILE})")
    print(f"longest file {files[longest[0]]} (at most {LONGEST_FILE})")
    print(f"{len(lengths)} functions, median {statistics.median(lengths):.0f} (at most {MEDIAN_FUNCTION})")
    print(f"{short_share():.1%} at most {SHORT_FUNCTION} lines (at least {SHORT_SHARE:.0%})")
    print(f"longest function {lengths[-1]} (at most {LONGEST_FUNCTION})")
    print(*(f"{files[name]:4} {name}" for name in longest[:10]), sep="\n")


if __name__ == "__main__":
    main()
