"""What the verbs of the terminal command share: a plan with its findings, and how both are shown."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.errors import FoundryError
from ..engine.findings import Finding
from ..engine.texts.say import refuse
from .looks import room, tell
from .terminal import Transfers, note, span, table

if TYPE_CHECKING:
    import torch

    from ..engine.json_types import LineageJSON, ReportJSON
    from ..engine.plan import Plan
    from ..loaders.documents.document import Document
    from ..loaders.remote.names import Where
    from ..loaders.remote.objects import Asking

DONE, STOPPED, MISUSE, INTERRUPTED = 0, 1, 2, 130
DRAWN = "draw what was measured: an SVG into this folder"
ALLOW_PARTIAL = "take LoRAs of which over 10%% of the energy finds no weight"


class Refused(Exception):
    """An error that ends the command, with everything else that was found."""

    def __init__(self, error: FoundryError, findings: Iterable[Finding] = ()) -> None:
        self.error, self.findings = error, tuple(findings)
        super().__init__(str(error))


def exit_code(error: FoundryError) -> int:
    """1 for a verdict about a stack (LFxxx), 2 for input that cannot be worked with."""
    return STOPPED if error.code.startswith("LF") else MISUSE


def spelled(old: Mapping[str, str]) -> Callable[[str], str]:
    """A ``type`` for an option whose values had other names: the old ones still work, and a note tells the new."""

    def read(text: str) -> str:
        if text in old:
            note(f"'{text}' is spelled '{old[text]}' now.")
        return old.get(text, text)

    return read


class OldOption(argparse.Action):
    """An option under its old name; ``metavar`` is the new one. It does the same, and a note tells the new name."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        """Store the value, or True where it takes none."""
        note(f"{option} is called {self.metavar} now.")
        setattr(namespace, self.dest, True if self.nargs == 0 else values)


def print_json(data: Mapping[str, object]) -> None:
    """The one object of ``--json``."""
    print(json.dumps(data, indent=1))


def answer(as_json: bool, data: Mapping[str, object], *lines: str | Path) -> None:
    """What a verb found: as JSON, or its lines."""
    if as_json:
        print_json(data)
    else:
        tell(*lines)


def refuse_same(read: Path, out: Path) -> None:
    """FoundryError ``convert`` where ``out`` is the workflow that is read, ``file`` where its folder is not there."""
    refuse_nowhere(out)
    if out.exists() and read.exists() and out.samefile(read):
        raise refuse("convert.same", out=out)


def refuse_nowhere(out: Path) -> None:
    """FoundryError ``file`` where a file is to be written into a folder that is not there."""
    from ..loaders.disk.header import file_error, shown

    if not out.parent.is_dir():
        raise file_error(out, "file.target_nowhere", folder=shown(str(out.parent)))


def write_text(path: Path, text: str) -> None:
    """Write a small file, whole or not at all. Raises FoundryError ``file``."""
    from ..loaders.disk.header import disk_errors
    from ..loaders.disk.temps import temporary

    refuse_nowhere(path)
    with disk_errors(path), temporary(path.parent) as temp:
        temp.write_text(text, encoding="utf-8", errors="replace")
        temp.replace(path)


def write_picture(folder: Path, name: str, told: ReportJSON, plan: Plan) -> None:
    """``name.svg`` in a folder that is there: what a check or a bake told, and where its LoRAs are strong."""
    from ..loaders.plans.strength import with_energy
    from .picture import svg

    write_text(folder / f"{name}.svg", svg(with_energy(told, plan), name))


def choose_device(name: str) -> torch.device:
    """``cpu``, ``cuda`` or ``cuda:1`` as a device that is there; else FoundryError ``usage``."""
    import torch

    if name == "cpu":
        return torch.device(name)
    count, match = torch.cuda.device_count(), re.fullmatch(r"cuda(?::([0-9]+))?", name)
    if match is None or int(match[1] or 0) >= count:
        raise refuse("usage.device", device=name, torch=torch.__version__, count=count)
    return torch.device("cuda", int(match[1] or 0))


def where(text: str) -> Where:
    """A ``type`` for an option that names a file of this machine or elsewhere. FoundryError ``remote``."""
    if "://" not in text:
        return Path(text)
    from ..loaders.remote.names import where_of

    return where_of(text)


@contextmanager
def from_elsewhere(transfers: Transfers | None = None) -> Iterator[Asking]:
    """How the terminal asks for files elsewhere: any address will do, and a line shows how far each is."""
    from ..loaders.remote.objects import Asking

    with transfers or Transfers() as shown:
        yield Asking(on_bytes=shown)


def planned(
    document: Document,
    policy: str = "allow accelerators",
    look_into_weights: bool = False,
    transfers: Transfers | None = None,
) -> tuple[Plan, tuple[Finding, ...]]:
    """(the plan of every row that can be planned, all findings worst first); Refused when a row's file is unusable.

    ``look_into_weights`` also compares the LoRAs with each other, as the Stack Validator does; ``transfers`` is told
    of what comes from elsewhere, later of a base too.
    """
    from ..loaders.plans.judged import judged

    for text in document.notes:
        note(text)
    with from_elsewhere(transfers) as asking:
        found = judged(document, policy, look_into_weights, asking)
    if found.unusable is not None:
        raise Refused(found.unusable, found.findings)
    return found.plan, found.findings


def print_layers(plan: Plan, gains: Sequence[float | None] = ()) -> None:
    """The base, and a table of the LoRAs with what a bake kept of them."""
    from ..engine.report import layers_json
    from ..loaders.disk.header import shown

    family = plan.base.family or "family not recognised"
    print(f"base   {shown(plan.base.name)} ({family})" + (", no base LoRA by choice" if plan.vanilla else ""))
    layers = layers_json(plan, gains)
    columns: dict[str, list[str]] = {
        "stage": [layer["stage"] for layer in layers],
        "LoRA": [shown(layer["path"], 60) for layer in layers],
        "strength": [f"{layer['weight']:g}" for layer in layers],
        "modules": [f"{layer['matched']} of {layer['modules']}" for layer in layers],
        "scale": [span(*layer["scale"]) if layer["scale"] else "-" for layer in layers],
        "dialect": [layer["dialect"] for layer in layers],
    }
    if any(layer["lineage"]["trained_with"] is not None for layer in layers):
        columns["trained with"] = [trained_with(layer["lineage"]) for layer in layers]
    if gains:  # before a bake nothing is known of what is kept
        columns["kept"] = ["-" if layer["gain"] is None else f"{layer['gain']:.1%}" for layer in layers]
    print(table(list(zip(*columns.values(), strict=True)), list(columns), room()) if layers else "no LoRA")


def trained_with(lineage: LineageJSON) -> str:
    """What a LoRA was trained with, for a table."""
    from ..loaders.disk.header import shown

    names = lineage["trained_with"]
    return "not known" if names is None else shown(", ".join(names) or "no base LoRA", 60)


def print_findings(findings: Iterable[Finding]) -> None:
    """Every finding as a sentence."""
    tell(*([finding.sentence() for finding in findings] or ["No findings."]))
