"""One LoRA out of two checkpoints: what makes the tuned one of the base, as small as asked, tensor by tensor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ...engine.json_merge import ExtractJSON, ExtractRecipeJSON
from ...engine.merge.extract import Extraction, extract
from ...engine.merge.proof import Proof
from ...engine.merge.ranks import Policy
from ...engine.merge.run import Entries
from ...engine.progress import Progress, part_of
from ...engine.texts.say import refuse
from ..bases.checkpoint import Checkpoint, open_model
from ..bases.families import detect_base, differ
from ..disk.writer import check_target
from ..names.outgoing import COMFYUI, Outgoing
from ..remote.names import Where, label_of
from ..remote.objects import ANYTHING, Asking
from .merging import DTYPES, policy_text
from .outfile import OutFile
from .pairs import Pairs
from .record import proof_json, ranks_told, told_apart

KEY = "lora_foundry.extract"


@dataclass(frozen=True)
class Wish:
    """What is to be extracted, where to, how small, and the most that may be lost (None: anything)."""

    tuned: Where
    base: Where
    out: Path
    policy: Policy
    dialect: str = COMFYUI
    dtype: str = "fp16"
    max_error: float | None = None


def extract_lora(wish: Wish, on_step: Progress | None = None, asking: Asking = ANYTHING) -> ExtractJSON:
    """Write the LoRA and tell what it keeps. ``on_step(done, total)`` may raise to cancel; then nothing was written.

    ``asking``: how models elsewhere are asked for. Raises FoundryError: LF504 for models of two families, LF502 for
    weights of two shapes or models that are equal, LF506 for a LoRA that loses more than is allowed; then nothing was
    written either.
    """
    check_target(wish.out)
    tuned, base = (_opened(where, asking) for where in (wish.tuned, wish.base))
    names = label_of(wish.tuned), label_of(wish.base)
    family = _family(wish, tuned, base)
    pairs = Pairs(tuned, base, Outgoing(base.tensors, family, wish.dialect))
    units = pairs.units
    recipe: ExtractRecipeJSON = {
        "tuned": names[0], "base": names[1], "family": family, "policy": policy_text(wish.policy),
        "dialect": wish.dialect, "dtype": wish.dtype,
    }  # fmt: skip
    told = {"format": "pt"}

    def room(entries: Entries) -> int:
        return 4096 + sum(len(key) + 40 for key in entries)

    file = OutFile(units, wish.dialect, DTYPES[wish.dtype], told, room)
    job = Extraction({key: unit.shape for key, unit in units.items()}, pairs.read, wish.policy, DTYPES[wish.dtype])
    entries, finished = extract(job, file.size, part_of(on_step, 0, 2))
    with file.open(wish.out, entries) as out:
        sums = {}
        for done, each in enumerate(finished):
            if on_step is not None:
                on_step(len(entries) + done, 2 * len(entries))
            out.put(each.module, each.stored)
            sums[each.module] = each.sums
        proof = proof_json(Proof.of([names[0]], sums))
        _refuse_loss(wish, proof["error"])
        out.complete({KEY: json.dumps({"recipe": recipe, "proof": proof})})
    ranks = [entry.rank for entry in entries.values() if entry.rank]
    return {
        "out": str(wish.out), "bytes": wish.out.stat().st_size, "recipe": recipe, "proof": proof,
        "modules": sum(entry.rank != 0 for entry in entries.values()),
        "rank": [min(ranks), max(ranks)] if ranks else None,
    }  # fmt: skip


def extract_sentence(told: ExtractJSON) -> str:
    """What was extracted, and what the rank lost."""
    lost = f"{told['modules']} modules{ranks_told(told['rank'])}, {told['proof']['error']:.2%} of the difference lost"
    return f"{told['recipe']['policy']}: {lost}"


def _refuse_loss(wish: Wish, error: float) -> None:
    if wish.max_error is not None and error > wish.max_error:
        values = told_apart(error, wish.max_error)
        raise refuse("LF506.extract", out=wish.out.name, dtype=wish.dtype, **values)


def _opened(where: Where, asking: Asking) -> Checkpoint:
    model = open_model(where, asking)
    if model.quantized is not None:
        raise refuse("LF504.quantized", model=label_of(where), quantized=model.quantized)
    return model


def _family(wish: Wish, tuned: Checkpoint, base: Checkpoint) -> str | None:
    one, other = detect_base(tuned.tensors), detect_base(base.tensors)
    if differ(one, other):
        values = {"one": label_of(wish.tuned), "one_family": one, "other": label_of(wish.base), "other_family": other}
        raise refuse("LF504.families", **values)
    return other
