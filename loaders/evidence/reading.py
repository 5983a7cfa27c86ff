"""Evidence of how a LoRA was trained: scripts, configs, logs and sidecars, read as what they are, never searched.

Every reader is a function from text to statements. A file that a person names is read in full and refused in one
sentence; files that merely lie beside a LoRA count only when they name it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ...engine.errors import FoundryError
from ...engine.lineage import DERIVED, NO_NAME, Claim, plain_name
from ..disk.hashes import SETTLED_NS
from ..disk.header import disk_errors, regular_file, shown
from ..disk.process import PROCESS
from ..disk.suffixes import SUFFIXES
from .claims import Statement, evidence_error
from .configs import read_readme, read_toml, read_yaml
from .logs import read_log
from .shell import read_shell
from .sidecars import read_json

MAX_TEXT, LOG_HEAD = 1_000_000, 8_000_000  # bytes; a log is read from its begin, where merges are told
MOST_FILES = 64  # looked at beside one LoRA
SHARED_ENDINGS = (".toml", ".yaml", ".yml", ".sh", ".bash", ".log")
OWN_ENDINGS = (".metadata.json", ".civitai.info", ".json", ".txt", *SHARED_ENDINGS)
SHARED_NAMES = ("config.json", "training_args.json", "args.json", "training_config.json")
LONELY_NAMES = ("adapter_config.json", "readme.md")  # of the one LoRA of a folder
STEP = re.compile(r"(-(step|epoch)-?\d+|-\d{6,})+$")  # what trainers add to the name of what is not the last


@dataclass(frozen=True)
class FileKind:
    """One kind of file: its name in lower case, and what reads it. ``head``: a begin of it is enough."""

    name: re.Pattern[str]
    read: Callable[[str, str], list[Statement]]
    head: bool = False


READERS = (
    FileKind(re.compile(r".*\.(sh|bash|zsh|command)"), read_shell),
    FileKind(re.compile(r".*\.(yaml|yml)"), read_yaml),
    FileKind(re.compile(r".*\.toml"), read_toml),
    FileKind(re.compile(r".*\.(json|civitai\.info)"), read_json),
    FileKind(re.compile(r".*\.md"), read_readme),
    FileKind(re.compile(r".*\.(log|txt|out)"), read_log, head=True),
)


def read_evidence(path: Path, lora: Path | None = None, sha256: str = "", run: str = "") -> tuple[Claim, ...]:
    """What a file says about base LoRAs; () when it says nothing.

    With ``lora`` only the runs that name it as their output count, if any does, or the one that is asked for: ``run``
    is what it writes, or its number in the file. ``sha256`` (hex) is that of the LoRA: a sidecar about this very file
    is more than a guess. Raises FoundryError ``evidence`` for what cannot be read, and where runs of which none names
    the LoRA say different things: one claim is right, and two would contradict each other.
    """
    try:
        statements = _statements(path, LOG_HEAD)
    except FoundryError as error:
        raise FoundryError("evidence", error.what, error.why, error.fix) from error
    if run:
        statements = _asked_for(statements, run, path.name)
    elif lora is not None:
        names = _names(lora)
        statements = tuple(s for s in statements if _is_of(s, names)) or statements
        if _contradict(statements):
            values = {"count": len(statements), "lora": shown(lora.name), "runs": _runs(statements)}
            raise evidence_error(path.name, "evidence.runs", **values)
    return _claims(statements, sha256)


def _asked_for(statements: tuple[Statement, ...], run: str, where: str) -> tuple[Statement, ...]:
    """The statements of one run, by what it writes or by its number."""
    found = tuple(s for s in statements if _is_of(s, frozenset({plain_name(run)})))
    found = found or tuple(s for number, s in enumerate(statements, 1) if run == str(number))
    if not found or _contradict(found):
        raise evidence_error(where, "evidence.no_run", run=shown(run), runs=_runs(statements) or "it tells of none")
    return found


def _runs(statements: tuple[Statement, ...]) -> str:
    """The runs of a file, as they can be asked for: ``1 (ink: lightning.safetensors), 2 (...)``."""
    return ", ".join(f"{number} ({_told(statement)})" for number, statement in enumerate(statements, 1))


def _told(statement: Statement) -> str:
    claim, writes = statement.claim, ", ".join(map(shown, statement.outputs))
    base = claim.trained_with if claim.trained_with is not None else claim.use_with or ()
    return f"{writes + ': ' if writes else ''}{', '.join(each.name for each in base) or 'no base LoRA'}"


def _contradict(statements: tuple[Statement, ...]) -> bool:
    """Whether two statements say different things of what the LoRA was trained with, or is used with.

    Names that differ in one file mean two LoRAs.
    """
    for field in ("trained_with", "use_with"):
        told = [s.claim.told(field) for s in statements]
        sets = {frozenset((plain_name(i.name), i.strength) for i in each) for each in told if each is not None}
        if len(sets) > 1:
            return True
    return False


def beside(path: Path, sha256: str = "") -> tuple[Claim, ...]:
    """Claims of files in a LoRA's folder that carry its name, or name it as what a run wrote. Never raises.

    At most 64 files of at most 1 MB are looked at; a folder is listed again only after it changed.
    """
    with suppress(FoundryError, OSError, ValueError):
        names = _names(path)
        own, shared, lonely = _candidates(path)
        found: list[Statement] = []
        for name in (*own, *shared, *lonely)[:MOST_FILES]:
            statements = _read_quietly(path.parent / name)
            found += [s for s in statements if _is_of(s, names) or (not s.outputs and name not in shared)]
        return _claims(found, sha256)
    return ()


def _claims(statements: tuple[Statement, ...] | list[Statement], sha256: str) -> tuple[Claim, ...]:
    """The claims, each once; a sidecar that knows the file's own hash is better than its place."""
    claims = []
    for statement in statements:
        claim = statement.claim
        if sha256 and statement.sha256 == sha256.lower():
            claim = replace(claim, evidence=replace(claim.evidence, level=DERIVED))
        claims.append(claim)
    return tuple(dict.fromkeys(claims))


