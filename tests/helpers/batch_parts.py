"""Batches for tests: documents over tiny bases, and what became of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lora_foundry.cli.demo import tiny
from lora_foundry.cli.workers.loop import Ended, Step, Tell
from lora_foundry.cli.workers.processes import Processes
from lora_foundry.loaders.bakes.wishes import Wishes
from lora_foundry.loaders.batches.records import ENDING, Task
from lora_foundry.loaders.batches.unit import Unit, work
from lora_foundry.loaders.disk.small import save_small

RUN = "this run"
BLOCKS: dict[str, Any] = {"modules": r"^blocks\.", "prefix": "diffusion_model."}


def make_models(folder: Path, width: int = 64) -> dict[str, dict[str, torch.Tensor]]:
    """Two bases, ``one`` and ``two``, and two LoRAs that fit both, ``a`` and ``b``; a third, ``nan``, is damaged."""
    bases = {name: tiny.state_dict("wan", width=width, seed=seed) for name, seed in (("one", 1), ("two", 2))}
    loras = {
        name: tiny.lora(bases["one"], rank=4, rms=0.05, seed=seed, **BLOCKS) for name, seed in (("a", 3), ("b", 4))
    }
    nan = {name: tensor.clone() for name, tensor in loras["a"].items()}
    next(iter(nan.values()))[0, 0] = float("nan")
    made = {**bases, **loras, "nan": nan}
    for name, tensors in made.items():
        save_small(folder / f"{name}{ENDING}", tensors)
    return made


def make_documents(folder: Path, count: int = 20, **settings: Any) -> list[Path]:
    """``count`` documents, in turn on either base, each with both LoRAs at strengths of its own."""
    return [
        write_document(folder, f"d{number:02}", ("one", "two")[number % 2], 0.5 + number / 40, **settings)
        for number in range(count)
    ]


def write_document(
    folder: Path, name: str, base: str = "one", strength: float = 1.0, lora: str = "a", **more: Any
) -> Path:
    """One document on a base with a LoRA at that strength, and ``b`` on top."""
    stack = [{"path": f"{lora}{ENDING}", "strength": strength}, f"b{ENDING}"]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"base": f"{base}{ENDING}", "stack": stack, "quantize": "fp8", **more}))
    return path


def unit(folder: Path, *documents: Path, run: str = RUN, **wishes: Any) -> Unit:
    """The unit of these documents into ``folder``/out."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return Unit(tuple(Task(path.stem, str(path)) for path in documents), str(out), Wishes(**wishes), run)


def contents(out: Path) -> dict[str, bytes]:
    """Name -> bytes of every result in a folder."""
    return {path.name: path.read_bytes() for path in sorted(out.glob(f"*{ENDING}"))}


def states(told: Mapping[str, Any]) -> dict[str, str]:
    """Name -> state of what the command told as JSON."""
    return {each["name"]: each["state"] for each in told["results"]}


def hidden(out: Path) -> list[str]:
    """What lies in a folder, or in its records, under a hidden name: nothing may stay there."""
    return [path.name for path in out.rglob(".*")]


class Inline:
    """The same loop without processes, which take seconds to start: a unit is worked on where it is started."""

    def __init__(self, slots: int, threads: int | None) -> None:
        self.slots = slots

    def start(self, unit: Unit, tell: Tell) -> None:
        """Do it."""
        work(unit, lambda done, total: tell(Step(unit, done, total)))
        tell(Ended(unit))

    def stop(self) -> None:
        """Nothing runs beside."""


class Murdered(Processes):
    """Kills the process of the first unit as soon as it has begun."""

    victims = 1

    def start(self, unit: Unit, tell: Tell) -> None:
        """Start a process that is to be killed."""

        def seen(told: Step | Ended) -> None:
            if isinstance(told, Step) and Murdered.victims:
                Murdered.victims -= 1
                self._children[0][0].kill()
            tell(told)

        super().start(unit, seen)
