"""The terminal command ``lora-foundry``: the same engine as the nodes, without ComfyUI.

Results go to stdout (with ``--json`` exactly one JSON object), progress and errors to stderr. Exit codes: 0 done,
1 findings that stop it, 2 wrong use or bad input, 130 stopped by Ctrl-C. torch takes seconds to import, so only the
functions that need it import it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .engine.errors import FoundryError
from .engine.findings import Finding, stops, worst_first
from .terminal import Bar, harden, size, span, table

if TYPE_CHECKING:
    from .engine.plan import Plan

DONE, STOPPED, MISUSE, INTERRUPTED = 0, 1, 2, 130
EPILOG = "exit codes: 0 done, 1 findings that stop it, 2 wrong use or bad input, 130 stopped by Ctrl-C"


class Refused(Exception):
    """An error that ends the command, with everything else that was found."""

    def __init__(self, error: FoundryError, findings: Iterable[Finding] = ()) -> None:
        self.error, self.findings = error, tuple(findings)
        super().__init__(str(error))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. No FoundryError and no OSError leaves it."""
    # Threads that spin while they wait take the cores from reading and writing: 6 times the time on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    harden(sys.stdout, sys.stderr)
    try:
        options = _parser().parse_args(arguments)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except Refused as refused:
        return _fail(refused.error, refused.findings, as_json)
    except FoundryError as error:
        return _fail(error, (), as_json)
    except KeyboardInterrupt:
        stopped = FoundryError("stopped", "Stopped by Ctrl-C.", "Nothing was changed; the unfinished file is removed.")
        _fail(stopped, (), as_json)
        return INTERRUPTED
    except BrokenPipeError:  # `lora-foundry inspect ... | head`: whoever read us has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STOPPED
    except OSError as error:
        what = f"{error.filename or 'The system'}: {error.strerror or error}."
        return _fail(FoundryError("system", what), (), as_json)


def exit_code(error: FoundryError) -> int:
    """1 for a verdict about a stack (LFxxx), 2 for input that cannot be worked with."""
    return STOPPED if error.code.startswith("LF") else MISUSE


def _fail(error: FoundryError, findings: Sequence[Finding], as_json: bool) -> int:
    if as_json:
        parts = {name: getattr(error, name) for name in ("code", "what", "why", "fix")}
        _print_json({"error": parts, "findings": [finding.to_json() for finding in findings]})
    else:
        lines = [finding.sentence() for finding in findings] or [str(error)]
        print(*lines, sep="\n", file=sys.stderr)
    return exit_code(error)


def _print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, indent=1))


# --- the command line itself ------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """argparse whose errors are FoundryErrors, so that ``--json`` holds for them too."""

    def error(self, message: str) -> NoReturn:
        """Wrong use: one sentence and the usage line."""
        raise FoundryError("usage", f"{message[:1].upper()}{message[1:]}.", fix=self.format_usage().strip())


def _parser() -> Parser:
    parser = Parser(
        prog="lora-foundry",
        description="Fuse the base LoRA, stack the weighted LoRAs, quantize last.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"lora-foundry {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, epilog=EPILOG)
        added.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        added.set_defaults(run=run)
        return added

    added = verb("demo", _demo, "Make a tiny model and show what the right and the wrong orders do to its LoRAs.")
    added.add_argument("--host", action="store_true", help="do it inside a real ComfyUI, down to an image")
    added.add_argument("--keep", metavar="FOLDER", type=Path, help="keep the files there")
    added = verb("inspect", _inspect, "Say what a file is: a LoRA or a base model, and what is in it.")
    added.add_argument("file", metavar="FILE", type=Path, help=".safetensors, .index.json or a folder of shards")
    added = verb("check", _check, "Check a stack document: files, families, coverage, damaged tensors.")
    added.add_argument("document", metavar="DOCUMENT", type=Path, help="YAML or JSON: base, fuse, stack, quantize")
    added.add_argument("--strict", action="store_true", help="warnings stop it too")
    added = verb("bake", _bake, "Bake a stack document into one file that any ComfyUI loads.")
    added.add_argument("document", metavar="DOCUMENT", type=Path, help="YAML or JSON: base, fuse, stack, quantize")
    added.add_argument("-o", "--out", metavar="OUT", type=_out, required=True, help=".safetensors; replaced if there")
    added.add_argument("--quantize", choices=("fp8", "none"), help="instead of what the document says")
    added.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), help="of what is not quantized; default: as stored")
    verb("doctor", _doctor, "Check this machine: Python, torch, fp8, disk, ComfyUI, extras.")
    return parser


