"""What the readers of evidence share: their statements, and how values nobody has checked become claims."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...engine.errors import FoundryError
from ...engine.lineage import DECLARED, Claim, Evidence, Ingredient
from ...engine.texts.say import refuse
from ..disk.header import shown

QUOTE, NAME = 200, 1000  # characters kept of a quote, and of a path as somebody wrote it
MOST_NAMED = 64  # LoRAs of one list
MAX_STRENGTH = 100.0
MAX_WRITTEN = 100_000  # characters of a script or config; what people write is a tenth of it
# What the name of a base says that is not the untouched weights any more.
NOT_UNTOUCHED = re.compile(
    r"(?<!dif)fus(ed|ion)|merged|lightning|lightx2v|hyper[ _-]?(sd|flux)|[ _-](lcm|dmd2?)([ _.-]|$)|distill"
)


@dataclass(frozen=True)
class Statement:
    """One claim of a file and whose it is: ``outputs`` are the names the run writes under, if the file tells.

    ``sha256`` is the hash of the LoRA that a sidecar says it is about.
    """

    claim: Claim
    outputs: tuple[str, ...] = ()
    sha256: str = ""


def evidence_error(where: str, key: str, **values: object) -> FoundryError:
    """The error of evidence: ``refuse`` with the place, as it can be printed, in the blank ``where``."""
    return refuse(key, where=shown(where), **values)


def checked(text: str, where: str) -> str:
    """A script's or config's text, unless it is too long to be one: parsing it could take minutes."""
    if len(text) > MAX_WRITTEN:
        raise evidence_error(where, "evidence.long", most=MAX_WRITTEN)
    return text


def evidence(where: str, quote: str, level: str = DECLARED) -> Evidence:
    """Evidence that quotes a file, cut and safe to print."""
    return Evidence(level, shown(where), shown(" ".join(quote.split()), QUOTE))


def ingredient(name: str, strength: float | None = None) -> Ingredient:
    """A base LoRA by the path as somebody wrote it, safe to print."""
    return Ingredient(shown(name.strip(), NAME), strength=strength)


def number(value: Any) -> float | None:
    """A strength, also one written as text; None for anything that cannot be one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or len(str(value)[:41]) > 40:
        return None
    try:
        strength = float(value)
    except (ValueError, OverflowError):
        return None
    return strength if abs(strength) <= MAX_STRENGTH else None  # never of NaN


def texts(value: Any) -> tuple[str, ...]:
    """The non-empty texts of a text or a list of them; nothing of anything else."""
    listed = [value] if isinstance(value, str) else value if isinstance(value, Sequence) else []
    return tuple(each for each in listed[:MOST_NAMED] if isinstance(each, str) and each.strip())


def base_name(path: str) -> str:
    """The last part of a path with either kind of slash."""
    return re.split(r"[\\/]", path.strip().rstrip("\\/"))[-1]


def touched_base(names: Sequence[str]) -> str:
    """The first of these bases whose own name says that something was merged into it; empty when none does."""
    return next((name for name in names if NOT_UNTOUCHED.search(base_name(name).lower())), "")


def outputs_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The names a run writes under: ``output_name``, else the last folder of ``output_path`` or ``output_dir``."""
    for option in ("output_name", "output_path", "output_dir"):
        if names := tuple(base_name(text) for text in texts(options.get(option))):
            return names
    return ()


def options_statement(options: Mapping[str, Any], where: str, form: str, level: str = DECLARED) -> Statement | None:
    """What a trainer's options say about base LoRAs; None when they name none.

    ``--lora_fused`` (fork of DiffSynth-Studio) fuses a LoRA that stays in use. ``--preset_lora_path`` (DiffSynth) and
    ``--base_weights`` (kohya, musubi) merge LoRAs that are kept in one practice and dropped in another: ``ask``.
    ``form`` shows an option in the quote, as ``"--{} {}"``.
    """
    kept = [ingredient(name, 1.0) for name in texts(options.get("lora_fused"))[:1]]
    asked = [*_preset(options), *_base_weights(options)]
    if not kept and not asked:
        return None
    told = {
        option: " ".join(str(each) for each in value) if isinstance(value, (list, tuple)) else str(value)
        for option in ("lora_fused", "preset_lora_path", "preset_lora_model", "base_weights", "base_weights_multiplier")
        if (value := options.get(option)) not in (None, "", [], ())
    }
    quote = " ".join(form.format(option, value) for option, value in told.items())
    claim = Claim(
        evidence(where, quote, level),
        trained_with=(*kept, *asked),
        use_with=None if asked else tuple(kept),
        ask=bool(asked),
    )
    return Statement(claim, outputs_of(options))


def _preset(options: Mapping[str, Any]) -> list[Ingredient]:
    """DiffSynth's preset LoRA, unless it went into a text encoder."""
    into = texts(options.get("preset_lora_model"))
    if into and "text_encoder" in into[0]:
        return []
    return [ingredient(name, 1.0) for name in texts(options.get("preset_lora_path"))[:1]]


def _base_weights(options: Mapping[str, Any]) -> list[Ingredient]:
    """kohya's merged LoRAs; one without a multiplier of its own gets 1.0, as the trainer does it."""
    stated = options.get("base_weights_multiplier")
    multipliers = list(stated) if isinstance(stated, (list, tuple)) else [] if stated is None else [stated]
    names = texts(options.get("base_weights"))
    given = [number(each) for each in multipliers[: len(names)]]
    return [
        ingredient(name, strength)
        for name, strength in zip(names, [*given, *[1.0] * (len(names) - len(given))], strict=True)
    ]
