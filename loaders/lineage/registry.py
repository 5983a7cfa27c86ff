"""The registry of known accelerators and other LoRAs with a role of their own: names, hashes, what publishers say.

Its entries are data: ``accelerators.json`` beside this file, and one of the user's in ``data_home()`` that comes first.
An entry of the user's with the id of a built-in one replaces its values and extends its lists. Every fault is a
FoundryError ``registry`` that names the file, the entry and the key: an entry in silence left out would be missed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from ...engine.lineage import ACCELERATOR, FILE_ID, ROLES, TENSORS_ID, UNKNOWN
from ...engine.plan import Adapter
from ...engine.texts.say import refuse
from ...validator.fingerprint import Fingerprint
from ..disk.header import shown
from ..disk.home import data_home, recall
from .identity import identifies

FILE = "accelerators.json"
BUILT_IN = Path(__file__).with_name(FILE)
SCHEMA = 1
EMPTY = json.dumps({"schema": SCHEMA, "entries": []})
# What copies add to a name: the dtype, who it was converted for, " (1)" of a browser, a lone "_".
TAIL = r"(?:-(?:bf16|fp16|fp32|fp8|f16|e4m3fn|scaled|comfyui|converted|half|\(\d\)))*-?"
Range = tuple[float, float]


@dataclass(frozen=True)
class Structure:
    """So many LoRA modules, all of one rank and alpha, whose names in the file all fit ``names``."""

    modules: int
    rank: int
    alpha: float
    names: re.Pattern[str]

    def fits(self, adapters: tuple[Adapter, ...]) -> bool:
        """Whether these are the adapters of such a file."""
        alike = all((each.kind, each.rank, each.alpha) == ("lora", self.rank, self.alpha) for each in adapters)
        return alike and len(adapters) == self.modules and all(self.names.fullmatch(each.module) for each in adapters)


@dataclass(frozen=True)
class KnownLoRA:
    """What is known of one LoRA, in all the dtypes and ranks it is offered in.

    ``match`` fits whole names as ``plain_name`` writes them (lower case, ``-`` for ``_``, ``.`` and blanks), or
    ``folder/name``. ``generic`` stands for several versions: it says what they share and identifies none. Ranges are
    (least, most), None where ``source`` does not say; ``cfg`` is the sampler's, 1 where a publisher uses none.
    ``made_on`` is the format of the weights it was distilled on, where that was no plain one.
    """

    id: str
    name: str
    publisher: str
    family: str
    match: tuple[re.Pattern[str], ...]
    source: str
    role: str = ACCELERATOR
    generic: bool = False
    strength: Range | None = None
    steps: tuple[int, int] | None = None
    cfg: Range | None = None
    structure: Structure | None = None
    made_on: str = ""
    ids: frozenset[str] = frozenset()
    fingerprints: tuple[Fingerprint, ...] = ()


def registry() -> tuple[KnownLoRA, ...]:
    """All entries, the user's first; those of a broken file of the user's are left out (``registry_fault``)."""
    path = users_file()
    return _entries(path, recall(path))[0]


def registry_fault() -> FoundryError | None:
    """What is wrong with the user's file, as far as something is: its good entries and the built-in ones count."""
    path = users_file()
    return _entries(path, recall(path))[1]


def users_file() -> Path:
    """Where the user's entries are; it need not exist."""
    return data_home() / FILE


