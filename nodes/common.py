"""What all nodes share: the checks before a run, and the one shape of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from ..engine.choice import CHOICES
from ..engine.errors import FoundryError
from ..engine.findings import Finding
from ..engine.formats import FORMATS
from ..engine.guard import raise_first
from ..engine.plan import Plan
from ..engine.quantize import parse_keep
from ..engine.report import plan_json, plan_sentences
from ..loaders.disk.targets import prefix_fault
from ..loaders.lint.order import check_order
from ..loaders.plans.raster import pixels
from ..loaders.remote.names import is_remote
from . import folders, host
from .refusals import refusal, telling
from .remotes import allowed, remote_states
from .sockets import check_links

CATEGORY = "LoRA Foundry"
HIDDEN = {"prompt": "PROMPT", "unique_id": "UNIQUE_ID"}


class FoundryNode:
    """Base of every node: wires are checked when a prompt is queued, and the page is told why a run stopped."""

    CATEGORY = CATEGORY
    FUNCTION = "run"
    SEARCH_ALIASES: ClassVar[list[str]] = []  # what else people type; older hosts look at names only
    INPUTS: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        """What ComfyUI calls in a run tells the page what stops it."""
        for name in ("run", "check_lazy_status"):
            if name in vars(cls):
                setattr(cls, name, telling(vars(cls)[name]))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's V1 declaration of inputs."""
        return cls.INPUTS

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Mapping[str, Any]) -> bool | str:
        """True, or why a wire is refused (becomes HTTP 400)."""
        return check_links(cls.INPUT_TYPES(), input_types)


def check_file(name: Any, *kinds: str) -> str | None:
    """Why a typed-in file name cannot be used, or None (a linked one is not known yet); either slash will do."""
    return None if name is None else check_files([name], *kinds)


def check_files(names: Iterable[Any], *kinds: str) -> str | None:
    """Why files cannot be used, all that is wrong with them at once; or None."""
    faults = [fault for name in names if (fault := _file_fault(name, *kinds))]
    return refusal(*faults) if faults else None


def _file_fault(name: Any, *kinds: str) -> FoundryError | None:
    try:
        if is_remote(name):
            allowed(name, *kinds)
        else:
            folders.find_file(name, *kinds)
    except FoundryError as error:
        return error
    return None


def check_format(name: str | None, pre_quant_scale: bool = False) -> str | None:
    """Why this ComfyUI cannot load a quantized format, or None (another dtype; a linked one is not known yet).

    A choice (``auto``) is refused where it comes to such a format.
    """
    try:
        if name in FORMATS:
            host.refuse_format(name)
        elif name in CHOICES:
            host.chosen_format(name)
        if pre_quant_scale:
            host.refuse_pre_quant_scale()
    except FoundryError as error:
        return refusal(error)
    return None


def check_keep(text: str | None) -> str | None:
    """Why a typed-in list of layers to keep cannot be used, or None (a linked one is not known yet)."""
    try:
        parse_keep(text or "")
    except FoundryError as error:
        return refusal(error)
    return None


def check_prefix(text: str | None) -> str | None:
    """Why no file can be saved under a typed-in prefix, or None (a linked one is not known yet)."""
    fault = prefix_fault(text) if isinstance(text, str) else ""
    return f"filename_prefix cannot be used: {fault}. Choose another one." if fault else None


def check_number(name: str, value: Any, least: float, most: float) -> str | None:
    """Why a typed-in number cannot be used, or None: NaN and infinity are numbers to JSON, and in no range."""
    if value is None or (isinstance(value, int | float) and least <= value <= most):
        return None
    return f"{name} is {value!r:.40}. Give a number from {least:g} to {most:g}."


def file_state(name: str, *kinds: str) -> str:
    """What changes when a file is replaced, for IS_CHANGED: path, size and modification time."""
    return file_states([name], *kinds)


def file_states(names: Sequence[str], *kinds: str) -> str:
    """The same of several files; those of other machines are asked for together."""
    elsewhere = remote_states(filter(is_remote, names), *kinds)
    return " ".join(elsewhere[name] if is_remote(name) else _state_here(name, *kinds) for name in names)


def _state_here(name: str, *kinds: str) -> str:
    try:
        paths = folders.files_of(name, *kinds)
    except FoundryError:
        return "missing"
    states = [(path, path.stat()) for path in paths]
    return " ".join(f"{path}:{state.st_size}:{state.st_mtime_ns}" for path, state in states)


class StageNode(FoundryNode):
    """A node on the ordered path: its lazy ``model`` input lets a wrong order stop before the base is loaded."""

    def check_lazy_status(
        self, model: Any = None, prompt: Any = None, unique_id: str | None = None, **_: Any
    ) -> list[str]:
        """Called by ComfyUI before anything above ``model`` runs; raises FoundryError for a wrong order."""
        if prompt is not None and unique_id is not None:
            raise_first(check_order(prompt, str(unique_id)))
        return [] if model is not None else ["model"]


class FormatNode(StageNode):
    """A finishing node with a ``format``: one that this ComfyUI cannot load is told when the prompt is queued."""

    @classmethod
    def VALIDATE_INPUTS(
        cls,
        input_types: Mapping[str, Any],
        format: str | None = None,
        keep_high_precision: str | None = None,
        pre_quant_scale: bool | None = None,
    ) -> bool | str:
        """Wires as everywhere, the format and what this ComfyUI knows of it, and the patterns of layers to keep."""
        fault = check_format(format, bool(pre_quant_scale)) or check_keep(keep_high_precision)
        return fault or super().VALIDATE_INPUTS(input_types)


def stage_input(socket: str, tooltip: str) -> tuple[str, dict[str, Any]]:
    """The declaration of a ``model`` input."""
    return socket, {"lazy": True, "tooltip": tooltip}


def reply(result: tuple[Any, ...], sentences: Sequence[str], data: Mapping[str, object]) -> dict[str, Any]:
    """What a reporting node returns: the outputs, and the same findings for /history, API clients and the browser."""
    return {"ui": {"text": list(sentences), "foundry": [data]}, "result": result}


def report_plan(plan: Plan, findings: Sequence[Finding], result: tuple[Any, ...]) -> dict[str, Any]:
    """What a node returns that changed a plan."""
    return reply(result, plan_sentences(plan, findings), plan_json(plan, findings))


def picture_of(told: Mapping[str, Any], plan: Plan) -> torch.Tensor:
    """The numbers of a report as an IMAGE, [1, height, width, 3] from 0 to 1.

    It is drawn at every run, wired or not: ComfyUI keeps a node's outputs, and does not run it again for a new wire.
    """
    return torch.from_numpy(pixels(told, plan.base.name))[None]
