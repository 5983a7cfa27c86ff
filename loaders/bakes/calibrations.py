"""Calibrations in files: what the Linears of a model were given while it sampled, kept under a name of the user's.

One safetensors file each: ranges, sets of inputs and where it all comes from are JSON in its header, Gram matrices and
tokens kept aside its tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...engine.calibration import BLOCKS, GRAM, HELD, RANGES, ROUNDING, Calibration, Origin, Range
from ...engine.collect import Allocate, Collector
from ...engine.json_verbs import InspectedCalibrationJSON
from ...engine.texts.say import refuse
from ..disk.header import file_error, read_header
from ..disk.home import data_home
from ..disk.source import FileSource
from ..disk.targets import plain_fault
from ..disk.temps import sweep, temporary
from ..disk.writer import write_safetensors
from ..plans.describe import common_facts

KEY = "lora_foundry_calibration"  # of the header's metadata
SCHEMA = 1
MOST = torch.finfo(torch.float32).max
SUFFIX = ".safetensors"


def calibrations_folder() -> Path:
    """Where they are kept by name; it need not exist."""
    return data_home() / "calibrations"


def calibration_names() -> list[str]:
    """Those that are there, sorted."""
    with suppress(OSError):
        return sorted(path.name.removesuffix(SUFFIX) for path in calibrations_folder().glob(f"[!.]*{SUFFIX}"))
    return []


def calibration_path(name: str) -> Path:
    """The file of a name. FoundryError ``usage`` for what no file can be called here or elsewhere."""
    if fault := plain_fault(name, SUFFIX):
        raise refuse("usage.calibration", name=f"{name!r:.80}", fault=fault)
    return calibrations_folder() / (name + SUFFIX)


def find_calibration(name: str) -> Path:
    """The file of a name, or a path to one. FoundryError ``file`` where there is neither."""
    if name.lower().endswith(SUFFIX):
        return Path(name)
    path = calibration_path(name)
    if not path.is_file():
        raise refuse("file.calibration", name=repr(name), known=", ".join(calibration_names()) or "none")
    return path


def save_calibration(path: Path, collected: Collector, origin: Origin) -> None:
    """Write what was collected, tensor by tensor. Raises FoundryError ``file``."""
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "origin": asdict(origin),
        "ranges": {name: asdict(seen) for name, seen in collected.ranges().items()},
        "sets": collected.sets(),
    }
    parts = collected.parts()
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [info for info, _ in parts]
    with write_safetensors(path, entries, {"format": "pt", KEY: json.dumps(told)}) as sink:
        for info, make in parts:
            sink.write(info.name, make())


def load_calibration(path: Path) -> Calibration:
    """The calibration in a file; its tensors are read when they are asked for. Raises FoundryError ``file``."""
    source = FileSource(path)
    try:
        told = json.loads(source.metadata.get(KEY, "null"))
        if not isinstance(told, dict) or told.get("schema") != SCHEMA:
            raise file_error(path, "file.no_calibration")
        origin = Origin(**{**told["origin"], **{part: tuple(told["origin"][part]) for part in ("layers", "others")}})
        ranges = {str(name): Range(**seen) for name, seen in told["ranges"].items()}
        sets = {str(name): str(found) for name, found in told["sets"].items()}
        sound = all(map(_is_sound, ranges.values())) and all(_is_there(source, found) for found in set(sets.values()))
        sound = sound and _is_told(origin)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise file_error(path, "file.calibration_form", reason=error) from error
    if not sound:
        raise file_error(path, "file.calibration_numbers")
    return Calibration(path.name.removesuffix(SUFFIX), _identity(told, source), ranges, sets, origin, source)


def is_calibration(path: Path) -> bool:
    """Whether a path is a file that says so in its header. Raises FoundryError ``file``."""
    return path.name.lower().endswith(SUFFIX) and path.is_file() and KEY in read_header(path).metadata


def describe_calibration(path: Path) -> InspectedCalibrationJSON:
    """Facts about a calibration; what its origin says are claims. Raises FoundryError ``file`` for a damaged one."""
    known, source = load_calibration(path), FileSource(path)
    origin, beside = known.origin, {key: text for key, text in source.metadata.items() if key != KEY}
    return {
        "kind": "calibration",
        **common_facts(source),
        "metadata": beside,
        "what": ROUNDING if known.sets else RANGES,
        "linears": len(known.ranges),
        "tokens": max((seen.tokens for seen in known.ranges.values()), default=0),
        "base": origin.base,
        "fingerprint": origin.fingerprint,
        "loras": [f"{layer['lora']} x {layer['strength']:g}" for layer in origin.layers],
        "others": list(origin.others),
    }


def _identity(told: Any, source: FileSource) -> str:
    """The hash of what is told, and of each tensor's shape and edges: gigabytes are not read for it."""
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, info in sorted(source.tensors.items()):
        digest.update(f"{name}{info.dtype}{info.shape}".encode() + source.edges(name))
    return digest.hexdigest()


def _is_told(origin: Origin) -> bool:
    """Whether names are texts and strengths numbers."""
    texts = [origin.base, origin.fingerprint, *origin.others]
    for layer in origin.layers:
        texts += [layer["lora"], layer["sha256"], layer.get("blocks", "")]
    strengths = [layer["strength"] for layer in origin.layers]
    return all(isinstance(each, str) for each in texts) and all(map(_is_number, strengths))


def _is_number(each: Any) -> bool:
    return isinstance(each, int | float) and -MOST <= each <= MOST


def _is_sound(seen: Range) -> bool:
    return all(_is_number(each) and each >= 0 for each in asdict(seen).values())


def _is_there(source: FileSource, found: str) -> bool:
    """Whether the tensors of a set fit each other."""
    gram, held = (source.tensors.get(f"{found}.{part}") for part in (GRAM, HELD))
    if gram is None or held is None or len(gram.shape) != 2 or len(held.shape) != 2:
        return False
    width, size = gram.shape
    fits = 0 < size <= width == held.shape[1] and (size in BLOCKS or (size == width < max(BLOCKS)))
    return fits and gram.dtype == torch.float32


@contextmanager
def spilled(folder: Path) -> Iterator[Allocate]:
    """Matrices of zeros that lie in files of ``folder``, which the system keeps in memory as far as it likes."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    with temporary(folder) as place:
        place.mkdir()

        def allocate(shape: tuple[int, int]) -> torch.Tensor:
            path = place / str(len(list(place.iterdir())))
            return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=torch.float32).view(shape)

        yield allocate
