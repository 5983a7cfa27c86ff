"""What a LoRA may be for, and what its metadata tells about it. Every role here is a guess and says why.

A role is not a dialect: the same names and suffixes are written for a style and for a 4-step accelerator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from ...engine.json_verbs import GroupJSON, TrainingJSON
from ...engine.plan import Adapter
from ..disk.header import shown
from ..evidence.triggers import WORDS
from ..names.lookup import bare

GUESSED = "guessed"
TEXTS = ("ss_output_name", "name", "modelspec.title", "modelspec.description", "ss_training_comment")  # that name it
SIGNS = (  # role -> what its name says, first match counts
    ("training adapter", r"training[ _-]?adapter|de[ _-]?distill?(ed|ation)?([ _-]|$)|assistant"),
    ("repair", r"distill?[ _-]?patch|accuracy[ _-]?recovery|[ _-]repair"),
    ("control", r"(^|[ _-])(control|depth|canny|openpose|inpaint)([ _-]?lora|[ _.-]|$)"),
    (
        "accelerator",
        r"lightx2v|hyper[ _-]?(sd|flux)|(^|[ _-])(lcm|dmd2?|pcm|tcd)([ _.-]|$)|distill|fast[ _-]?wan"
        r"|caus[ _-]?vid|acc[ _-]?vid|cfg[ _-]?step|seko|(^|\D)\d{1,2}[ _-]?steps?([ _.-]|$)",
    ),
)
# Names of accelerators, but of bases too, Z-Image-Turbo above all: where nothing says that it is a style or an effect.
BY_WORD = r"lightning|(?<!z.image.)(?<!zimage.)(?<!z.image)(?<!zimage)turbo"
TOOLS = (  # metadata key, what its text matches -> the training tool
    ("software", "ai-toolkit", "AI Toolkit"),
    ("ot_branch", "", "OneTrainer"),
    ("ot_config", "", "OneTrainer"),
    ("ss_network_module", r"lycoris", "kohya sd-scripts with LyCORIS"),
    ("ss_network_module", r"lora_(wan|qwen|zimage|flux_2|hunyuan|framepack|hv|flux_kontext)", "musubi-tuner"),
    ("ss_network_module", "", "kohya sd-scripts"),
    ("lora_adapter_metadata", "", "diffusers"),
    ("global_step", "", "SimpleTuner"),
)
BASES = ("ss_sd_model_name", "ss_base_model_version", "modelspec.architecture", "base_model_name_or_path")
MAX_TEXT = 1 << 20
TAGS = 5


@dataclass(frozen=True)
class Role:
    """``role``: accelerator, training adapter, repair, control, style or unknown; ``why`` quotes the sign."""

    role: str
    why: str = ""
    evidence: str = GUESSED


def guess_role(name: str, metadata: Mapping[str, str], adapters: tuple[Adapter, ...]) -> Role:
    """The role by file name and metadata, else by structure; never more than a guess."""
    named = {"its file name": name, **{f"'{key}' in its metadata": metadata.get(key, "")[:400] for key in TEXTS}}
    for role, pattern in SIGNS:
        if why := _said(named, pattern):
            return Role(role, why)
    if why := _structure(adapters):
        return Role("accelerator", why)
    if any(metadata.get(key, "").strip() for key in (*WORDS, "ss_tag_frequency")):
        return Role("style", "it was trained on captions or trigger words: a style, a character or an object")
    if (why := _said(named, BY_WORD)) and not _said(named, "style|effect"):
        return Role("accelerator", why)
    return Role("unknown", "neither its name nor its structure tells", "unknown")


def _said(named: Mapping[str, str], pattern: str) -> str:
    """Where a pattern is found, and what it found; empty where it is not."""
    for where, text in named.items():
        if found := re.search(pattern, text.rpartition("/")[2], re.IGNORECASE):
            return f"{where} says '{shown(found[0].strip(' _-.'))}'"
    return ""


def _structure(adapters: tuple[Adapter, ...]) -> str:
    kinds = {adapter.kind for adapter in adapters}
    if kinds == {"lora", "diff"} and any("norm" in adapter.module for adapter in adapters if adapter.kind == "diff"):
        return "LoRAs of all linear layers with differences of norms and biases, as extracted step distillations have"
    return ""


def tell_training(metadata: Mapping[str, str]) -> TrainingJSON:
    """``tool``, ``base_model``, ``trigger_words`` and ``tags`` as far as the metadata states them: claims only."""
    tool = next((tool for key, pattern, tool in TOOLS if key in metadata and re.search(pattern, metadata[key])), None)
    told = {
        "tool": tool,
        "base_model": next((metadata[key] for key in BASES if metadata.get(key, "").strip()), None),
        "trigger_words": next((metadata[key] for key in WORDS if metadata.get(key, "").strip()), None),
        "tags": _tags(metadata.get("ss_tag_frequency", "")),
    }
    return cast(TrainingJSON, {key: value for key, value in told.items() if value})


def _tags(text: str) -> list[str]:
    """The tags used most in training, most frequent first."""
    if not text or len(text) > MAX_TEXT:
        return []
    try:
        folders = json.loads(text)
    except (ValueError, RecursionError):
        return []
    counts: dict[str, int] = {}
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            counts[tag] = counts.get(tag, 0) + (count if type(count) is int else 0)
    return sorted(counts, key=lambda tag: -counts[tag])[:TAGS]


def by_block(modules: tuple[str, ...]) -> dict[str, GroupJSON]:
    """Modules counted by block group: ``{"double_blocks": {"blocks": 19, "modules": 76}}``; the rest is ``other``."""
    numbers: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for module in modules:
        found = re.match(r"(.*?)[._](\d+)(?=[._]|$)", bare(module))
        group, number = found.groups() if found else ("other", "")
        counts[group] = counts.get(group, 0) + 1
        numbers.setdefault(group, set()).add(number)
    return {group: {"blocks": len(numbers[group]), "modules": count} for group, count in counts.items()}