def _out(text: str) -> Path:
    if not text.lower().endswith(".safetensors"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .safetensors, so no loader would read it")
    return Path(text)


# --- verbs ------------------------------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    if options.host:
        from . import demo_host as demo
    else:
        from . import demo  # type: ignore[no-redef]
    with Bar("demo") as bar:
        result = demo.run(options.keep, bar)
    return _told(result, demo.text, options.json)


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import examine, text

    return _told(examine(), text, options.json)


def _told(result: dict[str, Any], text: Callable[[dict[str, Any]], str], as_json: bool) -> int:
    """Print a result that says itself whether it is ``ok``."""
    if as_json:
        _print_json(result)
    else:
        print(text(result))
    return DONE if result["ok"] else STOPPED


def _inspect(options: argparse.Namespace) -> int:
    from .loaders.describe import describe

    facts = describe(options.file)
    findings = [Finding(**finding) for finding in facts["findings"]]
    if options.json:
        _print_json(facts)
    else:
        print(table(_facts(facts)))
        _print_findings(findings)
    return STOPPED if stops(findings) else DONE


def _check(options: argparse.Namespace) -> int:
    from .engine.report import plan_json
    from .loaders.documents import load_document

    plan, findings = _planned(load_document(options.document))
    stopped = stops(findings, options.strict)
    if options.json:
        _print_json({**plan_json(plan, findings), "ok": not stopped})
    else:
        _print_layers(plan)
        _print_findings(findings)
        print("Stopped: correct what is listed above." if stopped else "OK: nothing stops this stack.")
    return STOPPED if stopped else DONE


def _bake(options: argparse.Namespace) -> int:
    from .engine.finish import Finish
    from .engine.report import bake_json, bake_sentence
    from .loaders.baking import bake_to_file, refuse_input
    from .loaders.documents import load_document

    document = load_document(options.document)
    refuse_input(options.out, document)
    plan, findings = _planned(document)
    if stops(findings):
        worst = findings[0]
        raise Refused(FoundryError(worst.code, worst.seen, worst.why, worst.fix), findings)
    quantize = options.quantize or document.quantize
    finish = Finish("float8_e4m3fn" if quantize == "fp8" else "none", _dtype(options.dtype))
    with Bar("baking") as bar:
        report, sha256 = bake_to_file(plan, finish, options.out, bar)
    if options.json:
        _print_json({"out": str(options.out), **bake_json(plan, findings, report, sha256)})
    else:
        _print_layers(plan, report.gains)
        _print_findings(findings)
        print(f"{bake_sentence(report)}\npeak memory {size(report.peak_rss_bytes)}, recipe {sha256}\n{options.out}")
    return DONE


def _planned(document: Any) -> tuple[Plan, tuple[Finding, ...]]:
    """(the plan of every row that can be planned, all findings worst first); Refused when a row's file is unusable."""
    from .engine.rules import check
    from .loaders.planner import plan_document
    from .loaders.verify import verify

    failed: list[tuple[FoundryError, Finding]] = []
    plan = plan_document(document, on_error=lambda row, error: failed.append((error, error.finding(row.path))))
    findings = worst_first([*(finding for _, finding in failed), *check(plan), *verify(plan)])
    unusable = [error for error, _ in failed if exit_code(error) == MISUSE]
    if unusable:
        raise Refused(unusable[0], findings)
    return plan, findings


def _dtype(name: str | None) -> Any:
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, None: None}[name]


# --- text -------------------------------------------------------------------------------------------------------------


def _print_layers(plan: Plan, gains: Sequence[float | None] = ()) -> None:
    from .engine.report import layers_json
    from .loaders.header import shown

    family = plan.base.family or "family not recognised"
    print(f"base   {shown(plan.base.name)} ({family})" + (", no base LoRA by choice" if plan.vanilla else ""))
    rows = [
        (
            layer["stage"],
            shown(layer["path"], 60),
            f"{layer['weight']:g}",
            f"{layer['matched']} of {layer['modules']}",
            span(*layer["scale"]) if layer["scale"] else "-",
            layer["dialect"],
            "-" if layer["gain"] is None else f"{layer['gain']:.1%}",
        )
        for layer in layers_json(plan, gains)
    ]
    columns = ("stage", "LoRA", "weight", "modules", "scale", "dialect", "kept")
    end = len(columns) if gains else -1  # before a bake nothing is known of what is kept
    print(table([row[:end] for row in rows], columns[:end]) if rows else "no LoRA")


def _print_findings(findings: Iterable[Finding]) -> None:
    print(*([finding.sentence() for finding in findings] or ["No findings."]), sep="\n")


def _facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts of ``inspect`` as lines: names left, values right, nothing longer than a screen."""
    from .loaders.header import shown

    rows = []
    for name, value in facts.items():
        if name in ("findings", "metadata", "made_by") or value in (None, ""):
            continue
        if name == "bytes":
            name, value = "size", size(value)
        elif name in ("rank", "alpha", "scale"):
            value = span(*value)
        elif name == "dtypes":
            value = ", ".join(f"{count} x {dtype}" for dtype, count in value.items())
        elif isinstance(value, list):
            value = f"{len(value)} files, first {value[0]}" if len(value) > 1 else value[0]
        rows.append((name.replace("_", " "), shown(str(value), 400)))
    if facts.get("made_by"):
        rows += _recipe(facts["made_by"])
    return rows + [(f"metadata {shown(key, 40)}", shown(text, 100)) for key, text in facts["metadata"].items()]


def _recipe(record: dict[str, Any]) -> list[tuple[str, str]]:
    from .loaders.header import shown

    recipe = record["recipe"]
    rows = [("made by", f"LoRA Foundry, recipe {shown(str(record.get('recipe_sha256')))}")]
    for key in ("base", "finish"):
        rows.append((f"  {key}", shown(json.dumps(recipe.get(key)))))
    layers = recipe.get("layers")
    return rows + [("  layer", shown(json.dumps(layer))) for layer in (layers if isinstance(layers, list) else ())]
