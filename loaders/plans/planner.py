"""From files to a plan: every adapter finds its weight, every shape is checked, and what does not fit is said.

No weight of the base is read here. A LoRA's factors are read the first time a file is seen, for its fingerprint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ...engine.adapters import RESHAPE
from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.plan import FUSE, MATCH_TRAINING, ONCE, STACK, Base, Coverage, Layer, Patch, Plan
from ...engine.terms import refuse_untrained
from ...engine.texts.say import refuse, say_of
from ..bases.checkpoint import Checkpoint, open_checkpoint, open_elsewhere
from ..bases.dequantize import Dequantized, opened, unpacked
from ..bases.families import detect_base, differ
from ..disk.header import quoted, shown
from ..documents.document import Document, Row
from ..documents.paths import find_lora, resolve_path
from ..lineage.contents import contained_in
from ..lineage.provenance import lineage_of_lora
from ..lineage.registry import registry_fault
from ..loras.by_head import in_order
from ..loras.file import LoRAFile, open_lora
from ..loras.fitting import effective_scales
from ..loras.matching import Fit, add_layer, match, parameters
from ..names.affixes import Trimmed, affixes
from ..names.blocks import BlockWeights, parse_blocks
from ..names.lookup import BaseNames, Matcher
from ..remote.names import is_remote, parse_remote
from ..remote.objects import ANYTHING, Asking
from .coverage import clashes_of, coverage_of, partly, refuse_loss, refuse_misfit, refuse_missing
from .doubles import once

SCALES = (0.02, 4.0)  # effective scales outside are almost always a lost or doubled alpha
SLACK = 0.005  # an alpha stored in bf16 is off by up to 0.4%
OnError = Callable[[Row, FoundryError], None]


def make_layer(
    base: Base,
    lora: LoRAFile,
    stage: str,
    strength: float,
    matcher: Matcher,
    rounding: str = ONCE,
    blocks: str = "",
    allow_partial: bool = False,
) -> Layer:
    """Match a LoRA to a base at one strength; ``blocks`` are factors of it by block (``double=1,single=0.5``).

    ``allow_partial`` takes a LoRA though much of it finds no weight, which is LF302 otherwise.

    Raises FoundryError: LF303 for a LoRA of another family, LF304 when a weight has another shape or 'match training'
    is asked of anything but a plain LoRA, LF301 when no module finds a weight, ``blocks`` for factors without a
    meaning. A file with text-encoder parts only changes no weight of a base: LF301.
    """
    if not math.isfinite(strength):
        raise refuse("LF304.strength", lora=lora.label, strength=strength)
    factors = _factors(base, lora, blocks)
    fit, affix = _matched(base, lora, matcher, factors)
    coverage = coverage_of(base, lora, fit)
    if not lora.adapters:
        raise refuse("LF301.text_encoder_only", lora=lora.label, modules=len(lora.text_encoder))
    refuse_misfit(base, lora, fit, coverage)
    if strength and not allow_partial:
        refuse_loss(base, lora, coverage)
        refuse_missing(base, lora, coverage)
    whole = parameters(base, lora, matcher, factors)
    patches, order, doubles = _laid(base, lora, [*fit.patches, *chain.from_iterable(whole.values())])
    findings = [*lora.told(whole), *affix, *order, *partly(lora, coverage), *_replaced(lora, whole)]
    findings += [*doubles, *_another_model(base, lora, coverage), *_grown(base, lora, fit)]
    as_trained = rounding == MATCH_TRAINING and stage == FUSE
    findings += [*_scales(lora, fit, strength, as_trained), *_ignored(lora, as_trained)]
    found, known = tuple(findings), lineage_of_lora(lora)
    layer = Layer(stage, lora.info, strength, tuple(patches), coverage, rounding, found, lora, "", str(factors), known)
    for patch in layer.patches:
        refuse_untrained(layer, patch)
    return layer


def plan_document(doc: Document, on_error: OnError | None = None, asking: Asking = ANYTHING) -> Plan:
    """The plan of a stack document: its base, the fuse rows, the stack rows, in order; ``on: false`` is skipped.

    A document has no CLIP: text-encoder parts are not used, and a note says so. A row that cannot be planned
    raises; with ``on_error`` it is handed over and left out instead, so that all of them can be told at once.
    ``asking``: how files from elsewhere are asked for.
    """
    if doc.base is None:
        raise refuse("document.no_base")
    name, stored = _open_base(doc.base, doc.folder, asking)
    source = opened(stored, doc.on_quantized_base)
    dequantized = isinstance(source, Dequantized)
    if not dequantized and not is_remote(doc.base):
        source = unpacked(stored)
    family, inside = detect_base(source.tensors), contained_in(source)
    if differ(family, doc.family):
        raise refuse("document.family", base=shown(name), stated=doc.family, family=family)
    base = Base(name, family, source, source.quantized, dequantized=dequantized, contains=inside)
    matcher = BaseNames(source.tensors, base.family)
    fault = registry_fault()
    plan = Plan(base, vanilla=doc.vanilla, findings=(fault.finding(severity="warning"),) if fault else ())
    files: dict[Path, LoRAFile] = {}
    for stage, row in _rows(doc):
        rounding = doc.rounding if stage == FUSE else ONCE
        try:
            file = find_lora(row.path, doc.folder, asking)
            if file.path not in files:
                files[file.path] = open_lora(file.path, file.name, file.notes)
            lora = files[file.path]
            layer = make_layer(plan.base, lora, stage, row.strength, matcher, rounding, row.blocks, doc.allow_partial)
            findings = (*layer.findings, *_left_out(lora))
            plan = add_layer(plan, replace(layer, path=row.path, findings=findings))
        except FoundryError as error:
            if on_error is None:
                raise
            on_error(row, error)
    return plan


def _open_base(name: str, folder: Path | None, asking: Asking) -> tuple[str, Checkpoint]:
    """(what the file of a base is called, its tensors), of this machine or from elsewhere; headers are read."""
    if is_remote(name):
        remote = parse_remote(name)
        return remote.file, open_elsewhere(remote, asking)
    path = resolve_path(name, folder, Path.exists)
    return path.name, open_checkpoint(path)


def _rows(doc: Document) -> Iterator[tuple[str, Row]]:
    yield from ((stage, row) for stage, rows in ((FUSE, doc.fuse), (STACK, doc.stack)) for row in rows if row.on)


def _matched(base: Base, lora: LoRAFile, matcher: Matcher, factors: BlockWeights) -> tuple[Fit, list[Finding]]:
    """The fit, and a note where names fit only without something that stands around all of them."""
    fit = match(base, lora, matcher, factors)
    strange = [module for module in lora.modules if module in fit.nameless]
    if 2 * len(strange) <= len(lora.modules):
        return fit, []
    for affix in affixes(strange, matcher):
        found = match(base, lora, Trimmed(matcher, affix), factors)
        if not found.nameless and not found.misfits:
            return found, [say_of(lora.label, "LF301.affix", affix=affix, modules=len(lora.modules))]
    return fit, []


def _laid(base: Base, lora: LoRAFile, found: list[Patch]) -> tuple[list[Patch], list[Finding], list[Finding]]:
    """The patches as they are applied, what is said of the order of their rows, and of changes that are there twice."""
    rows = {patch.target.weight: (*base.source.tensors[patch.target.weight].shape, 1)[0] for patch in found}
    patches, doubles = once(lora, found, rows)
    patches, turned = in_order(base, patches)
    return patches, [say_of(lora.label, "LF301.by_head", modules=turned)] if turned else [], doubles


def _replaced(lora: LoRAFile, whole: Mapping[str, Sequence[Patch]]) -> Iterator[Finding]:
    """LF302: parameters of the model that the file brings; no module, and no strength, tells of them."""
    if tensors := [name for name, patches in whole.items() if patches]:
        yield say_of(lora.label, "LF302.parameters", count=len(tensors), tensors=quoted(tensors))


def _factors(base: Base, lora: LoRAFile, blocks: str) -> BlockWeights:
    """The factors of a row, told with the LoRA's name when they cannot be used."""
    try:
        factors = parse_blocks(blocks, base.family)
        if factors.items:
            factors.require(base.source.tensors)
    except FoundryError as error:
        raise refuse("blocks.of_lora", lora=lora.label, **dict(error.values)) from None
    return factors


