"""A plan baked into a file: what the save node, the command line and the demo share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from ..engine.bake import BakeReport, Progress, bake
from ..engine.errors import FoundryError
from ..engine.finish import Finish, file_metadata, outputs
from ..engine.plan import Plan, recipe_sha256
from ..engine.rules import check, raise_first
from .checkpoints import fingerprint
from .documents import Document, resolve_path
from .shards import find_files
from .writer import check_target, write_safetensors


def bake_to_file(
    plan: Plan, finish: Finish, out: Path, on_step: Progress | None = None, device: torch.device | None = None
) -> tuple[BakeReport, str]:
    """Stream the finished plan into ``out``; returns (report, recipe hash). The model is never held in memory.

    An ``out`` that exists is replaced once the new file is complete. Raises FoundryError, LF203 for a plan that would
    change nothing, or the plan's own first error.
    """
    raise_first(check(plan))
    if finish.fp8 is None and finish.dtype is None and not plan.by_weight():
        what = f"Nothing would change: {plan.base.name} with no LoRA, no quantization and no other dtype."
        raise FoundryError("LF203", what, fix="Add a LoRA with a weight that is not 0, or choose how to finish.")
    recipe = plan.recipe(finish.settings(), fingerprint(plan.base.source))
    sha256 = recipe_sha256(recipe)
    with write_safetensors(out, outputs(plan, finish), file_metadata(plan, finish, recipe, sha256)) as sink:
        report = bake(plan, finish, sink, on_step, device)
    return report, sha256


def refuse_input(out: Path, doc: Document) -> None:
    """FoundryError when ``out`` cannot be written, or is a file the document reads, be its row on or off.

    No file is read: a wrong name is told at once, not after gigabytes were hashed.
    """
    check_target(out)
    if not out.exists():
        return
    for path in input_files(doc):
        if path.exists() and path.samefile(out):
            what = f"{out} is an input of the document itself ({path.name})."
            raise FoundryError("usage", what, "It would be lost.", "Choose another name for the result.")


def input_files(doc: Document) -> Iterator[Path]:
    """Every local file a document names, all shards of the base among them; missing ones are left to the planner."""
    names = [row.path for row in (*doc.fuse, *doc.stack)]
    for name in names:
        with suppress(FoundryError):
            yield resolve_path(name, doc.folder, lambda _: True)
    if doc.base is not None:
        with suppress(FoundryError):
            yield from find_files(resolve_path(doc.base, doc.folder))[0]
