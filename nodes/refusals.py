"""What stops a run, told to the page that queued it: with key and values, for the page alone speaks other languages.

The exception, its log, ComfyUI's answer and its history stay English; this is beside them, and nobody has to listen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ..engine.errors import FoundryError
from .server import node_at_work, tell_page

EVENT = "lora_foundry.refused"  # {"node", "message": as ComfyUI shows it, "findings": the same as data}
Given = ParamSpec("Given")
Result = TypeVar("Result")


def refusal(*errors: FoundryError) -> str:
    """What refuses a prompt, as the text that ComfyUI shows; the page is told of it too."""
    message = " ".join(map(str, errors))
    node = node_at_work()
    if node is not None:  # else nobody could say where it belongs
        tell_page(
            EVENT,
            {"node": node, "message": message, "findings": [error.finding(node=node).to_json() for error in errors]},
        )
    return message


def telling(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """A node's function of which the page is told why it stopped."""

    @functools.wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except FoundryError as error:
            refusal(error)
            raise

    return called