def _grown(base: Base, lora: LoRAFile, fit: Fit) -> Iterator[Finding]:
    """LF302 for weights that become larger by this LoRA, new inputs as zeros."""
    for patch in fit.patches:
        stored, wanted = base.source.tensors[patch.target.weight].shape, patch.adapter.delta_shape
        if RESHAPE in dict(patch.adapter.parts) and wanted[1:] != stored[1:]:
            sizes = {"stored": " x ".join(map(str, stored)), "inputs": wanted[1]}
            yield say_of(lora.label, "LF302.grown", weight=shown(patch.target.weight), **sizes)


def _another_model(base: Base, lora: LoRAFile, coverage: Coverage) -> Iterator[Finding]:
    """LF303 for a LoRA that fits and yet was made for another task, version or family, where names or shapes tell.

    FLUX and HunyuanVideo have most names and shapes in common, so all of a LoRA may fit the wrong one.
    """
    name, mine, theirs = shown(base.name), lora.info.family, base.family
    if differ(base.family, lora.info.family):
        values = {"base": name, "lora_family": mine, "base_family": theirs, "modules": coverage.modules}
        yield say_of(lora.label, "LF303.family_fits", **values)
    if apart := clashes_of(base, lora):
        key = "LF303.variant_partly" if coverage.unmatched else "LF303.variant"
        yield say_of(lora.label, key, family=theirs, base=name, differences="; ".join(apart))


