"""What the routes take out of a request's body; anything of another form is a FoundryError ``body``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.errors import FoundryError
from ..engine.texts.say import refuse
from ..loaders.workflows.node_values import finite

FORMS = ("prompt", "workflow")  # keys of a body
MOST_NAMES = 500  # LoRAs in one question, as many as a list of rows may have


def forms_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a body has of a workflow, by form. FoundryError ``body`` where it has none."""
    forms = {form: body[form] for form in FORMS if body.get(form) is not None}
    if not forms:
        raise refuse("body.nothing")
    return forms


def text(body: Mapping[str, Any], key: str) -> str:
    """A text of a body, empty where there is none. FoundryError ``body`` for anything else."""
    given = body.get(key, "")
    if not isinstance(given, str):
        raise unfit(key, given, "a text")
    return given


def number(body: Mapping[str, Any], key: str, default: float) -> float:
    """A number of a body. FoundryError ``body`` for anything else."""
    given = body.get(key, default)
    value = finite(given)
    if value is None:
        raise unfit(key, given, "a number")
    return value


def one_of(body: Mapping[str, Any], key: str, choices: tuple[str, ...], default: str) -> str:
    """A choice of a body. FoundryError ``body`` for anything else."""
    given = body.get(key, default)
    if given not in choices:
        raise unfit(key, given, f"one of: {', '.join(choices)}")
    return str(given)


def unfit(key: str, given: object, wanted: str) -> FoundryError:
    """FoundryError ``body``."""
    return refuse("body.choice", name=key, given=f"{given!r:.100}", wanted=wanted)
