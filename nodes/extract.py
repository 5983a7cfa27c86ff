"""Extract LoRA: what makes one model of another, as a LoRA of the size that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine.merge.ranks import Policy
from ..loaders.merges.extracting import Wish, extract_lora, extract_sentence
from ..loaders.merges.merging import DTYPES
from ..loaders.names.outgoing import DIALECTS
from . import folders, host
from .common import FoundryNode, check_file, file_states, reply
from .merge import ERROR, FOLDER, RANK, SHRINK, amount_input, check_outcome, policy_of
from .rows import StackRow
from .sockets import LORA_STACK

ALL = Policy("error", 0.0)  # everything that the kept directions hold


class FoundryExtractLoRA(FoundryNode):
    """Two models become one LoRA file and one row: their difference, weight by weight, as small as asked."""

    DESCRIPTION = (
        "Writes what makes the tuned model of the base as a LoRA below output/loras, and hands it on as one row. "
        "Quantized models are refused."
    )
    SEARCH_ALIASES = ["lora from model", "model difference", "lora svd"]
    RETURN_TYPES = (LORA_STACK, "STRING", "STRING")
    RETURN_NAMES = (LORA_STACK, "path", "report")
    OUTPUT_TOOLTIPS = ("The extracted LoRA as one row.", "Where the file is.", "What the rank lost.")
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's V1 declaration of inputs."""
        names = [*folders.model_files(*folders.BASE_KINDS), *folders.sharded_folders()]
        return {
            "required": {
                "tuned_name": (names, {"tooltip": "The model that was tuned or merged."}),
                "base_name": (names, {"tooltip": "The model it was made of."}),
                "shrink": (list(SHRINK), {"default": RANK, "tooltip": "How far; no: up to 128 directions a weight."}),
                "amount": amount_input(64.0),
                "dialect": (list(DIALECTS), {"tooltip": "How the file names its tensors. comfyui holds everything."}),
                "dtype": (list(DTYPES), {"default": "fp16", "tooltip": "Of its numbers."}),
                "filename_prefix": (
                    "STRING",
                    {"default": f"{FOLDER}/extracted", "tooltip": "Below output/loras, where LoRA loaders look."},
                ),
            },
            "optional": {
                "uniform": ("BOOLEAN", {"default": False, "tooltip": "One rank everywhere, as some loaders want it."})
            },
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls,
        input_types: Mapping[str, Any],
        tuned_name: Any = None,
        base_name: Any = None,
        filename_prefix: Any = None,
        amount: Any = None,
    ) -> bool | str:
        """Wires, the amount, that both models are there, and that the file will be where LoRA loaders look."""
        sharded = folders.sharded_folders()
        faults = (check_file(name, *folders.BASE_KINDS) for name in (tuned_name, base_name) if name not in sharded)
        fault = next((each for each in faults if each), None) or check_outcome(filename_prefix, amount)
        return fault or super().VALIDATE_INPUTS(input_types)

    @classmethod
    def IS_CHANGED(cls, tuned_name: str, base_name: str, **_: Any) -> str:
        """Runs again when one of the models was replaced."""
        return file_states((tuned_name, base_name), *folders.BASE_KINDS)

    def run(
        self,
        tuned_name: str,
        base_name: str,
        shrink: str,
        amount: float,
        dialect: str,
        dtype: str,
        filename_prefix: str,
        uniform: bool = False,
    ) -> dict[str, Any]:
        """(the row, path, report)."""
        tuned, base = (folders.find_base(name)[0] for name in (tuned_name, base_name))
        policy = policy_of(shrink, amount, dtype, uniform) or ALL
        most = amount if shrink == ERROR else None  # the directions that are kept may be too few
        wish = Wish(tuned, base, folders.output_file(filename_prefix), policy, dialect, dtype, most)
        told = extract_lora(wish, host.progress())
        name, line = folders.name_below(Path(told["out"]), FOLDER), extract_sentence(told)
        return reply(([StackRow(name, 1.0, 1.0)], told["out"], line), [line], told)
