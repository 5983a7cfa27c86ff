"""Which files make up one model: a single file, numbered shards, an index, or a folder with one of these."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from ...engine.errors import FoundryError
from .header import MAX_HEADER, disk_errors, file_error, regular_file, shown
from .suffixes import SUFFIXES

INDEX = ".index.json"
MAX_SHARDS = 1000
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")


def find_files(path: Path) -> tuple[tuple[Path, ...], Mapping[str, Path]]:
    """The files of a model, each once, and where its index says each tensor is (empty without an index)."""
    with disk_errors(path):
        if path.is_dir():
            path = _in_folder(path)
        weight_map = _read_index(path) if path.name.endswith(INDEX) else {}
        files = tuple(sorted(set(weight_map.values()))) or all_shards(path)
        _check_complete(path, files)
    return files, weight_map


def _in_folder(folder: Path) -> Path:
    """The one index, set of shards or single file that a folder holds."""
    names = sorted(entry.name for entry in folder.iterdir())
    indexes = [name for name in names if name.endswith(".safetensors" + INDEX)]
    models = [name for name in names if name.endswith(SUFFIXES)]
    found = indexes or list({all_shards(folder / name): name for name in models}.values())
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise file_error(folder, "file.several", models=_some(found))
    raise file_error(folder, "file.no_model", names=_some(names) or "nothing")


def all_shards(path: Path) -> tuple[Path, ...]:
    """Every shard of the set this file is one of, or the file alone."""
    return tuple(path.with_name(name) for name in shard_names(path.name))


def shard_names(name: str) -> tuple[str, ...]:
    """What the shards of the set are called that a file of this name is one of, or the name alone."""
    match = _SHARD.fullmatch(name)
    if not match or not 1 <= int(match[3]) <= MAX_SHARDS:
        return (name,)
    return tuple(f"{match[1]}-{i:05}-of-{match[3]}{match[4]}" for i in range(1, int(match[3]) + 1))


def _check_complete(path: Path, files: tuple[Path, ...]) -> None:
    missing = [file.name for file in files if not file.exists()]
    if missing and len(files) > 1:
        raise file_error(path, "file.shards_missing", count=len(files), missing=len(missing), names=_some(missing))


def _read_index(path: Path) -> dict[str, Path]:
    if regular_file(path).st_size > MAX_HEADER:
        raise file_error(path, "file.index_large", most=MAX_HEADER)
    try:
        index = json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise file_error(path, "file.index_damaged", reason=shown(str(error))) from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not weight_map or not isinstance(weight_map, dict):
        raise file_error(path, "file.index_none")
    return {name: _inside(path, file) for name, file in weight_map.items()}


def _inside(index: Path, name: object) -> Path:
    """A shard's path; an index from elsewhere must not name files outside its own folder."""
    if not isinstance(name, str) or not name or re.search(r"[\\:\0]", name) or name.startswith("/"):
        raise _outside(index, name)
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts:
        raise _outside(index, name)
    return index.parent.joinpath(*parts)


def _outside(index: Path, name: object) -> FoundryError:
    return file_error(index, "file.index_outside", shard=shown(str(name)))


def _some(names: Iterable[str]) -> str:
    """The first names, for a message."""
    listed = [shown(name) for name in names]
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
