"""LoRAs of mixed rank, kind, dialect and alpha for one block of a family, and what baking them gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from fakes import Collected, noise
from forms import Form, Maker
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.documents.document import Document, Row
from lora_foundry.loaders.merges.matching import Wanted
from lora_foundry.loaders.merges.merging import Request
from lora_foundry.loaders.names.lookup import flat
from lora_foundry.loaders.names.outgoing import DIALECTS
from lora_foundry.loaders.plans.planner import plan_document
from writing_parts import Shapes, layers_of, native, written

FC1 = "text_model_encoder_layers_0_mlp_fc1"
TEXT = {f"1:{FC1}": (12, 8), f"2:{FC1}": (16, 10)}
STRENGTHS = (1.0, 0.7, -0.35, 0.5, 1.3, -1.0, 0.25, 0.9)
KINDS = ("lora", "loha", "lokr", "diff")


def a_base(folder: Path, family: str) -> Path:
    path = folder / f"{family}.safetensors"
    shapes = native(family)
    save_small(
        path, {name: noise(shape, 0.5, seed, torch.float32) for seed, (name, shape) in enumerate(shapes.items())}
    )
    return path


def some_loras(folder: Path, family: str, count: int) -> list[Path]:
    """Plain LoRAs of every dialect, rank and alpha, and between them files of LoHa, LoKr and whole differences."""
    shapes, paths = native(family), []
    for number in range(count):
        path = folder / f"lora{number}.safetensors"
        if number % 4 == 3:
            save_small(path, of_kind(KINDS[number // 4 + 1], shapes, seed=number))
        else:
            text = TEXT if family == "sdxl" else None
            written(path, family, DIALECTS[number % 3], shapes, number, text, scale=0.5 + 0.3 * number)
        paths.append(path)
    return paths


def of_kind(kind: str, shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """A file of one kind of adapter on every second layer that it can be cut for, in kohya's names."""
    tensors: dict[str, torch.Tensor] = {}
    for number, name in enumerate(layers_of(shapes)[::2]):
        out, inp, *kernel = shapes[name]
        if out % 4 or inp % 4:
            continue
        form: Form = getattr(Maker(out, inp, tuple(kernel), seed=seed + number), kind)()
        module = f"lora_unet_{flat(name.removesuffix('.weight'))}"
        tensors |= {f"{module}.{SUFFIX[kind].format(part)}": tensor for part, tensor in form.parts.items()}
        if form.alpha is not None and kind != "diff":
            tensors[f"{module}.alpha"] = torch.tensor(form.alpha)
    return tensors


SUFFIX = {"loha": "hada_{}", "lokr": "lokr_{}", "diff": "{}", "lora": "lora_{}.weight"}


def wanted(paths: Sequence[Path], strengths: Sequence[float] = STRENGTHS) -> tuple[Wanted, ...]:
    return tuple(Wanted(path.name, path, n, n) for path, n in zip(paths, strengths, strict=False))


def a_request(
    folder: Path, paths: Sequence[Path], *, strengths: Sequence[float] = STRENGTHS, **more: object
) -> Request:
    return Request(wanted(paths, strengths), folder / "merged.safetensors", **more)  # type: ignore[arg-type]


def baked(base: Path, rows: Sequence[tuple[Path, float]]) -> dict[str, torch.Tensor]:
    """The base with LoRAs at their strengths, in fp32."""
    return baked_rows(base, [Row(str(path), strength) for path, strength in rows])


def baked_rows(base: Path, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    document = Document(str(base), stack=tuple(rows))
    sink = Collected()
    bake(plan_document(document), Finish("none", torch.float32), sink)
    return sink.values


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest relative difference of a weight."""
    assert set(one) == set(other)
    return max(float((one[name].double() - other[name]).norm() / other[name].double().norm()) for name in one)
