"""The routes of the rows editor: what it asks of LoRAs, bases and saved stacks. Names only, never paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.errors import FoundryError
from ..engine.texts.say import refuse
from ..loaders.bases.checkpoint import open_checkpoint
from ..loaders.disk.changes import state_of
from ..loaders.disk.header import read_header
from ..loaders.documents.shelf import delete_stack, load_stack, save_stack, stack_names
from ..loaders.evidence.titles import title_of
from ..loaders.lineage.provenance import lineage_of
from ..loaders.lineage.registry import users_file
from ..loaders.lineage.store import record_folders
from ..loaders.loras.previews import Preview, picture_beside, picture_inside
from ..loaders.plans.rows import block_facts, row_facts
from ..loaders.remote.fetching import cached
from ..loaders.remote.names import is_remote
from . import folders
from .bodies import MOST_NAMES, text, unfit
from .lineage import hashed_ids
from .remotes import allowed, lora_here


@dataclass(frozen=True)
class Listing:
    """The LoRA files by name. ``state`` changes with the files, with what lies beside them, and with the records."""

    names: list[str]
    state: str

    def read(self) -> tuple[bytes, str]:
        """The JSON of the names."""
        return json.dumps({"schema": 1, "loras": self.names}).encode(), "application/json"


def find_loras(query: Mapping[str, str]) -> Listing:
    """The names of all LoRA files, as ComfyUI lists them; no file is opened."""
    names = folders.model_files("loras")
    places = [*folders.folders_of(names, "loras"), *record_folders(), users_file()]
    return Listing(names, "\n".join([*names, state_of(places)]))


def post_rows(query: Mapping[str, str], body: Any) -> dict[str, Any]:
    """``{"loras": [names], "base"}``: of each LoRA what its header tells, and how it fits that base (null: not asked).

    Nothing is hashed and no weight is read. A LoRA that is not there has ``missing``; a base that is not there or
    cannot be read leaves the fit untold.
    """
    names, base = names_of(body), text(body, "base") if body.get("base") is not None else ""
    path = readable_base(base) if base else None
    return {"schema": 1, "rows": {name: row_of(name, path) for name in names}}


def post_titles(query: Mapping[str, str], body: Any) -> dict[str, Any]:
    """``{"loras": [names]}``: the titles of those that have one, by what lies beside them or their header."""
    find = folders.Listed()
    titles = {name: title_of(path) for name in names_of(body) if (path := find("loras", name))}
    return {"schema": 1, "titles": {name: title for name, title in titles.items() if title}}


def names_of(body: Mapping[str, Any]) -> list[str]:
    """The LoRAs of a body. FoundryError ``body`` for anything that is no list of names, or a longer one."""
    names = body.get("loras")
    if not isinstance(names, list) or len(names) > MOST_NAMES or not all(isinstance(name, str) for name in names):
        raise unfit("loras", names, f"a list of at most {MOST_NAMES} names")
    return names


def readable_base(name: str) -> Path | None:
    """The file or folder of a base that a LoRA can be compared with; None for any other name."""
    try:
        path = folders.find_base(name)[0]
        open_checkpoint(path)
        return path
    except FoundryError:
        return None


def row_of(name: str, base: Path | None) -> dict[str, Any]:
    """The facts of one LoRA by name; of one from elsewhere those of the copy that is here, for nothing is loaded."""
    try:
        if is_remote(name):
            here = cached(allowed(name, "loras"))
            return {} if here is None else row_facts(here, base)
        path = folders.find_file(name, "loras")
    except FoundryError as error:
        return {"missing": True, "error": str(error), "refused": error.to_json()}
    return row_facts(path, base, lineage_of(path) if hashed_ids(path) else None)


def find_picture(query: Mapping[str, str]) -> Preview:
    """``?lora=NAME``: the picture beside that LoRA, or in its header. FoundryError ``file`` where there is none."""
    path = lora_here(query.get("lora"))
    found = picture_beside(path) or picture_inside(path, read_header(path).metadata)
    if found is None:
        raise refuse("file.no_preview", lora=path.name)
    return found


def post_blocks(query: Mapping[str, str], body: Any) -> dict[str, Any]:
    """``{"base", "blocks": TEXT}``: every block of that base, and the factors that the text gives them.

    No blocks for a base that is not there or cannot be read: nothing is known of them.
    """
    path = readable_base(text(body, "base"))
    nothing: dict[str, Any] = {"family": None, "blocks": [], "text_encoder": 1.0, "error": ""}
    return {"schema": 1, **(nothing if path is None else block_facts(path, text(body, "blocks")))}


def get_stacks(query: Mapping[str, str], body: Any) -> dict[str, Any]:
    """The names of all saved stacks; with ``?name=NAME`` the rows of one, as they are written."""
    if "name" in query:
        return {"schema": 1, "name": query["name"], "rows": load_stack(query["name"])}
    return {"schema": 1, "stacks": stack_names()}


def post_stacks(query: Mapping[str, str], body: Any) -> dict[str, Any]:
    """``{"name", "rows", "replace"}``: those rows are kept under that name. What is there stays unless ``replace``."""
    rows, replace = body.get("rows"), body.get("replace", False)
    if not isinstance(rows, list):
        raise unfit("rows", rows, "a list of rows")
    if not isinstance(replace, bool):
        raise unfit("replace", replace, "true or false")
    save_stack(text(body, "name"), rows, replace)
    return {"schema": 1, "stacks": stack_names()}


def post_delete_stack(query: Mapping[str, str], body: Any) -> dict[str, Any]:
    """``{"name"}``: that saved stack is gone."""
    delete_stack(text(body, "name"))
    return {"schema": 1, "stacks": stack_names()}
