"""LoRA Foundry: fuse the base LoRA, stack the weighted LoRAs, quantize last.

ComfyUI reads ``NODE_CLASS_MAPPINGS`` here; they are resolved on first use, so the command line and the tests
import this package without ComfyUI.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .nodes.common import FoundryNode

__version__ = "0.1.0"
WEB_DIRECTORY = "./web"
__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]


def __getattr__(name: str) -> "Mapping[str, type[FoundryNode]] | Mapping[str, str]":
    if name in ("NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"):
        from . import nodes

        return nodes.NODE_CLASS_MAPPINGS if name == "NODE_CLASS_MAPPINGS" else nodes.NODE_DISPLAY_NAME_MAPPINGS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
