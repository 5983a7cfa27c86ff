"""A LoRA trained in ComfyUI, saved with what it was trained on: so fuse, train and validate close the circle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ..engine.findings import Finding
from ..engine.lineage import DERIVED, GUESSED, LINEAGE_KEY, TENSORS_ID, Claim, Evidence, Ingredient
from ..engine.plan import FUSE, STACK
from ..engine.texts.say import refuse, say_of
from ..loaders.disk.small import data_of, save_small, serialised
from ..loaders.lineage.identity import identify_file
from ..loaders.lineage.record import Record
from ..loaders.lineage.store import save
from . import folders, host
from .common import FoundryNode, check_prefix, reply
from .lineage import names
from .sources import LEDGER_SOURCE

NO_LORA_SEEN = "no LoRA was on the MODEL"


class FoundrySaveTrainedLoRA(FoundryNode):
    """The tensors of ComfyUI's training node as a file that says which base LoRAs were in the model."""

    DESCRIPTION = (
        "Saves what Train LoRA made, and writes down which base LoRAs were in the MODEL it was trained on. The "
        "Stack Validator then tells when it is used on another base."
    )
    SEARCH_ALIASES = ["train lora", "save lora weights"]
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("path", "report")
    OUTPUT_TOOLTIPS = ("Where the file is.", "What was written down, as text.")
    OUTPUT_NODE = True
    INPUTS = {
        "required": {
            "lora": ("LORA_MODEL", {"tooltip": "The lora output of Train LoRA."}),
            "model": ("MODEL", {"tooltip": "The MODEL that went into Train LoRA, not the one that came out."}),
            "filename_prefix": (
                "STRING",
                {"default": "loras/foundry", "tooltip": "Below output/; LoRA loaders list output/loras."},
            ),
        },
        "optional": {"steps": ("INT", {"forceInput": True, "tooltip": "Goes into the file name, as Save LoRA does."})},
    }

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Mapping[str, Any], filename_prefix: Any = None) -> bool | str:
        """Wires, and what a file may be called."""
        return check_prefix(filename_prefix) or super().VALIDATE_INPUTS(input_types)

    def run(self, lora: Any, model: Any, filename_prefix: str, steps: int | None = None) -> dict[str, Any]:
        """(path, report)."""
        tensors = tensors_of(lora)
        claim, sentence = claim_of(model)
        path = folders.output_file(filename_prefix, steps)
        record = Record((id_of(tensors),), path.name, None, (claim,) if claim else ())
        save_small(path, tensors, {LINEAGE_KEY: json.dumps(record.to_json())} if claim else {})
        stored = save(replace(record, ids=identify_file(path).ids)) if claim else record
        findings = broken(path.name, tensors)
        lines = [*(finding.sentence() for finding in findings), sentence, f"{len(tensors)} tensors in {path.name}"]
        data = {
            "findings": [finding.to_json() for finding in findings],
            "out": str(path),
            "lineage": stored.to_json() if claim else None,
        }
        return reply((str(path), "\n".join(lines)), lines, data)


def tensors_of(lora: Any) -> dict[str, torch.Tensor]:
    """A LORA_MODEL as plain tensors. FoundryError ``lora`` for anything but a non-empty dictionary of tensors."""
    named = lora if isinstance(lora, Mapping) else {}
    if not named or not all(isinstance(tensor, torch.Tensor) for tensor in named.values()):
        raise refuse("lora.no_tensors", kind=type(lora).__name__)
    return {str(name): tensor.detach() for name, tensor in named.items()}


def claim_of(model: Any) -> tuple[Claim | None, str]:
    """(what the MODEL tells of the LoRAs in it, the same as a sentence). No more is claimed than is known."""
    ledger = host.ledger(model)
    if not ledger:
        return claim_of_foreign(model)
    inside = ingredients_of(ledger)
    sentence, base = f"trained with {names(inside)}", f"base {ledger.get('base')}, format {ledger.get('format')}"
    unnamed = set(ledger.get(STACK, ())) - {each.name for each in inside}
    if unnamed or (model.patches and ledger.get("patches") != str(model.patches_uuid)):
        why = f"{LEDGER_SOURCE}, and other nodes patched it"
        return Claim(Evidence(GUESSED, why, base), inside), f"{sentence}, and with what other nodes added"
    return Claim(Evidence(DERIVED, LEDGER_SOURCE, base), inside), sentence


def claim_of_foreign(model: Any) -> tuple[Claim | None, str]:
    """The same for a MODEL that this pack did not make: its file may have anything inside, so this is a guess."""
    if model.patches:
        return None, (
            "Nothing was written down: other nodes patched the MODEL and left no record. Say what it was trained with "
            "in Declare Lineage."
        )
    return Claim(Evidence(GUESSED, NO_LORA_SEEN), ()), (
        "trained with the MODEL as it was loaded: no LoRA was on it. What is inside its file is not known."
    )


def ingredients_of(ledger: Mapping[str, Any]) -> tuple[Ingredient, ...]:
    """The LoRAs in a MODEL, by its ledger; one of an older version has only names."""
    if "ingredients" in ledger:
        return tuple(Ingredient.from_json(each) for each in ledger["ingredients"])
    return tuple(Ingredient(name) for stage in (FUSE, STACK) for name in ledger.get(stage, ()))


def id_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """The id that a file of these tensors will have: a record in its own header is believed for that id only."""
    return TENSORS_ID + hashlib.sha256(data_of(serialised(tensors))).hexdigest()


def broken(name: str, tensors: Mapping[str, torch.Tensor]) -> list[Finding]:
    """LF304 for a training that ran away: the file is kept, for it can be looked into, but no loader should take it."""
    count = sum(not bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    if not count:
        return []
    return [say_of(name, "LF304.diverged", bad=count, all=len(tensors))]
