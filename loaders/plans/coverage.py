"""How much of a LoRA found a weight of the base, and what is refused because of what did not."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator

from ...engine.findings import Finding
from ...engine.plan import Base, Coverage
from ...engine.texts.say import refuse, say_of
from ..bases.families import clashes, differ, is_extra, variant_of_base, variant_of_lora
from ..disk.header import SHOWN, quoted, shown
from ..loras.energy import energies
from ..loras.file import LoRAFile
from ..loras.matching import Fit
from ..names.affixes import common_start
from ..names.dialects import SET

MOST_LOST = 0.1  # of a LoRA's energy: more is no detail of it


def coverage_of(base: Base, lora: LoRAFile, fit: Fit) -> Coverage:
    """What found its weight and what did not, with the reasons and the share of the energy that is lost."""
    apart = _apart(base, lora) if fit.nameless else ""
    reasons = {**{module: reason + apart for module, reason in fit.nameless.items()}, **fit.misfits}
    unmatched = tuple((module, reasons[module]) for module in lora.modules if module in reasons)
    matched = len(lora.modules) - len(unmatched)
    lost = _share(lora, {module for module, _ in unmatched}) if unmatched and matched else float(bool(unmatched))
    return Coverage(len(lora.modules), matched, unmatched, len(lora.text_encoder), lost)


def _share(lora: LoRAFile, modules: Container[str]) -> float:
    """The part of a LoRA's sum of squares that lies in these modules; by their number where energies do not tell."""
    known = energies(lora)
    total = sum(known.values())
    if not 0 < total < math.inf:
        return sum(module in modules for module in lora.modules) / len(lora.modules)
    return sum(energy for adapter, energy in known.items() if adapter.module in modules) / total


def refuse_missing(base: Base, lora: LoRAFile, coverage: Coverage) -> None:
    """Raise LF302 for layers that were trained whole and that the base does not have."""
    replaced = {adapter.module for adapter in lora.adapters if adapter.kind == SET}
    missing = [m for m, _ in coverage.unmatched if m in replaced and not is_extra(m, base.family)]
    if missing:
        raise refuse("LF302.whole", lora=lora.label, base=shown(base.name), tensors=quoted(missing))


def refuse_loss(base: Base, lora: LoRAFile, coverage: Coverage) -> None:
    """Raise LF302 for a LoRA of whose energy more than a detail finds no weight.

    What a variant of the family, or a related one, is known not to have does not count: such LoRAs are used on purpose.
    """
    if not coverage.matched or coverage.lost <= MOST_LOST:
        return
    missing = {module for module, _ in coverage.unmatched if not is_extra(module, base.family)}
    if missing and _share(lora, missing) > MOST_LOST:
        values = {"matched": coverage.matched, "modules": coverage.modules, "base": shown(base.name)}
        raise refuse("LF302.mostly", lora=lora.label, **values, lost=f"{coverage.lost:.0%}", reasons=_reasons(coverage))


def refuse_misfit(base: Base, lora: LoRAFile, fit: Fit, coverage: Coverage) -> None:
    """Raise for everything but a LoRA that belongs to this base; a few modules without a weight are not enough."""
    if not coverage.unmatched:
        return
    values = {"matched": coverage.matched, "modules": coverage.modules, "lora": lora.label, "base": shown(base.name)}
    if differ(base.family, lora.info.family):
        families = {"lora_family": lora.info.family, "base_family": base.family}
        raise refuse("LF303.family", **values, **families, reasons=_reasons(coverage))
    if fit.misfits and (coverage.matched or len(fit.misfits) >= len(fit.nameless)):
        module, reason = next(iter(fit.misfits.items()))
        values |= {"module": shown(module), "reason": reason}
        if base.quantized is not None and not base.dequantized:
            raise refuse("LF304.misfit_quantized", **values, quantized=base.quantized)
        raise refuse("LF304.misfit", **values, variant=_apart(base, lora))
    if not coverage.matched:
        common = common_start(lora.modules)
        key = "LF301.no_names_alike" if common else "LF301.no_names"
        raise refuse(key, **values, **_names_of_both(base, lora), common=shown(common))


def _names_of_both(base: Base, lora: LoRAFile) -> dict[str, str]:
    weights = [name.removesuffix(".weight") for name in base.source.tensors if name.endswith(".weight")]
    middle = max(0, len(weights) // 2 - 1)  # the first weights of a model are embedders; LoRAs go to its blocks
    return {
        "mine": quoted(lora.modules),
        "theirs": quoted(weights[middle : middle + SHOWN]),
        "lora_family": lora.info.family or "not recognised",
        "base_family": base.family or "not recognised",
    }


def partly(lora: LoRAFile, coverage: Coverage) -> Iterator[Finding]:
    """LF302: a part of the LoRA has no effect, and how much of it."""
    if coverage.unmatched:
        counts = {"matched": coverage.matched, "modules": coverage.modules, "lost": f"{coverage.lost:.1%}"}
        yield say_of(lora.label, "LF302.partly", **counts, reasons=_reasons(coverage))


def _reasons(coverage: Coverage) -> str:
    """The unmatched modules by reason, the first names of each."""
    reasons: dict[str, list[str]] = {}
    for module, reason in coverage.unmatched:
        reasons.setdefault(reason, []).append(module)
    return "; ".join(f"{quoted(modules)} ({reason})" for reason, modules in reasons.items())


def _apart(base: Base, lora: LoRAFile) -> str:
    """In which way the LoRA is made for another variant of the base's family, in brackets; empty where it is not."""
    return "".join(f" ({clash})" for clash in clashes_of(base, lora))


def clashes_of(base: Base, lora: LoRAFile) -> list[str]:
    """In which aspects a LoRA is made for another variant of the base's family."""
    if base.family is None or base.family != lora.info.family:
        return []
    shapes = {adapter.module: adapter.delta_shape for adapter in lora.adapters}
    return clashes(variant_of_base(base.source.tensors, base.family), variant_of_lora(shapes, base.family))
