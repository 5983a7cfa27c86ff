"""LoRA files into one: matched, merged module by module, measured, and written only if what is lost is allowed.

Nothing is written before all files were opened and matched, and nothing stays of a merge that is refused or cancelled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...engine.findings import Finding
from ...engine.json_merge import ProofJSON
from ...engine.lineage import ACCELERATOR, REPAIR, TRAINING_ADAPTER
from ...engine.merge.fold import EXACT_WITHIN, ROUNDED_WITHIN, Stored
from ...engine.merge.methods import method_of
from ...engine.merge.parts import read_parts
from ...engine.merge.proof import Proof, Sums, measure
from ...engine.merge.ranks import Policy
from ...engine.merge.run import Entries, Entry, Job, outline, results
from ...engine.plan import Layer, Plan
from ...engine.progress import Progress, part_of
from ...engine.texts.say import refuse, say
from ..bases.dequantize import REFUSE
from ..disk.writer import check_target
from ..loras.file import open_lora
from ..loras.saving import has_alphas
from ..names.outgoing import COMFYUI, Unit
from ..remote.names import Where, is_remote, parse_remote
from ..remote.objects import ANYTHING, Asking
from .ground import Ground, ground_of, ground_on, with_fused
from .matching import Matched, Wanted, match_all
from .outfile import OutFile
from .record import Recipe, merge_metadata, proof_json, recipe_of, recorded, room_for, told_apart

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BASE_ROLES = (ACCELERATOR, TRAINING_ADAPTER, REPAIR)  # of LoRAs that others stand on: never changed by a method
WHOLE, APART = ACCELERATORS = ("whole", "apart")


@dataclass(frozen=True)
class Request:
    """What is to be merged into which file, and how.

    ``fuse`` are base LoRAs below all others: they are no part of the file, and only a LoRA that depends on the weights
    sees them. ``policy`` says how far the file is shrunk, None: not at all. ``max_error``: the most that may be lost;
    None: ``EXACT_WITHIN`` of its dtype for an exact merge, anything for others. ``accelerators``: those among
    ``loras`` are merged whole, or stay apart.
    """

    loras: tuple[Wanted, ...]
    out: Path
    fuse: tuple[Wanted, ...] = ()
    base: Where | None = None
    method: str = "exact"
    dialect: str = COMFYUI
    dtype: str = "fp32"
    max_error: float | None = None
    accelerators: str = WHOLE
    on_quantized_base: str = REFUSE
    policy: Policy | None = None

    @property
    def allowed(self) -> float | None:
        """The most that may be lost, as a relative error; None where anything may."""
        if self.max_error is not None:
            return self.max_error
        lossless = method_of(self.method).plain and self.policy is None
        return EXACT_WITHIN[DTYPES[self.dtype]] if lossless else None


@dataclass(frozen=True, eq=False)
class Gathered:
    """The LoRAs of a merge, opened and matched; nothing is computed. ``apart`` are those that stay beside the file."""

    ground: Ground
    matched: tuple[Matched, ...]
    apart: tuple[Wanted, ...] = ()

    @property
    def units(self) -> dict[str, Unit]:
        """Every module of the file to be, by key."""
        return {key: unit for each in self.matched for key, unit in each.units.items()}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is to be said of the files, and of an accelerator among them."""
        found = [finding for each in self.matched for finding in each.layer.findings]
        return (*found, *_accelerators(self.matched))


@dataclass(frozen=True, eq=False)
class Result:
    """A merge that is done: the file, what it kept, and the recipe as it is in the file."""

    path: Path
    proof: ProofJSON
    recipe: Recipe
    entries: Mapping[str, Entry]
    gathered: Gathered


def gather(request: Request, plan: Plan | None = None, asking: Asking = ANYTHING) -> Gathered:
    """Open and match every LoRA, on the base of a ``plan`` if there is one; ``asking``: how one elsewhere is asked for.

    Raises FoundryError for what cannot be merged; nothing is written.
    """
    opened = {wanted.path: open_lora(wanted.path, wanted.name) for wanted in (*request.loras, *request.fuse)}
    pairs = [(wanted, opened[wanted.path]) for wanted in request.loras]
    loras = [lora for _, lora in pairs]
    if plan is None:
        ground = ground_of(loras, request.base, request.dialect, request.on_quantized_base, asking)
    else:
        ground = ground_on(plan, request.dialect)
    for wanted in request.fuse if ground.named else ():
        ground = with_fused(ground, opened[wanted.path], wanted.strength, wanted.blocks)
    alone = len(pairs) == 1  # one that is made smaller is what a policy is for
    matched = match_all(ground, pairs, lambda layer: is_base_lora(layer) and not alone)
    apart = [each for each in matched if request.accelerators == APART and each.input.whole]
    kept = tuple(each for each in matched if each not in apart)
    return Gathered(ground, kept, tuple(each.wanted for each in apart))


def is_base_lora(layer: Layer) -> bool:
    """Whether others stand on a LoRA, by what is known of it: an accelerator, a training adapter, a repair."""
    return layer.lineage.role[0] in BASE_ROLES