def _ignored(lora: LoRAFile, as_trained: bool) -> Iterator[Finding]:
    """LF305: 'match training' takes lora_A and lora_B without their alpha, as that trainer did."""
    odd = [a for a in lora.adapters if a.alpha is not None and ".lora_B" in dict(a.parts).get("up", "")]
    odd = [a for a in odd if not math.isclose(a.alpha or 0.0, a.rank, rel_tol=SLACK)]
    if as_trained and odd:
        values = {"count": len(odd), "modules": len(lora.modules), "module": shown(odd[0].module)}
        yield say_of(lora.label, "LF305.ignored", **values, scale=f"{odd[0].scale:.4g}")


def _scales(lora: LoRAFile, fit: Fit, strength: float, as_trained: bool) -> Iterator[Finding]:
    """LF305: strength * alpha / rank so small or large that alpha was most likely lost or applied twice."""
    if strength == 0.0 or (as_trained and "A/B" in lora.info.dialect):  # that trainer knows no alpha
        return
    low, high = SCALES[0] * (1 - SLACK), SCALES[1] * (1 + SLACK)
    stated = effective_scales(fit.patches, strength)
    scales = {module: abs(scale) for module, scale in stated.items() if scale != 0.0}
    odd = {module: scale for module, scale in scales.items() if not low <= scale <= high}
    if odd:
        module, scale = next(iter(odd.items()))
        values = {"least": SCALES[0], "most": SCALES[1], "odd": len(odd), "modules": len(scales)}
        first = {"module": shown(module), "scale": f"{scale:.4g}"}
        yield say_of(lora.label, "LF305.scale", **values, **first)


def _left_out(lora: LoRAFile) -> Iterator[Finding]:
    if lora.text_encoder:
        yield say_of(lora.label, "LF302.document_without_clip", modules=len(lora.text_encoder))
