"""Stands in for torchaudio, which has no build for some torch versions; newer hosts import it, no test here uses it."""

import sys
from types import ModuleType


class _Missing(ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_, **__):
            raise RuntimeError(f"torchaudio is not installed ({self.__name__}.{name})")

        return refuse


functional, transforms = (_Missing(f"{__name__}.{part}") for part in ("functional", "transforms"))
sys.modules |= {module.__name__: module for module in (functional, transforms)}