def merge(request: Request, on_step: Progress | None = None, gathered: Gathered | None = None) -> Result:
    """Merge and write. ``on_step(done, total)`` counts modules and may raise to cancel.

    Raises FoundryError: LF501 to LF505 for what cannot be merged or written, LF506 for a merge that loses more than is
    allowed; then nothing was written.
    """
    refuse_inputs(request)
    gathered = gathered or gather(request)
    dtype = DTYPES[request.dtype]
    job = Job(tuple(each.input for each in gathered.matched), request.method, dtype, request.policy)
    recipe = recipe_for(request, gathered)
    sets = frozenset(key for each in gathered.matched for key in each.sets)

    def room(entries: Entries) -> int:
        return room_for(recipe, entries, gathered.matched, request.out.name)

    file = OutFile(gathered.units, request.dialect, dtype, merge_metadata(gathered.matched), room, sets)
    passes = 1 if request.policy is None else 2
    entries = outline(job, file.size, part_of(on_step, 0, passes))
    with file.open(request.out, entries) as out:
        sums: dict[str, Sums] = {}
        for module, stored, measured in _finished(job, entries, request, part_of(on_step, passes - 1, passes)):
            out.put(module, stored)
            sums[module] = measured
        proof = Proof.of([each.input.name for each in gathered.matched], sums)
        _refuse_zeros(proof)
        _refuse_loss(request, proof)
        out.complete(recorded(recipe, proof_json(proof), out.tensor_id(), gathered.matched, request.out.name))
    return Result(request.out, proof_json(proof), recipe, entries, gathered)


def recipe_for(request: Request, gathered: Gathered) -> Recipe:
    """The recipe of the file that a request makes."""
    base = gathered.ground.base
    return recipe_of(
        gathered.matched,
        method=request.method,
        policy=None if request.policy is None else policy_text(request.policy),
        dialect=request.dialect,
        dtype=request.dtype,
        family=base.family,
        base=base.name if gathered.ground.named else None,
        fuse=[
            {"name": _file_of(layer.lora.name), "sha256": layer.lora.sha256, "strength": layer.strength}
            for layer in gathered.ground.plan.layers
        ],
    )


def _file_of(name: str) -> str:
    """A LoRA's name in a recipe, the same wherever the file comes from."""
    return parse_remote(name).file if is_remote(name) else name


def _finished(
    job: Job, entries: Mapping[str, Entry], request: Request, on_step: Progress | None
) -> Iterator[tuple[str, Stored, Sums]]:
    """Every module as the dialect can hold it, with its sums."""
    if has_alphas(request.dialect) or job.dtype == torch.float32:
        yield from ((each.module, each.stored, each.sums) for each in results(job, entries, on_step))
        return
    for each in results(replace(job, dtype=torch.float32), entries, on_step):  # scales are in up there, and stay
        stored = _rounded(each.stored, job.dtype)
        yield each.module, stored, measure(read_parts(job.inputs, each.module), stored)


def _rounded(stored: Stored, dtype: torch.dtype) -> Stored:
    up, down, diff, replaces = (
        None if each is None else each.to(dtype) for each in (stored.up, stored.down, stored.diff, stored.replaces)
    )
    return replace(stored, up=up, down=down, diff=diff, replaces=replaces)


def for_error(most: float, dtype: str, uniform: bool = False) -> Policy | None:
    """The policy that shrinks as far as an error allows, after what rounding its factors takes of it; None: none.

    Raises FoundryError ``LF503`` for an error that has no meaning.
    """
    Policy("error", most)  # says what is wrong with it
    left = most**2 - ROUNDED_WITHIN[DTYPES[dtype]] ** 2
    return Policy("error", math.sqrt(left), uniform) if left > 0 else None


def policy_text(policy: Policy) -> str:
    """A policy in words: ``energy 0.99``, ``rank 16 everywhere``."""
    clamped = "" if policy.clamp is None else f", clamped at {policy.clamp:g}"
    return f"{policy.goal} {policy.amount:g}" + (" everywhere" if policy.uniform else "") + clamped


def refuse_inputs(request: Request) -> None:
    """FoundryError for a file that cannot be written, or that is one of the inputs."""
    check_target(request.out)
    for wanted in (*request.loras, *request.fuse):
        if request.out.exists() and wanted.path.exists() and wanted.path.samefile(request.out):
            raise refuse("usage.merged", out=request.out)


def _refuse_zeros(proof: Proof) -> None:
    """FoundryError LF502 where no input adds anything; what replaces a weight is not known to change it, but may."""
    total = proof.total
    if not total.gram.diagonal().any() and not total.set_size:
        raise refuse("LF502.zeros", loras=", ".join(proof.names))


def _refuse_loss(request: Request, proof: Proof) -> None:
    allowed = request.allowed
    if allowed is not None and proof.total.error > allowed:
        values = told_apart(proof.total.error, allowed)
        raise refuse("LF506.loss", out=request.out.name, dtype=request.dtype, **values)


def _accelerators(matched: Sequence[Matched]) -> Iterator[Finding]:
    """LF507 for each base LoRA in a merge with others."""
    mixed = [each for each in matched if each.input.whole]
    if len(mixed) < len(matched):
        for each in mixed:
            role, level = each.layer.lineage.role
            name = each.wanted.name
            yield say("LF507.mixed", evidence=level, subject=name, lora=name, role=role)
