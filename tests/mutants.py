"""Faults put into the code on purpose, one at a time, and the tests that must see each: ``python tests/mutants.py``.

``--only WORD`` takes those whose name holds the word, ``--list`` prints names and runs nothing. Every mutant runs in a
copy of the tree; 95 % must be seen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__")
LEAST = 0.95  # share that must be seen


@dataclass(frozen=True)
class Mutant:
    """``old``, which stands once in ``file``, becomes ``new``; ``tests`` are the paths that must fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: str


NUMBERS = (
    Mutant("scale: largest code", "engine/formats.py", 'float8_e4m3fn, 448.0, "0.3.75"',
           'float8_e4m3fn, 440.0, "0.3.75"', "tests/engine/test_quantize.py"),
    Mutant("scale: too small a scale", "engine/codes.py", "scale < torch.finfo(torch.float32).tiny", "scale <= 0.0",
           "tests/engine/test_quantize.py"),
    Mutant("amax: one end", "engine/fuse.py", "torch.maximum(low.abs(), high.abs())", "torch.maximum(high, high.abs())",
           "tests/engine/test_quantize.py"),
    Mutant("finite: NaN is stored", "engine/formats.py", "    if not math.isfinite(amax.item()):",
           "    if math.isinf(amax.item()):", "tests/engine/test_quantize.py"),
    Mutant("dims: any is fit", "engine/codes.py", "DIVISOR = 16", "DIVISOR = 8", "tests/engine/test_quantize.py"),
    Mutant("keep: pieces in any order", "engine/quantize.py", "whole.find(piece, at)", "whole.find(piece)",
           "tests/engine/test_quantize.py"),
    Mutant("feedback: none", "engine/feedback.py", "self._errors[first:middle], alpha=-1)",
           "self._errors[first:middle], alpha=0)", "tests/engine/test_feedback.py"),
    Mutant("feedback: H as it is", "engine/feedback.py", "if group else block", "if False else block",
           "tests/engine/test_feedback.py"),
    Mutant("outputs: weights judge", "engine/outputs.py", "error.square().sum().item() * unit",
           "error.square().sum().item()", "tests/engine/test_calibrated_bake.py"),
    Mutant("collect: aside is counted too", "engine/collect.py", "(~aside).nonzero()", "(numbers >= 0).nonzero()",
           "tests/engine/test_collect.py"),
    Mutant("calibration: of any base", "loaders/bakes/calibrated.py",
           'origin.fingerprint != base["fingerprint"]', "False", "tests/loaders/bakes/test_calibrations.py"),
    Mutant("chance: none", "engine/dither.py", ".add_(chance).floor_().mul_(step)", ".add_(0.5).floor_().mul_(step)",
           "tests/engine/test_dither.py tests/cli/test_demo.py"),
    Mutant("chance: smallest step", "engine/dither.py", "min=info.eps * info.tiny", "min=info.tiny",
           "tests/engine/test_dither.py tests/cli/test_demo.py"),
    Mutant("DoRA: rows for columns", "engine/adapters.py", "tuple(magnitude[:2]) == (1, size)",
           "tuple(magnitude[:2]) == (size, 1)", "tests/engine/test_adapters.py tests/engine/test_terms.py"),
    Mutant("DoRA: a row of zeros", "engine/adapters.py", "(total.norm(dim=1, keepdim=True) + EPS)",
           "total.norm(dim=1, keepdim=True)", "tests/engine/test_adapters.py tests/engine/test_terms.py"),
    Mutant("LoKr: alpha without a split", "loaders/loras/alphas.py",
           'adapter.kind == LOKR and not any(part.endswith("_a") for part, _ in adapter.parts)', "False",
           "tests/loaders/loras/test_alphas.py"),
    Mutant("strength: no factor", "engine/terms.py", "layer.strength * patch.factor", "layer.strength",
           "tests/engine/test_terms.py tests/engine/test_parts.py tests/engine/test_fuse.py"),
    Mutant("swap: not done", "engine/terms.py", "torch.cat([scale, shift], dim=0)", "torch.cat([shift, scale], dim=0)",
           "tests/engine/test_terms.py tests/engine/test_parts.py tests/engine/test_fuse.py"),
    Mutant("gain: the tolerance", "engine/gain.py", "SIGMAS = 6.0", "SIGMAS = 0.0", "tests/engine/test_gain.py"),
    Mutant("gain: kept layers count", "engine/gain.py", "if quantized else (self.layers,)",
           "if True else (self.layers,)", "tests/engine/test_gain.py"),
    Mutant("gain: a sample is all", "engine/gain.py", "noise * whole, signal", "noise, signal",
           "tests/engine/test_gain.py"),
    Mutant("temps: ours is swept", "loaders/disk/temps.py", "if path.name not in PROCESS.temps:", "if True:",
           "tests/loaders/disk/test_home_files.py tests/loaders/disk/test_writer_failures.py"),
    Mutant("parts: any is known", "loaders/loras/building.py", "            if part not in known:",
           "            if part in ():", "tests/loaders/loras"),
    Mutant("low precision: integers", "loaders/bases/checkpoint.py",
           'info.name.endswith("weight") and len(info.shape) >= 2', 'len(info.shape) >= 2 and info.name == ""',
           "tests/loaders/bases"),
)  # fmt: skip


