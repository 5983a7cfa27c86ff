"""From files to a plan: every adapter finds its weight, every shape is checked, and what does not fit is said.

Nothing is computed and no weight is read here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..engine.errors import FoundryError
from ..engine.findings import Finding
from ..engine.plan import FUSE, MATCH_TRAINING, ONCE, STACK, Adapter, Base, Coverage, Layer, Patch, Plan, Target
from ..engine.tensors import TensorInfo
from .checkpoints import open_checkpoint
from .dequantize import Dequantized, opened
from .documents import Document, Row, resolve_path
from .families import detect_base, differ
from .header import shown
from .lora import LoRAFile, open_lora
from .names import BaseNames, Matcher, bare, naming

SCALES = (0.02, 4.0)  # effective scales outside are almost always a lost or doubled alpha
SLACK = 0.005  # an alpha stored in bf16 is off by up to 0.4%
SHOWN = 3  # names shown where many could be
MatcherFor = Callable[[Mapping[str, TensorInfo], str | None], Matcher]  # base tensors, family
OnError = Callable[[Row, FoundryError], None]


@dataclass
class Fit:
    """What matching gave: patches, modules without a weight, and modules whose weight has another shape."""

    patches: list[Patch] = field(default_factory=list)
    nameless: dict[str, str] = field(default_factory=dict)
    misfits: dict[str, str] = field(default_factory=dict)


def make_layer(
    base: Base,
    lora: LoRAFile,
    stage: str,
    strength: float,
    matcher: Matcher,
    rounding: str = ONCE,
    clip_strength: float = 0.0,
) -> Layer:
    """Match a LoRA to a base at one strength.

    Raises FoundryError: LF303 for a LoRA of another family, LF304 when a weight has another shape, LF301 when no module
    finds a weight. A file with text-encoder parts only is accepted where they are used (``clip_strength`` not 0).
    """
    _check_strength(lora.label, strength, clip_strength)
    fit = _match(base.source.tensors, lora, matcher)
    coverage = _coverage(lora, fit)
    findings = [*lora.findings]
    if lora.adapters:
        _refuse_misfit(base, lora, fit, coverage, matcher)
        findings += _partial(lora, coverage, _naming_cause(base, lora, matcher))
        findings += _scales(lora, fit, strength, rounding == MATCH_TRAINING and stage == FUSE)
    else:
        findings.append(_text_encoder_only(lora, clip_strength))
    return Layer(
        stage, lora.info, strength, tuple(fit.patches), coverage, rounding, clip_strength, tuple(findings), factors=lora
    )


def plan_document(doc: Document, matcher_for: MatcherFor = BaseNames, on_error: OnError | None = None) -> Plan:
    """The plan of a stack document: its base, the fuse rows, the stack rows, in order; ``on: false`` is skipped.

    A document has no CLIP: text-encoder parts are not used, and a note says so. A row that cannot be planned
    raises; with ``on_error`` it is handed over and left out instead, so that all of them can be told at once.
    """
    if doc.base is None:
        raise FoundryError("document", "The document names no base.", fix="Add `base: FILE`, the model to start from.")
    path = resolve_path(doc.base, doc.folder, Path.exists)
    source = opened(open_checkpoint(path), doc.on_quantized_base)
    dequantized = isinstance(source, Dequantized)
    base = Base(path.name, detect_base(source.tensors), source, source.quantized, dequantized=dequantized)
    matcher = matcher_for(source.tensors, base.family)
    plan = Plan(base, vanilla=doc.vanilla)
    files: dict[Path, LoRAFile] = {}
    for stage, row in _rows(doc):
        rounding = doc.rounding if stage == FUSE else ONCE
        try:
            file = resolve_path(row.path, doc.folder, Path.exists)
            if file not in files:
                files[file] = open_lora(file)
            layer = make_layer(base, files[file], stage, row.weight, matcher, rounding)
            findings = (*layer.findings, *_left_out(files[file]))
            plan = plan.add(replace(layer, path=row.path, findings=findings))
        except FoundryError as error:
            if on_error is None:
                raise
            on_error(row, error)
    return plan


def _rows(doc: Document) -> Iterator[tuple[str, Row]]:
    yield from ((stage, row) for stage, rows in ((FUSE, doc.fuse), (STACK, doc.stack)) for row in rows if row.on)


def _check_strength(name: str, *strengths: float) -> None:
    for strength in strengths:
        if not math.isfinite(strength):
            raise FoundryError("LF304", f"{name}: the strength is {strength}.", fix="Give a number such as 0.8.")


def _match(tensors: Mapping[str, TensorInfo], lora: LoRAFile, matcher: Matcher) -> Fit:
    fit = Fit()
    for adapter in lora.adapters:
        target = matcher.find(adapter.module)
        if target is None or target.weight not in tensors:
            fit.nameless[adapter.module] = "no weight of this name"
        elif reason := _shape_reason(adapter, target, tensors[target.weight].shape):
            fit.misfits[adapter.module] = reason
        else:
            fit.patches.append(Patch(adapter, target))
    return fit


def _shape_reason(adapter: Adapter, target: Target, shape: tuple[int, ...]) -> str | None:
    """Why a delta cannot go to its target, or None. A 1x1 convolution and a linear weight hold the same numbers."""
    wanted, where = list(shape), f"'{shown(target.weight)}'"
    if target.slice is not None:
        dim, start, length = target.slice
        where = f"{length} of the {shape[dim]} rows of {where}" if dim == 0 else f"a part of {where}"
        wanted[dim] = length if start + length <= shape[dim] else -1
    if _without_ones(adapter.delta_shape) == _without_ones(wanted):
        return None
    return f"shape {_size(adapter.delta_shape)} for {where} of shape {_size(wanted)}"


def _without_ones(shape: tuple[int, ...] | list[int]) -> tuple[int, ...]:
    kernel = tuple(shape[2:])
    return (*shape[:2], *(kernel if math.prod(kernel) != 1 else ()))


def _size(shape: tuple[int, ...] | list[int]) -> str:
    return " x ".join(map(str, shape))


def _coverage(lora: LoRAFile, fit: Fit) -> Coverage:
    reasons = {**fit.nameless, **fit.misfits}
    unmatched = tuple((module, reasons[module]) for module in lora.modules if module in reasons)
    return Coverage(len(lora.modules), len(lora.modules) - len(unmatched), unmatched, len(lora.text_encoder))


def _refuse_misfit(base: Base, lora: LoRAFile, fit: Fit, coverage: Coverage, matcher: Matcher) -> None:
    """Raise for everything but a LoRA that belongs to this base; a few modules without a weight are not enough."""
    if not coverage.unmatched:
        return
    counts = f"{coverage.matched} of {coverage.modules} modules of {lora.label} fit {shown(base.name)}"
    if differ(base.family, lora.info.family):
        why = f"The LoRA is made for {lora.info.family}, the base is {base.family}."
        raise FoundryError("LF303", f"{counts}.", why, f"Choose a {base.family} LoRA, or a {lora.info.family} base.")
    if fit.misfits and (coverage.matched or len(fit.misfits) >= len(fit.nameless)):
        module, reason = next(iter(fit.misfits.items()))
        why = "It is made for another size or variant of the model, or it was split or merged wrongly."
        if base.quantized is not None:
            why = f"The base is quantized ({base.quantized}), which may pack several numbers into one."
        seen = f"{counts}: '{shown(module)}' has {reason}."
        raise FoundryError("LF304", seen, why, "Use a LoRA and a base made for each other.")
    if not coverage.matched:
        cause, fix = _naming_cause(base, lora, matcher) or _no_common_names(base, lora)
        raise FoundryError("LF301", f"{counts}.", cause, fix)


def _naming_cause(base: Base, lora: LoRAFile, matcher: Matcher) -> tuple[str, str] | None:
    """(why, fix) when file and base name the same network in two ways and there is no host to translate."""
    if not isinstance(matcher, BaseNames):
        return None
    theirs, ours = naming(lora.modules), matcher.naming
    if theirs is None or ours is None or theirs == ours:
        return None
    spelled = {"diffusers": "diffusers naming", "original": "the original naming (ComfyUI's)"}
    return (
        f"The LoRA uses {spelled[theirs]} ('{shown(bare(lora.modules[0]))}'), the base {spelled[ours]}; "
        "these names are not mapped yet without ComfyUI.",
        "Run it inside ComfyUI, whose key map knows both, or use a base or a LoRA in the naming of the other.",
    )


def _no_common_names(base: Base, lora: LoRAFile) -> tuple[str, str]:
    weights = [name.removesuffix(".weight") for name in base.source.tensors if name.endswith(".weight")]
    middle = max(0, len(weights) // 2 - 1)  # the first weights of a model are embedders; LoRAs go to its blocks
    theirs = _some(weights[middle : middle + SHOWN])
    return (
        f"They have no names in common: the LoRA has {_some(lora.modules)}; the base has {theirs}. "
        f"LoRA family: {lora.info.family or 'not recognised'}, base family: {base.family or 'not recognised'}.",
        "Check that the LoRA was made for this model.",
    )


def _partial(lora: LoRAFile, coverage: Coverage, cause: tuple[str, str] | None) -> Iterator[Finding]:
    if coverage.unmatched:
        unused = _some([module for module, _ in coverage.unmatched])
        seen = f"{lora.label}: {coverage.matched} of {coverage.modules} modules found their weight; not used: {unused}."
        why, fix = cause or ("A part of the LoRA has no effect.", "Check that it was made for this very model.")
        yield Finding("LF302", "warning", seen, why, fix, subject=lora.label)


def _scales(lora: LoRAFile, fit: Fit, strength: float, as_trained: bool) -> Iterator[Finding]:
    """LF305: strength * alpha / rank so small or large that alpha was most likely lost or applied twice."""
    if strength == 0.0 or (as_trained and "A/B" in lora.info.dialect):  # that trainer knows no alpha
        return
    low, high = SCALES[0] * (1 - SLACK), SCALES[1] * (1 + SLACK)
    scales = {p.adapter.module: abs(strength * p.adapter.scale) for p in fit.patches if p.adapter.scale != 0.0}
    odd = {module: scale for module, scale in scales.items() if not low <= scale <= high}
    if odd:
        module, scale = next(iter(odd.items()))
        seen = (
            f"{lora.label}: effective scale (strength * alpha / rank) outside {SCALES[0]} to {SCALES[1]} "
            f"in {len(odd)} of {len(scales)} modules, first '{shown(module)}' with {scale:.4g}."
        )
        why, fix = "Its effect is almost nothing or far too strong.", "Check the strength and the file's alpha."
        yield Finding("LF305", "warning", seen, why, fix, subject=lora.label)


def _text_encoder_only(lora: LoRAFile, clip_strength: float) -> Finding:
    seen = f"{lora.label} has text-encoder parts only ({len(lora.text_encoder)} modules), none for the diffusion model."
    if clip_strength == 0.0:
        raise FoundryError("LF301", seen, "Nothing of it applies here.", "Use it in the stack, with a CLIP wired in.")
    return Finding("LF302", "note", seen, "It changes the CLIP and no weight of the model.", subject=lora.label)


def _left_out(lora: LoRAFile) -> Iterator[Finding]:
    if lora.text_encoder:
        seen = f"{lora.label}: {len(lora.text_encoder)} text-encoder modules are left out: a document has no CLIP."
        why, fix = "The prompt will be read as without this LoRA.", "In ComfyUI, Stack LoRAs gives them to a CLIP."
        yield Finding("LF302", "note", seen, why, fix, subject=lora.label)


def _some(names: tuple[str, ...] | list[str]) -> str:
    first = ", ".join(f"'{shown(name)}'" for name in names[:SHOWN])
    return first + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