def _names(lora: Path) -> frozenset[str]:
    """The names a run may have written this file under: its own, and its folder's where it has none of its own."""
    name = plain_name(lora.name)
    if not NO_NAME.fullmatch(name):
        return frozenset({name, STEP.sub("", name)})
    folders = [plain_name(folder.name) for folder in lora.absolute().parents[:2]]
    return frozenset(folders if NO_NAME.fullmatch(folders[0]) else folders[:1])


def _is_of(statement: Statement, names: frozenset[str]) -> bool:
    return any(plain_name(output) in names for output in statement.outputs)


def _candidates(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names beside a LoRA: those that carry its name, those of any run, and those of a folder with one LoRA."""
    changed = path.parent.stat().st_mtime_ns
    listing = PROCESS.files.get("listing", path.parent, changed) or _listing(path.parent)
    if _settled(changed):
        PROCESS.files.put(listing, "listing", path.parent, changed)
    everything, shared, alone = listing
    own = tuple(path.stem + ending for ending in OWN_ENDINGS if path.stem + ending in everything)
    lonely = tuple(name for name in everything if name.lower() in LONELY_NAMES) if alone else ()
    return own, tuple(name for name in shared if name not in own), lonely


def _listing(folder: Path) -> tuple[frozenset[str], tuple[str, ...], bool]:
    """A folder's names of interest, those any run may have written, and whether only one LoRA lies there."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    stems = {name.rpartition(".")[0] for name in names if name.lower().endswith(SUFFIXES)}
    everything = frozenset(name for name in names if name.lower().endswith((*OWN_ENDINGS, ".md")))
    strangers = (name for name in everything if name.rpartition(".")[0] not in stems)
    shared = [name for name in strangers if name.lower().endswith(SHARED_ENDINGS)]
    shared += [name for name in everything if name.lower() in SHARED_NAMES]
    return everything, tuple(sorted(shared)[:MOST_FILES]), len(stems) <= 1


def _read_quietly(path: Path) -> tuple[Statement, ...]:
    """What a file says; nothing when it cannot be read."""
    with suppress(FoundryError, OSError, ValueError):
        state = path.stat()
        looks = state.st_mtime_ns, state.st_size
        found: tuple[Statement, ...] | None = PROCESS.files.get("statements", path, looks)
        if found is None:
            found = _understood(path)
            if _settled(state.st_mtime_ns):
                PROCESS.files.put(found, "statements", path, looks)
        return found
    return ()


def _understood(path: Path) -> tuple[Statement, ...]:
    """What a file says; a fault is nothing, and remembered as that."""
    with suppress(FoundryError):
        return _statements(path, MAX_TEXT)
    return ()


def _settled(changed: int) -> bool:
    """Whether a change from now on would show in the modification time."""
    return time.time_ns() - changed > SETTLED_NS


def _statements(path: Path, head: int) -> tuple[Statement, ...]:
    size = regular_file(path).st_size
    reader = next((reader for reader in READERS if reader.name.fullmatch(path.name.lower())), None)
    if reader is None and path.suffix.lower() not in SUFFIXES:
        reader = FileKind(re.compile(""), read_shell) if _bytes(path, 2) == b"#!" else None
    if reader is None:
        raise evidence_error(path.name, "evidence.kind")
    most = head if reader.head else MAX_TEXT
    if size > most and not reader.head:
        raise evidence_error(path.name, "evidence.large", most=MAX_TEXT)
    return tuple(reader.read(_text(_bytes(path, most), path.name, size > most), path.name))


def _bytes(path: Path, most: int) -> bytes:
    with disk_errors(path), path.open("rb") as file:
        return file.read(most)


def _text(data: bytes, where: str, cut: bool) -> str:
    """The text of a file, also of a log that Windows redirected (UTF-16); a last line that was cut is left out."""
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(coding, errors="replace")
    if "\0" in text:
        raise evidence_error(where, "evidence.no_text")
    return text[: text.rfind("\n") + 1] if cut else text
