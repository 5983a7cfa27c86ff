"""The rows of a benchmark that may end early: each is printed and written when it is there, and faults are rows too."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pack_here as pack_here  # first: it makes the rest importable
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.kernels import FAULTS as KERNEL_FAULTS

FAULTS: tuple[type[Exception], ...] = (*KERNEL_FAULTS, ArithmeticError, MemoryError, FoundryError)
Source = Callable[[], Iterator["Row"]]


@dataclass(frozen=True)
class Row:
    """One line: ``value`` and ``best`` in ``unit``, of the first run and of the best; ``share`` of the copy."""

    what: str
    value: float | str
    unit: str = ""
    best: float | None = None
    share: float | None = None
    peak_gb: float | None = None

    def markdown(self) -> str:
        """As a line of a table."""
        numbers = [self.value, self.best, self.share and f"{self.share:.0%}", self.peak_gb]
        cells = ("" if each is None else f"{each:.2f}" if isinstance(each, float) else str(each) for each in numbers)
        return f"| {self.what} | {' | '.join(cells)} | {self.unit} |"


class Rows:
    """The rows of a run; each is told at once."""

    def __init__(self, device: torch.device, folder: Path | None, minutes: float) -> None:
        self.name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        self._folder, self._minutes, self.rows = folder, minutes, list[Row]()
        self._begin = time.monotonic()
        self._title = f"{self.name}, torch {torch.__version__}, python benchmarks/device.py"

    def past(self, share: float) -> bool:
        """Whether so much of the time is over."""
        return time.monotonic() > self._begin + 60 * self._minutes * share

    def take(self, name: str, source: Source, until: float) -> None:
        """All rows of a source, those until this share of the time is over; what goes wrong is a row."""
        if self.past(until):
            self.add(Row(f"{name}: left out", "no time was left"))
            return
        try:
            for row in source():
                self.add(row)
                if self.past(until):
                    self.add(Row(f"{name}: stopped here", "its time was over"))
                    return
        except FAULTS as error:
            traceback.print_exc()
            first = (str(error) or "without a word").splitlines()[0][:200].replace("|", "/")
            self.add(Row(f"{name}: WRONG, it failed", f"{type(error).__name__}: {first}"))

    def add(self, row: Row) -> None:
        """Tell a row."""
        self.rows.append(row)
        print(row.markdown(), flush=True)
        if self._folder is not None:
            told = json.dumps({"device": self._title, "rows": [asdict(each) for each in self.rows]}, indent=1)
            (self._folder / "device.json").write_text(told + "\n")
            put_section(self._folder / "RESULTS.md", self._title, self.section())

    def section(self) -> str:
        """All rows as a section of a document."""
        head = ["| what | first | best | of the copy | peak GB | unit |", "|---|--:|--:|--:|--:|---|"]
        return "\n".join([f"## {self._title}", "", *head, *(row.markdown() for row in self.rows), ""])


def put_section(path: Path, title: str, section: str) -> None:
    """The section in place of the one of this title, or at the end."""
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    first, *parts = text.split("\n## ")
    kept = [part for part in parts if not part.startswith(title)]
    path.write_text("\n## ".join([first.rstrip("\n") + "\n", *kept, section.removeprefix("## ")]), encoding="utf-8")