def parse(path: Path, text: str) -> dict[str, Any]:
    """A registry's text as data: ``entries`` is a list of objects. Raises FoundryError ``registry``."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"it is no JSON ({shown(str(error))})") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise _broken(path, f'"schema": {SCHEMA} is missing in it')
    entries = data.get("entries")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _broken(path, "its 'entries' are no list of entries")
    return data


# --- from data to entries


@lru_cache(maxsize=2)
def _entries(path: Path, text: str) -> tuple[tuple[KnownLoRA, ...], FoundryError | None]:
    built_in = {entry["id"]: entry for entry in parse(BUILT_IN, recall(BUILT_IN))["entries"]}
    made: dict[str, KnownLoRA] = {}
    faults: list[FoundryError] = []
    try:
        users = parse(path, text.strip() or EMPTY)["entries"]
    except FoundryError as error:
        users, faults = [], [error]
    for number, own in enumerate(users, 1):
        try:
            entry = _entry(path, f"entry {number}", _merged(built_in, own))
            if entry.id in made:
                raise _broken(path, "two of its entries have one 'id'")
            made[entry.id] = entry
        except FoundryError as error:
            faults.append(error)
    rest = tuple(_entry(BUILT_IN, id, entry) for id, entry in built_in.items() if id not in made)
    return (*made.values(), *rest), next(iter(faults), None)


def _merged(built_in: Mapping[str, Mapping[str, Any]], own: Mapping[str, Any]) -> dict[str, Any]:
    known = built_in.get(str(own.get("id")), {})
    both = {key: [*known[key], *own[key]] for key in LISTS if key in known and isinstance(own.get(key), list)}
    return {**known, **own, **both}


def _entry(path: Path, label: str, data: Mapping[str, Any]) -> KnownLoRA:
    label = f"entry '{shown(data['id'])}'" if isinstance(data.get("id"), str) else label
    if unknown := next((key for key in data if key not in READERS), None):
        raise _broken(path, f"'{shown(unknown)}' of {label} is no key of an entry")
    values: dict[str, Any] = {}
    for key, (read, needed) in READERS.items():
        if data.get(key) is None and not needed:
            continue
        try:
            values[key] = read(data.get(key))
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, re.error) as error:
            raise _broken(path, f"'{key}' of {label} is wrong: {shown(str(error))}") from error
    ids = {f"{kind}{digest}" for key, kind in HASHES.items() for digest in values.pop(key, ())}
    if values.get("generic") and (ids or "fingerprints" in values):
        raise _broken(path, f"{label} is generic and lists hashes or fingerprints, which are of one version each")
    return KnownLoRA(**values, ids=frozenset(ids))


def _text(value: Any) -> str:
    _require(isinstance(value, str) and bool(value.strip()), "it must be a text")
    return str(value)


def _flag(value: Any) -> bool:
    _require(isinstance(value, bool), "it must be true or false")
    return bool(value)


def _role(value: Any) -> str:
    roles = [role for role in ROLES if role != UNKNOWN]
    _require(value in roles, f"it must be one of {', '.join(roles)}")
    return str(value)


def _list(value: Any) -> list[Any]:
    _require(isinstance(value, list), "it must be a list")
    return list(value)


def _patterns(value: Any) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(f"(?:{_text(pattern)}){TAIL}") for pattern in _list(value))


def _hashes(value: Any) -> list[str]:
    for digest in _list(value):
        _require(
            isinstance(digest, str) and identifies(digest), "it must hold whole hashes in lower case, of something"
        )
    return list(value)


def _range(value: Any) -> Range:
    numbers = len(_list(value)) == 2 and {*map(type, value)} <= {int, float}
    _require(numbers and -100 <= value[0] <= value[1] <= 1000, "it must be two numbers, the least and the most")
    return value[0], value[1]


def _steps(value: Any) -> Range:
    _require({*map(type, _list(value))} == {int} and min(value) > 0, "it must be two whole numbers from 1 on")
    return _range(value)


def _structure(value: Any) -> Structure:
    names = re.compile(_text(value["names"]))
    return Structure(int(value["modules"]), int(value["rank"]), float(value["alpha"]), names)


def _require(fine: bool, otherwise: str) -> None:
    if not fine:
        raise ValueError(otherwise)


HASHES = {"sha256": FILE_ID, "tensor_sha256": TENSORS_ID}
LISTS = ("match", *HASHES, "fingerprints")
READERS: dict[str, tuple[Callable[[Any], Any], bool]] = {  # key -> what reads it, whether it must be there
    **dict.fromkeys(("id", "name", "publisher", "family", "source"), (_text, True)),
    "match": (_patterns, True),
    "role": (_role, False),
    "generic": (_flag, False),
    **dict.fromkeys(("strength", "cfg"), (_range, False)),
    "steps": (_steps, False),
    "structure": (_structure, False),
    "made_on": (_text, False),
    **dict.fromkeys(HASHES, (_hashes, False)),
    "fingerprints": (lambda value: tuple(map(Fingerprint.from_json, _list(value))), False),
}


def _broken(path: Path, fault: str) -> FoundryError:
    return refuse("registry.wrong", file=path.name, folder=path.parent, what=fault)
