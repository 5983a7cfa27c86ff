"""Merge LoRAs and LoRA Conflicts: many rows into one, and how they get along before that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..engine.json_merge import MergeJSON
from ..engine.merge.methods import METHODS
from ..engine.merge.ranks import Policy
from ..engine.plan import Plan
from ..engine.texts.say import counted, refuse
from ..loaders.merges.comparing import advised, compare, conflicts_json, conflicts_sentences
from ..loaders.merges.heat import pixels
from ..loaders.merges.matching import Wanted
from ..loaders.merges.merging import (
    ACCELERATORS,
    DTYPES,
    WHOLE,
    Gathered,
    Request,
    for_error,
    gather,
    merge,
)
from ..loaders.merges.telling import find_merged, merge_json, merge_sentences
from ..loaders.names.outgoing import DIALECTS
from . import folders, host
from .common import FoundryNode, check_number, check_prefix, reply
from .news import MERGED, changes, seen_file
from .remotes import lora_file
from .rows import StackRow, read_stack
from .sockets import BASE, FUSED, LORA_STACK
from .sources import plan_of

FOLDER = "loras"
MOST_AMOUNT = 1e6
NO, RANK, ENERGY, ERROR, SIZE = SHRINK = ("no", "rank", "energy", "error", "size in MB")
STACK_INPUT = (LORA_STACK, {"tooltip": "The weighted LoRAs: from LoRA, LoRA Stack, or a stacker of another pack."})
MODEL_INPUT = (
    f"{BASE},{FUSED}",
    {"tooltip": "The model they are for. DoRA, OFT and the like need it; other LoRAs tell by themselves."},
)


def amount_input(default: float) -> tuple[str, dict[str, Any]]:
    """The amount of ``SHRINK``."""
    return "FLOAT", {"default": default, "min": 0.0, "max": MOST_AMOUNT, "step": 0.001, "round": False}


def check_outcome(prefix: Any, amount: Any) -> str | None:
    """Why no LoRA can be written under this prefix, of this size; None where it can, or is not known yet."""
    if fault := check_prefix(prefix) or check_number("amount", amount, 0, MOST_AMOUNT):
        return fault
    if isinstance(prefix, str) and not prefix.replace("\\", "/").startswith(f"{FOLDER}/"):
        return f"filename_prefix: '{prefix}' is not below {FOLDER}/, where LoRA loaders look."
    return None


class FoundryMergeLoRAs(FoundryNode):
    """A LORA_STACK becomes one file and one row, exactly or as small as asked, with the proof of what is kept."""

    DESCRIPTION = (
        "Merges a LoRA stack into one LoRA file below output/loras, and hands it on as one row. A stack that was "
        "merged before is found again."
    )
    SEARCH_ALIASES = ["merge lora", "combine loras", "resize lora", "lora svd"]
    RETURN_TYPES = (LORA_STACK, "STRING", "STRING")
    RETURN_NAMES = (LORA_STACK, "path", "report")
    OUTPUT_TOOLTIPS = ("The merged LoRA as one row, and those that stay apart.", "Where the file is.", "What is kept.")
    OUTPUT_NODE = True
    INPUTS = {
        "required": {
            "lora_stack": STACK_INPUT,
            "method": (list(METHODS), {"tooltip": "exact: the weighted sum. The others change it; see Node Info."}),
            "shrink": (
                list(SHRINK),
                {
                    "default": NO,
                    "tooltip": "How far: rank 32, energy 0.99 (the share kept), error 0.02 (the share lost), size 200. "
                    "Ranks are chosen over all layers at once.",
                },
            ),
            "amount": amount_input(0.0),
            "dialect": (list(DIALECTS), {"tooltip": "How the file names its tensors. comfyui holds everything."}),
            "dtype": (list(DTYPES), {"tooltip": "fp32 is exact; 16 bits lose what the report says."}),
            "filename_prefix": (
                "STRING",
                {"default": f"{FOLDER}/merged", "tooltip": "Below output/loras, where LoRA loaders look."},
            ),
        },
        "optional": {
            "model": MODEL_INPUT,
            "max_error": (
                "FLOAT",
                {
                    "default": 0.0, "min": 0.0, "max": 1.0, "step": 0.001, "round": False,
                    "tooltip": "Refuse a merge further away from the stack; 0: an exact one may lose 1.1e-3 in bf16.",
                },
            ),
            "uniform": ("BOOLEAN", {"default": False, "tooltip": "One rank everywhere, as some loaders want it."}),
            "accelerators": (
                list(ACCELERATORS),
                {"default": WHOLE, "tooltip": "apart: Lightning and its like stay rows of their own."},
            ),
        },
        "hidden": {"unique_id": "UNIQUE_ID"},
    }  # fmt: skip

    @classmethod
    def VALIDATE_INPUTS(
        cls, input_types: Mapping[str, Any], filename_prefix: Any = None, amount: Any = None, max_error: Any = None
    ) -> bool | str:
        """Wires, numbers, and that the file will be where LoRA loaders look."""
        fault = check_outcome(filename_prefix, amount) or check_number("max_error", max_error, 0, 1)
        return fault or super().VALIDATE_INPUTS(input_types)

    @classmethod
    def IS_CHANGED(cls, unique_id: str | None = None, **_: Any) -> int:
        """Runs again when one of the LoRAs was replaced, or the merged file is gone."""
        return changes(MERGED, str(unique_id))

    def run(
        self,
        lora_stack: Iterable[Any],
        method: str,
        shrink: str,
        amount: float,
        dialect: str,
        dtype: str,
        filename_prefix: str,
        model: Any = None,
        max_error: float = 0.0,
        uniform: bool = False,
        accelerators: str = WHOLE,
        unique_id: str | None = None,
    ) -> dict[str, Any]:
        """(the merged row and those apart, path, report)."""
        rows, plan = read_stack(lora_stack), None if model is None else plan_of(model)
        if not rows:
            raise refuse("stack.empty")
        policy = policy_of(shrink, amount, dtype, uniform)
        most = max_error or (amount if shrink == ERROR else None)
        request = Request(
            _wanted(rows), folders.output_file(filename_prefix), (), None, method, dialect, dtype, most, accelerators,
            policy=policy,
        )  # fmt: skip
        told = _merged(request, plan)
        apart = {each["name"] for each in told["apart"]}
        left = [row for row, wanted in zip(rows, request.loras, strict=True) if wanted.name in apart]
        for path in (Path(told["out"]), *(wanted.path for wanted in request.loras)):
            seen_file(path, str(unique_id))
        name, lines = folders.name_below(Path(told["out"]), FOLDER), [*map(_sentence, told["findings"])]
        lines += merge_sentences(told)
        return reply(([StackRow(name, 1.0, 1.0), *left], told["out"], "\n".join(lines)), lines, told)


def _merged(request: Request, plan: Plan | None) -> MergeJSON:
    """What a file that is there tells, or a new one."""
    gathered: Gathered = gather(request, plan)
    return find_merged(request, gathered) or merge_json(merge(request, host.progress(), gathered))


def _wanted(rows: Iterable[StackRow]) -> tuple[Wanted, ...]:
    return tuple(Wanted(row[0], lora_file(row[0]).path, row[1], row[2], row.blocks) for row in rows)


def policy_of(shrink: str, amount: float, dtype: str, uniform: bool) -> Policy | None:
    """How far a node shrinks its file; None: not at all."""
    if shrink == RANK:
        return Policy("rank", amount, uniform)
    if shrink == ENERGY:
        return Policy("energy", amount, uniform)
    if shrink == SIZE:
        return Policy("size", round(amount * 1e6), uniform)
    return for_error(amount, dtype, uniform) if shrink == ERROR else None


def _sentence(finding: Mapping[str, Any]) -> str:
    parts = (f"{finding['code']} {finding['severity']}: {finding['seen']}", finding["why"], finding["fix"])
    return " ".join(part for part in parts if part)


class FoundryLoRAConflicts(FoundryNode):
    """How the rows of a LORA_STACK get along: every pair, and the energy of the stack by block."""

    DESCRIPTION = (
        "Compares the LoRAs of a stack by their weights: who works against whom, where, and the strengths at which all "
        "together are as strong as the strongest of them."
    )
    SEARCH_ALIASES = ["compare loras", "lora similarity", "lora weights"]
    RETURN_TYPES = (LORA_STACK, "IMAGE", "STRING")
    RETURN_NAMES = (LORA_STACK, "image", "report")
    OUTPUT_TOOLTIPS = (
        "The rows, at the advised strengths if asked for.",
        "Pairs above, blocks below.",
        "Numbers.",
    )
    OUTPUT_NODE = True
    INPUTS = {
        "required": {
            "lora_stack": STACK_INPUT,
            "apply_advice": ("BOOLEAN", {"default": False, "tooltip": "Hand the rows on at the advised strengths."}),
        },
        "optional": {"model": MODEL_INPUT},
        "hidden": {"unique_id": "UNIQUE_ID"},
    }

    @classmethod
    def IS_CHANGED(cls, unique_id: str | None = None, **_: Any) -> int:
        """Runs again when one of the LoRAs was replaced."""
        return changes(MERGED, str(unique_id))

    def run(
        self, lora_stack: Iterable[Any], apply_advice: bool, model: Any = None, unique_id: str | None = None
    ) -> dict[str, Any]:
        """(rows, image [1, height, width, 3], report)."""
        rows, plan = read_stack(lora_stack), None if model is None else plan_of(model)
        if len(rows) < 2:
            raise refuse("stack.single", rows=counted(len(rows), "row"))
        wanted = _wanted(rows)
        found = compare(gather(Request(wanted, Path("unused.safetensors")), plan), host.progress())
        for each in wanted:
            seen_file(each.path, str(unique_id))
        told, quiet = conflicts_json(found), advised(wanted, found)
        changed = [StackRow(each.name, each.strength, each.clip_strength, each.blocks) for each in quiet]
        lines = conflicts_sentences(told)
        picture = torch.from_numpy(pixels(told))[None]
        return reply((changed if apply_advice else rows, picture, "\n".join(lines)), lines, {**told})