def _of(file: str, tests: str, *rows: tuple[str, str, str]) -> tuple[Mutant, ...]:
    """Mutants of one file: (name, old, new) each, seen by the same tests."""
    return tuple(Mutant(name, file, old, new, tests) for name, old, new in rows)


ENGINE = (
    *_of("engine/formats.py", "tests/engine/test_formats.py",
         ("e5m2: largest code", "torch.float8_e5m2, 57344.0", "torch.float8_e5m2, 49152.0")),
    *_of("engine/codes.py", "tests/engine/test_formats.py",
         ("int8: rounded down", "codes.copy_(exact if self.dtype.is_floating_point else exact.round_())",
          "codes.copy_(exact if self.dtype.is_floating_point else exact.floor_())")),
    *_of("engine/dither.py", "tests/engine/test_dither.py tests/loaders/bases/test_dequantize_bake.py",
         ("chance: on any grid", "if not base.dequantized or format.grid", "if not base.dequantized or ''")),
    *_of("engine/quantize.py", "tests/engine/test_quantize.py",
         ("keep: any beginning of a part", "f\".{pattern.strip('.')}.\"", "f\".{pattern.strip('.')}\""),
         ("keep: any end of a part", "f\".{pattern.strip('.')}.\"", "f\"{pattern.strip('.')}.\""),
         ("keep: hits nothing", "        if pattern == AUTO or any(", "        if True or any(")),
    *_of("engine/plan.py", "tests/engine/test_plan.py tests/engine/test_fuse.py",
         ("scale: rank left out", "else self.alpha / self.rank", "else self.alpha")),
    *_of("engine/low_rank.py", "tests/engine/test_adapters.py",
         ("LoKr: blocks in turn", "numbers[rows] // right.shape[0]", "numbers[rows] % left.shape[0]"),
         ("LoHa: a sum", ".mul_(up2[rows] @ down2)", ".add_(up2[rows] @ down2)"),
         ("DoRA: scale of its LoRA", "(up[rows] * scale) @ down", "up[rows] @ down")),
    *_of("engine/adapters.py", "tests/engine/test_adapters.py",
         ("DoRA: norms of the weight alone", "(take(weight, rows) + delta(rows)).to(torch.float64)",
          "take(weight, rows).to(torch.float64)")),
    *_of("engine/rotations.py", "tests/engine/test_adapters.py",
         ("OFT: the other way round", "turns.mT @ in_blocks", "turns @ in_blocks")),
    *_of("engine/dense.py", "tests/engine/test_adapters.py",
         ("conv: kernel before channels", "-> up (column ...)", "-> up (... column)"),
         ("set: added", "take(stored, rows).sub_(weight[rows])", "take(stored, rows)")),
    *_of("engine/terms.py", "tests/engine/test_fuse.py tests/engine/test_terms.py",
         ("scale sign: lost", "return patch_strength(layer, patch) *", "return abs(patch_strength(layer, patch)) *"),
         ("set: by strength", "return 1.0 if patch.adapter.kind == SET else", "return")),
    *_of("engine/fuse.py", "tests/engine/test_fuse.py tests/engine/test_terms.py",
         ("rows: from the first", "slice(first - offset, stop - offset)", "slice(0, stop - first)"),
         ("match training: last first", "[pair for pair in pairs if is_as_trained(pair[0])]",
          "[pair for pair in pairs[::-1] if is_as_trained(pair[0])]"),
         ("stages: one weight", "if fuse and any_needs_weight(on_top) else base", "if False else base")),
    *_of("engine/sums.py", "tests/engine/test_gemm_sums.py",
         ("amax: reach of other rows", "reach[part.first : part.stop] =", "reach[: part.stop - part.first] ="),
         ("amax: other rows of a slice", "part.joined.up[rows[here] - part.first]", "part.joined.up[here]")),
    *_of("engine/gain.py", "tests/engine/test_gain.py",
         ("gain: energy of the sample", "energy * whole", "energy"),
         ("gain: aligned of the sample", "aligned * whole", "aligned"),
         ("gain: spread of the sample", "spread * whole**2", "spread"),
         ("error: signal of the sample", "signal * whole, shares", "signal, shares")),
    *_of("engine/budget.py", "tests/engine/test_blueprint.py tests/engine/test_finish.py",
         ("budget: bytes do not count", ".noise / max(1, _extra_bytes(fate))", ".noise")),
    *_of("engine/reuse.py", "tests/engine/test_blueprint.py tests/engine/test_reuse.py",
         ("key: factor", "target.part is None and patch.factor == 1.0", "target.part is None"),
         ("key: stage of a DoRA", "([layer.stage] if staged else [])", "[]"),
         ("key: order of match training", "(trained if is_as_trained(layer) else additive)", "additive"),
         ("key: order of a sum", "sorted(additive, key=json.dumps)", "additive")),
    *_of("engine/blueprint.py", "tests/engine/test_blueprint.py",
         ("key: matmul", "made = [finish.format, finish.matmul,", "made = [finish.format,"),
         ("key: linears", "is_quantizable(info, family, keep, linears,", "is_quantizable(info, family, keep, None,")),
)  # fmt: skip
DISK = (
    *_of("loaders/disk/copying.py", "tests/loaders/bakes/test_copying.py tests/loaders/disk/test_writer_failures.py",
         ("copy: ends early", "(done, after.st_size,", "(before.st_size, after.st_size,"),
         ("copy: file not synced", "os.fsync(copy.fileno())", "pass"),
         ("copy: folder not synced", "sync_folder(out.parent)", "pass")),
    *_of("loaders/disk/ranges.py", "tests/loaders/disk/test_ranges.py tests/loaders/disk/test_writer_failures.py",
         ("copy: a short write", "done + count\n        yield", "done + len(rest)\n        yield")),
    *_of("loaders/disk/writer.py", "tests/loaders/disk/test_writer.py tests/loaders/disk/test_writer_failures.py",
         ("writer: file not synced", "os.fsync(self._file.fileno())", "pass"),
         ("writer: folder not synced", "sync_folder(path.parent)", "pass"),
         ("writer: no fsync of a folder", "            os.fsync(handle)", "            pass"),
         ("writer: a tensor ends early", "if done != size:", "if False:"),
         ("writer: no rename", "draft.temp.replace(path)", "shutil.copyfile(draft.temp, path)"),
         ("writer: a tensor is missing", "        if self._missing:", "        if False:")),
    *_of("loaders/disk/header.py", "tests/loaders/disk/test_header.py tests/loaders/disk/test_reading.py tests/attacks",
         ("header: a key twice", "if len(found) != len(pairs):", "if False:"),
         ("header: overlap", "if begin != end:", "if begin > end:"),
         ("header: holes", "if begin != end:", "if begin < end:"),
         ("header: bytes after the end", "if end != size:", "if end > size:"),
         ("header: size of a tensor", "if stop - begin != info.nbytes:", "if stop - begin < info.nbytes:"),
         ("header: longest", "min(size - 8, MAX_HEADER)", "size - 8"),
         ("header: a crowd", "> 10 * MAX_TENSORS:", "> 10**12:")),
    *_of("loaders/disk/temps.py", "tests/loaders/disk/test_home_files.py tests/attacks/test_other_writers.py",
         ("temps: of an earlier life", "or _start(int(parts[\"pid\"])) != parts[\"start\"]", "or False"),
         ("temps: of a living process", "not is_alive(int(parts[\"pid\"]))", "True"),
         ("temps: of a far machine", "all(_age(path) > FORGOTTEN for path in paths)\n\n\ndef _parts",
          "True\n\n\ndef _parts")),
)  # fmt: skip
NAMES = (
    *_of("loaders/names/lookup.py", "tests/loaders/names/test_lookup.py tests/loaders/loras/test_text_encoders.py",
         ("spellings: no limit", " and len(seen) < MAX_SPELLINGS", ""),
         ("CLIP-G: goes to CLIP-L", '("2" if found["second"] else "1")', '"1"'),
         ("CLIP-G: a name without number", '[: 2 if number == "1" else 1]', "")),
    *_of("loaders/loras/text_encoders.py", "tests/loaders/loras/test_text_encoders.py",
         ("CLIP: one part twice", "        if key in named:", "        if False:"),
         ("CLIP: magnitudes of columns", "tensor[:, None] if", "tensor if")),
    *_of("loaders/plans/planner.py", "tests/loaders/plans/test_planner.py",
         ("LF305: negative strength", "{module: abs(scale) for", "{module: scale for"),
         ("LF305: too large", "if not low <= scale <= high}", "if not low <= scale}")),
)  # fmt: skip
RULES = (
    *_of("validator/rules.py", "tests/validator/test_rules.py",
         ("LF101: vanilla", "(plan.stage(FUSE) or plan.vanilla)", "plan.stage(FUSE)")),
    *_of("validator/base_loras.py", "tests/validator/test_rules.py tests/validator/test_stacks.py",
         ("LF102: a guess is known", "    if need.level not in KNOWN:", "    if False:"),
         ("LF102: a guess warns", "stack.items[at], severity_for(need.firm)", 'stack.items[at], "warning"'),
         ("LF101: beside is below", "not set(places) & BELOW", "not set(places)"),
         ("LF101: a guess stops", "severity = severity_for(need.firm, known,", "severity = severity_for(True, known,")),
    *_of("validator/around.py", "tests/validator/test_rules.py tests/validator/test_stacks.py",
         ("evidence: the strongest", "max(levels, key=EVIDENCE.index)", "min(levels, key=EVIDENCE.index)"),
         ("LF102: a subtracted one serves", "self.strength * sign > 0 and", "True and"),
         ("LF101: a DoRA beside", "sums = item.stage != FUSE or not item.dependent", "sums = True")),
    *_of("validator/surplus.py", "tests/validator/test_rules.py tests/validator/test_stacks.py",
         ("LF105: taken out", "if item.strength > 0 and contained", "if contained"),
         ("LF105: one of each sign", "if item.strength * other.strength < 0:", "if False:"),
         ("LF105: fused twice", '("LF105.twice", "error")', '("LF105.twice", "warning")')),
    *_of("validator/use.py", "tests/validator/test_stacks.py",
         ("LF403: any number of steps", "sampling.steps <= MORE * known.steps[1]", "sampling.steps"),
         ("LF403: any fine tuning", "TUNED = 0.2", "TUNED = 2.0")),
    *_of("validator/variants.py", "tests/validator/test_stacks.py",
         ("LF303: of any version", "item.variant.version == stack.variant.version != \"\" and ", ""),
         ("LF104: styles too", "item.lineage.role[0] == ACCELERATOR and ", "")),
    *_of("loaders/workflows/unread.py", "tests/loaders/lint/test_unread.py",
         ("LF108: nothing is lost", "elif sinks and _names(node):", "elif False:"),
         ("LF108: all names are read", "    if any(wired_names(node)):", "    if False:")),
    *_of("loaders/workflows/constants.py", "tests/loaders/workflows/test_constants.py",
         ("a switch the other way", "switch.chosen[bool(selector)]", "switch.chosen[not selector]"),
         ("any output is the first", "        if output:", "        if False:")),
    *_of("loaders/lint/order.py", "tests/loaders/lint/test_order.py",
         ("LF101: above any stage", "    if stage != FUSE_NODE:", "    if stage not in STAGES:"),
         ("LF101: a switch is certain", "finding if node.id in certain else as_question(finding)", "finding")),
)  # fmt: skip
MERGE = (
    *_of("engine/merge/deltas.py", "tests/engine/merge/test_deltas.py",
         ("merge: alpha does not count", "Product(*pair, scale_of(adapter))", "Product(*pair, 1.0)"),
         ("merge: a DoRA without its base", "if needs_weight(adapter) and weight is None:", "if False:"),
         ("merge: LoHa's ranks in another order", "-> row (one two)", "-> row (two one)"),
         ("merge: LoKr's factors in turn", "torch.kron(left.contiguous(), right.contiguous())",
          "torch.kron(right.contiguous(), left.contiguous())")),
    *_of("engine/merge/exact.py", "tests/engine/merge/test_exact.py",
         ("merge: two LoRAs replace one weight", "if len(replaces) > 1:", "if False:")),
    *_of("engine/merge/fold.py", "tests/engine/merge/test_exact.py tests/engine/merge/test_same_deltas.py",
         ("merge: alpha is the rank alone", "alpha=common * rank", "alpha=float(rank)"),
         ("merge: ranks as they are listed", "    if not in_order:", "    if False:"),
         ("merge: Inf is stored", "if not math.isfinite(stored.lost):", "if False:"),
         ("merge: a scale split over both factors", "up, down = side.up if", "up, down = -side.up if")),
    *_of("engine/merge/ranks.py", "tests/engine/merge/test_ranks.py",
         ("merge: columns cost nothing", "** 2) / sum(each.size)", "** 2) / each.size[0]"),
         ("merge: a little above the size", "if size_of(ranks(middle)) <= size",
          "if size_of(ranks(middle)) <= 1.05 * size"),
         ("merge: an error is an energy", "else 1 - policy.amount**2)", "else 1 - policy.amount)")),
    *_of("engine/merge/core.py", "tests/engine/merge",
         ("merge: signs as the SVD leaves them", "torch.where((right.square() * right).sum(1) < 0, -1.0, 1.0)",
          "torch.ones(len(right))"),
         ("merge: clamped at the largest", "math.ceil(quantile * len(sizes))", "len(sizes)")),
    *_of("engine/merge/proof.py", "tests/engine/merge/test_exact.py tests/engine/merge/test_methods.py",
         ("merge: a small error in fp32", "if found.difference < FINE**2 * found.stack:", "if False:"),
         ("merge: shares without each other", "torch.linalg.pinv(normal, rtol=1e-9, hermitian=True)",
          "torch.eye(len(normal), dtype=normal.dtype)")),
    *_of("engine/merge/ties.py", "tests/engine/merge/test_methods.py",
         ("merge: TIES without weights", "total += part.weight * inner", "total += inner"),
         ("merge: TIES over all LoRAs", "total / count.clamp(min=1)", "total / len(parts)")),
    *_of("engine/merge/tsv.py", "tests/engine/merge/test_methods.py",
         ("merge: TSV without weights", "decompose(part.weighted)", "decompose(part.delta)")),
    *_of("engine/merge/keep_first.py", "tests/engine/merge/test_methods.py",
         ("merge: nothing is kept", "up = up - taken @ (taken.T @ up)", "up = up + 0")),
    *_of("engine/merge/run.py", "tests/engine/merge/test_ranks.py tests/engine/merge/test_methods.py",
         ("merge: a base LoRA is bent", "for part in parts if not part.whole]\n    rest",
          "for part in parts]\n    rest")),
    *_of("engine/merge/extract.py", "tests/engine/merge/test_extract.py",
         ("extract: what is clamped is not measured", "measure([_again(job, module)], stored)",
          "_against(found.spectrum.energy, _kept(found.spectrum, rank), entry.left_out)")),
    *_of("engine/merge/conflicts.py", "tests/engine/merge/test_conflicts.py",
         ("conflicts: LoRAs without weights", "[None if part is None else part.weighted for part in parts]\n    found",
          "[None if part is None else part.delta for part in parts]\n    found")),
    *_of("loaders/merges/matching.py", "tests/loaders/merges/test_merging.py tests/loaders/merges/test_kinds.py",
         ("merge: CLIP at the model's strength", "factor = wanted.clip_strength *", "factor = wanted.strength *"),
         ("merge: a set at its strength", "if patch.adapter.kind == SET else 1.0", "if False else 1.0")),
    *_of("loaders/merges/merging.py", "tests/loaders/merges/test_merging.py",
         ("merge: any loss is allowed", "proof.total.error > allowed", "proof.total.error > 1 + allowed"),
         ("merge: over an input", "wanted.path.samefile(request.out)", "False")),
    *_of("loaders/merges/record.py", "tests/loaders/merges/test_merging.py tests/cli/test_merge.py",
         ("merge: strength of what is inside an input", "deep.strength * strength", "deep.strength")),
    *_of("loaders/merges/verifying.py", "tests/loaders/merges/test_merging.py",
         ("merge: inputs by the path a header says", 'path.parent / Path(name.replace("\\\\", "/")).name',
          "path.parent / name")),
    *_of("loaders/merges/pairs.py", "tests/loaders/merges/test_extracting.py",
         ("extract: codes of text encoders", "if is_code(info) and not torch.equal(one, other):", "if False:")),
    *_of("loaders/names/encoders.py", "tests/loaders/merges/test_extracting.py",
         ("extract: k before q", 'enumerate("qkv")', 'enumerate("kqv")')),
    *_of("loaders/plans/weighing.py", "tests/loaders/lineage/test_weighing.py",
         ("weigh: a LoRA merged at nothing", " and each.ingredient.strength != 0", "")),
)  # fmt: skip
BATCH = (
    *_of("engine/bake.py", "tests/engine/test_together.py",
         ("together: a sum for each result", "Workspace() if room is None else None", "None")),
    *_of("engine/needs.py", "tests/engine/test_together.py",
         ("together: the others need nothing", "request in requests[1:] if", "request in requests[:0] if")),
    *_of("loaders/batches/shares.py", "tests/loaders/batches/test_shares.py",
         ("batch: a pass without end", "math.ceil(documents / together)", "1"),
         ("batch: a base twice for a little", "math.ceil(shares - SLACK)", "math.ceil(shares)"),
         ("batch: two names, two bases", "tuple(path.resolve() for path", "tuple(path for path")),
    *_of("loaders/batches/unit.py", "tests/loaders/batches/test_unit.py",
         ("batch: one fails, all fail", "            _bake(half, unit, on_step)", "            pass"),
         ("batch: another recipe is the same", 'for key in ("recipe_sha256", "base_identity")):',
          'for key in ("base_identity",)):'),
         ("batch: workers of any version", 'if told["version"] != __version__:', "if False:")),
    *_of("loaders/batches/records.py", "tests/loaders/batches/test_records.py",
         ("batch: inputs are not looked at", ' and each == states.of(each["path"]) for each in record["inputs"])',
          ' for each in record["inputs"])'),
         ("batch: results are not looked at", 'return all(each == states.of(each["path"]) for each in record["files"])',
          "return True")),
    *_of("cli/workers/loop.py", "tests/cli/test_batch_loop.py",
         ("batch: all of a dead worker again", "return [(replace(unit, tasks=left), count + 1)]",
          "return [(unit, count + 1)]"),
         ("batch: dead workers for ever", "if fruitless > max(TRIES, runner.slots):", "if False:")),
)  # fmt: skip
MUTANTS = (*NUMBERS, *ENGINE, *DISK, *NAMES, *RULES, *MERGE, *BATCH)


