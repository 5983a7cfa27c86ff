"""One small adapter of every kind and form of storage, as tensors: out 6, in 4, rank 2."""

from __future__ import annotations

import torch

OUT, IN, RANK = 6, 4, 2


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def pair(
    module: str = "m", out: int = OUT, width: int = IN, rank: int = RANK, ab: bool = False, kernel: tuple[int, ...] = ()
) -> dict[str, torch.Tensor]:
    up, down = ("lora_B.weight", "lora_A.weight") if ab else ("lora_up.weight", "lora_down.weight")
    ones = [1] * len(kernel)
    return {f"{module}.{up}": numbers(out, rank, *ones), f"{module}.{down}": numbers(rank, width, *kernel)}


def parts(module: str, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{module}.{part.replace('__', '.')}": tensor for part, tensor in tensors.items()}


def hada(module: str = "m", taps: int = 1) -> dict[str, torch.Tensor]:
    """Of a convolution the kernel of ``taps`` numbers is stored flat."""
    sides = {"a": (OUT, RANK), "b": (RANK, IN * taps)}
    return {f"{module}.hada_w{n}_{side}": numbers(*shape, seed=n) for n in (1, 2) for side, shape in sides.items()}


def hada_tucker(module: str = "m") -> dict[str, torch.Tensor]:
    shapes = {"w#_a": (RANK, OUT), "w#_b": (3, IN), "t#": (RANK, 3, 3, 3)}
    return {
        f"{module}.hada_{part.replace('#', str(n))}": numbers(*shape, seed=n)
        for n in (1, 2)
        for part, shape in shapes.items()
    }


ALPHA = torch.tensor(1.0)
# name -> (kind, shape of the delta, tensors)
ZOO = {
    "lora": ("lora", (6, 4), {**pair(), "m.alpha": ALPHA}),
    "lora conv": ("lora", (6, 4, 3, 3), pair(kernel=(3, 3))),
    "lora tucker": ("lora", (6, 4, 3, 3), {**pair(kernel=(1, 1)), "m.lora_mid.weight": numbers(2, 2, 3, 3)}),
    "dora rows": ("lora", (6, 4), {**pair(), "m.dora_scale": numbers(6, 1)}),
    "dora columns": ("lora", (6, 4), {**pair(), "m.dora_scale": numbers(1, 4)}),
    "dora conv": ("lora", (6, 4, 3, 3), {**pair(kernel=(3, 3)), "m.dora_scale": numbers(1, 4, 1, 1)}),
    "dora peft": ("lora", (6, 4), {**pair(ab=True), "m.lora_magnitude_vector": numbers(6)}),
    "dora peft weight": ("lora", (6, 4), {**pair(ab=True), "m.lora_magnitude_vector.weight": numbers(6)}),
    "dora peft conv": (
        "lora", (6, 4, 3, 3), {**pair(ab=True, kernel=(3, 3)), "m.lora_magnitude_vector.weight": numbers(1, 6, 1, 1)},
    ),
    "reshape": ("lora", (6, 4), {**pair(), "m.reshape_weight": torch.tensor([6, 4])}),
    "loha": ("loha", (6, 4), {**hada(), "m.alpha": ALPHA}),
    "loha tucker": ("loha", (6, 4, 3, 3), hada_tucker()),
    "loha dora": ("loha", (6, 4), {**hada(), "m.dora_scale": numbers(6, 1)}),
    "lokr dense": ("lokr", (6, 4), {**parts("m", lokr_w1=numbers(2, 2), lokr_w2=numbers(3, 2)), "m.alpha": ALPHA}),
    "lokr right split": (
        "lokr", (6, 4),
        parts("m", lokr_w1=numbers(2, 2), lokr_w2_a=numbers(3, 1), lokr_w2_b=numbers(1, 2), alpha=ALPHA),
    ),
    "lokr left split": (
        "lokr", (6, 4),
        parts("m", lokr_w1_a=numbers(2, 1), lokr_w1_b=numbers(1, 2), lokr_w2=numbers(3, 2), alpha=ALPHA),
    ),
    "lokr both split": (
        "lokr", (6, 4),
        parts("m", lokr_w1_a=numbers(2, 1), lokr_w1_b=numbers(1, 2), lokr_w2_a=numbers(3, 1), lokr_w2_b=numbers(1, 2)),
    ),
    "lokr tucker": (
        "lokr", (6, 4, 3, 3),
        parts("m", lokr_w1=numbers(2, 2), lokr_t2=numbers(1, 2, 3, 3), lokr_w2_a=numbers(1, 3),
              lokr_w2_b=numbers(2, 2)),
    ),
    "lokr kernel": ("lokr", (6, 4, 3, 3), parts("m", lokr_w1=numbers(2, 2), lokr_w2=numbers(3, 2, 3, 3))),
    "glora": (
        "glora", (6, 4),
        parts("m", a1__weight=numbers(4, 2), a2__weight=numbers(2, 4), b1__weight=numbers(6, 2),
              b2__weight=numbers(2, 4), alpha=ALPHA),
    ),
    "glora old": (
        "glora", (6, 4),
        parts("m", a1__weight=numbers(2, 4), a2__weight=numbers(4, 2), b1__weight=numbers(2, 4),
              b2__weight=numbers(6, 2), alpha=ALPHA),
    ),
    "glora kernel": (
        "glora", (6, 4, 3, 3),
        parts("m", a1__weight=numbers(4, 2, 1, 1), a2__weight=numbers(2, 4, 1, 1), b1__weight=numbers(6, 2, 1, 1),
              b2__weight=numbers(2, 4, 3, 3), alpha=ALPHA),
    ),
    "glora old kernel": (
        "glora", (6, 4, 3, 3),
        parts("m", a1__weight=numbers(2, 4, 1, 1), a2__weight=numbers(4, 2, 1, 1), b1__weight=numbers(2, 4, 3, 3),
              b2__weight=numbers(6, 2, 1, 1), alpha=ALPHA),
    ),
    "oft": ("oft", (6,), parts("m", oft_blocks=numbers(3, 2, 2), alpha=torch.tensor(0.0))),
    "boft": ("boft", (8,), parts("m", oft_blocks=numbers(2, 2, 4, 4), rescale=numbers(8, 1))),
    "oft inputs": ("oft_in", (1, 8), {"m.oft_R.weight": numbers(2, 6)}),
    "oft inputs named": ("oft_in", (1, 8), {"m.oft_R.default.weight": numbers(2, 6)}),
    "oft inputs alike": ("oft_in", (1, 4), {"m.oft_R.weight": numbers(1, 6)}),
    "oft inputs dora": ("oft_in", (6, 8), {"m.oft_R.weight": numbers(2, 6), "m.dora_scale": numbers(6, 1)}),
    "boft inputs": ("boft_in", (6, 8), {"m.boft_R": numbers(2, 2, 4, 4), "m.boft_s": numbers(6, 1)}),
    "loha dora rows": ("loha", (6, 36), {**hada(taps=9), "m.dora_scale": numbers(6, 1, 1, 1)}),
    "loha dora columns": ("loha", (6, 36), {**hada(taps=9), "m.dora_scale": numbers(1, 4, 1, 1)}),
    "diff": ("diff", (6, 4), parts("m", diff=numbers(6, 4))),
    "norm": ("diff", (6,), parts("m", w_norm=numbers(6))),
    "set": ("set", (6, 4), parts("m", set_weight=numbers(6, 4))),
}  # fmt: skip
# forms that change another tensor than the weight of the module: name -> (target, shape, tensors)
BESIDE = {
    "diff_b": ("m.bias", (6,), parts("m", diff_b=numbers(6))),
    "b_norm": ("m.bias", (6,), parts("m", b_norm=numbers(6))),
    "diff_m": ("m.modulation", (1, 6, 4), parts("m", diff_m=numbers(1, 6, 4))),
}
