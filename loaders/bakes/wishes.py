"""What is wished of a bake beside its document, as plain data that a process or another machine can be sent.

torch is imported where it is needed: a batch that finds nothing to do compares wishes and ends within a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ...engine.finish import Finish
    from ..documents.document import Document

AUTO = "auto"


@dataclass(frozen=True)
class Wishes:
    """Options of a bake under their names on the command line; None leaves it to the document."""

    quantize: str | None = None
    dtype: str | None = None
    matmul: str = "full precision"
    keep: str = "auto"
    max_error: float | None = None
    on_quantized_base: str | None = None
    allow_partial: bool = False
    reproducible: bool = False
    memory: str | None = None
    device: str = "cpu"
    no_mmap: bool = False
    calibration: str | None = None
    pre_quant_scale: bool = False

    def adjusted(self, document: Document) -> Document:
        """The document with what is wished instead."""
        return replace(
            document,
            quantize=self.quantize or document.quantize,
            on_quantized_base=self.on_quantized_base or document.on_quantized_base,
            allow_partial=self.allow_partial or document.allow_partial,
        )

    def memory_of(self, *documents: Document) -> str:
        """The memory mode of documents that are baked together: what is wished, else the first that one names."""
        told = [document.memory for document in documents if document.memory is not None]
        return self.memory or next(iter(told), AUTO)

    def files(self) -> tuple[Path, ...]:
        """Those a result depends on beside what its document names."""
        from .calibrations import find_calibration

        return (find_calibration(self.calibration).absolute(),) if self.calibration else ()

    def finish(self, document: Document, device: torch.device | None, memory: str) -> Finish:
        """How an adjusted document's bake ends, on that device in that memory mode."""
        import torch

        from ...engine.devices import CPU, arithmetic_of
        from ...engine.finish import Finish
        from ...engine.quantize import parse_keep
        from .calibrations import find_calibration, load_calibration

        known = load_calibration(find_calibration(self.calibration)) if self.calibration else None
        place = device if known is None else CPU  # error feedback is work for the CPU
        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, None: None}
        exact = self.reproducible or document.reproducible
        return Finish(
            format_of(document)[0],
            dtypes[self.dtype or document.dtype],
            self.matmul,
            parse_keep(self.keep),
            max_error=self.max_error,
            arithmetic=arithmetic_of(place, memory) if exact else None,
            calibration=known,
            pre_quant_scale=self.pre_quant_scale,
        )


def format_of(document: Document) -> tuple[str, str]:
    """(the format an adjusted document comes to, why it was chosen)."""
    from ...engine.choice import choose_for_others
    from ...engine.formats import DEFAULT

    return choose_for_others(DEFAULT.name if document.quantize == "fp8" else document.quantize)
