"""Stacks in a line each: LoRAs, what is claimed about them, and what a stack of them is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lora_foundry.engine.findings import Finding
from lora_foundry.engine.lineage import (
    DECLARED,
    DERIVED,
    GUESSED,
    Accelerator,
    Claim,
    Contained,
    Evidence,
    Ingredient,
    Lineage,
)
from lora_foundry.engine.plan import FUSE, STACK
from lora_foundry.validator.stacks import ALLOW, Item, Sampling, Stack

SOURCES = {DECLARED: ("train.sh", "--lora_fused lightning"), DERIVED: ("its hash", ""), GUESSED: ("its name", "4step")}


def file(name: str, strength: float | None = None, **more: Any) -> Ingredient:
    """A LoRA whose contents are known."""
    return Ingredient(f"{name}.safetensors", (f"sha256:{name}", f"tensors:{name}"), strength, **more)


def named(name: str, strength: float | None = None, **more: Any) -> Ingredient:
    """A LoRA of which only a name is known."""
    return Ingredient(f"{name}.safetensors", (), strength, **more)


def evidence(level: str) -> Evidence:
    return Evidence(level, *SOURCES.get(level, ("nobody", "")))


def trained(*things: Ingredient, by: str = DECLARED, **more: Any) -> Claim:
    """Trained with these; with nothing: on the untouched base."""
    return Claim(evidence(by), trained_with=things, **more)


def used(*things: Ingredient, by: str = DECLARED, **more: Any) -> Claim:
    """To be used with these."""
    return Claim(evidence(by), use_with=things, **more)


def role(what: str, by: str = DECLARED, **more: Any) -> Claim:
    return Claim(evidence(by), role=what, **more)


def fast(name: str, by: str = DERIVED, **more: Any) -> Accelerator:
    """A known accelerator and its publisher's numbers."""
    return Accelerator(name, name.title(), by, "a test", **more)


def lora(
    stage: str,
    what: Ingredient,
    *claims: Claim,
    at: float = 1.0,
    known: Accelerator | None = None,
    modules: tuple[int, int] = (0, 0),
    dependent: bool = False,
    merged: tuple[Contained, ...] = (),
) -> Item:
    lineage = Lineage(what.ids, claims, known, contains=merged)
    return Item(what.name, stage, at, lineage, *modules, dependent, node="7")


def fused(what: Ingredient, *claims: Claim, **more: Any) -> Item:
    return lora(FUSE, what, *claims, **more)


def stacked(what: Ingredient, *claims: Claim, **more: Any) -> Item:
    return lora(STACK, what, *claims, **more)


def inside(what: Ingredient, by: str = DERIVED, known: Accelerator | None = None) -> Contained:
    """A LoRA that the base contains."""
    return Contained(what, by, "its recipe", known)


@dataclass(frozen=True)
class Case:
    """A stack and exactly what is said about it: ``LF102.missing warning``, in any order."""

    title: str
    stack: Stack
    expected: tuple[str, ...]
    policy: str = ALLOW


def case(title: str, *parts: Item | Contained | Sampling | str, policy: str = ALLOW, **stack: Any) -> Case:
    """A case of items and contained LoRAs; every text is one expected finding."""
    items = tuple(part for part in parts if isinstance(part, Item))
    contains = tuple(part for part in parts if isinstance(part, Contained))
    sampling = tuple(part for part in parts if isinstance(part, Sampling))
    expected = tuple(part for part in parts if isinstance(part, str))
    made = Stack("base.safetensors", contains=contains, items=items, sampling=sampling)
    return Case(title, replace(made, **stack), expected, policy)


def told(findings: tuple[Finding, ...]) -> list[str]:
    """``LF102.missing warning`` of each, sorted."""
    return sorted(f"{finding.text} {finding.severity}" for finding in findings)


X, Y, Z, STYLED = file("lightning"), file("turbo"), file("detail"), file("style")
FAST, HYPER = fast("lightning", steps=(4, 8), cfg=(1.0, 1.0)), fast("hyper", strength=(0.125, 0.125))
PLAIN = trained()
NATIVE: dict[str, Any] = {"native": True}
FULL, HALF = (720, 720), (360, 720)


def style(*claims: Claim, **more: Any) -> Item:
    """The stacked LoRA that most cases are about."""
    return stacked(STYLED, *claims, **more)


def like_x(**more: Any) -> Ingredient:
    """The base LoRA that most cases are about, as somebody describes it."""
    return replace(X, **more)