def mutated(mutant: Mutant, tree: Path = ROOT) -> str:
    """The text of its file with the fault in it; ValueError where the old text does not stand there exactly once."""
    text = (tree / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: the old text stands {text.count(mutant.old)} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def is_seen(mutant: Mutant, tree: Path) -> bool:
    """Whether a test fails with the fault; the copy ``tree`` is as it was afterwards."""
    path, command = tree / mutant.file, [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command = command if sys.version_info >= (3, 11) else [part for part in command if part != "-P"]
    before = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutant, tree), encoding="utf-8")
    try:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*command, *mutant.tests.split()], cwd=tree, env=environment, capture_output=True)
    finally:
        path.write_text(before, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise ValueError(f"{mutant.name}: the tests did not run: {done.stdout.decode()[-500:]}")
    return done.returncode == 1


def main() -> int:
    """Print one line a mutant and the share that was seen; 1 when it is too small."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a word of the names")
    parser.add_argument("--list", action="store_true", help="print the names")
    asked = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if asked.only in mutant.name]
    if asked.list:
        print("\n".join(f"{mutant.file}: {mutant.name}" for mutant in chosen))
        return 0
    seen = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        for mutant in chosen:
            killed = is_seen(mutant, tree)
            seen += killed
            print(f"{'killed' if killed else 'SURVIVED'}  {mutant.name}", flush=True)
    print(f"{seen} of {len(chosen)} killed ({seen / max(1, len(chosen)):.0%})")
    return 0 if seen >= LEAST * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
