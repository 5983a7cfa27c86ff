"""Which format fits which machine, and why it says so."""

from __future__ import annotations

import pytest
import torch
from lora_foundry.engine.choice import CHOICES, Machine, choose, choose_for_others, machine_of
from lora_foundry.engine.formats import FORMATS, is_held

OLD, NEW = ("float8_e4m3fn",), tuple(FORMATS)
CARDS = {
    "no GPU": (0, 0), "V100": (7, 0), "T4": (7, 5), "3060": (8, 6), "4090": (8, 9), "H200": (9, 0), "B200": (10, 0),
    "5090": (12, 0),
}  # fmt: skip


@pytest.mark.parametrize(("card", "formats", "cuda", "auto", "smallest"), [
    ("no GPU", OLD, (0, 0), "float8_e4m3fn", "float8_e4m3fn"),
    ("no GPU", NEW, (0, 0), "float8_e4m3fn", "float8_e4m3fn"),
    ("no GPU", ("int8_convrot",), (0, 0), "int8_convrot", "int8_convrot"),
    ("V100", NEW, (13, 0), "float8_e4m3fn", "float8_e4m3fn"), ("T4", NEW, (13, 0), "int8_convrot", "int8_convrot"),
    ("3060", NEW, (13, 0), "int8_convrot", "w4a8"), ("3060", NEW, (12, 8), "float8_e4m3fn", "w4a8"),
    ("3060", OLD, (13, 0), "float8_e4m3fn", "float8_e4m3fn"), ("4090", NEW, (13, 0), "int8_convrot", "w4a8"),
    ("H200", NEW, (13, 0), "float8_e4m3fn", "w4a8"), ("B200", NEW, (13, 0), "float8_e4m3fn", "nvfp4"),
    ("5090", NEW, (13, 0), "int8_convrot", "nvfp4"), ("5090", NEW, (12, 8), "float8_e4m3fn", "w4a8"),
    ("5090", ("float8_e4m3fn", "nvfp4"), (13, 0), "float8_e4m3fn", "nvfp4"),
])  # fmt: skip
def test_a_machine_gets_what_is_fast_there(card, formats, cuda, auto, smallest):
    machine = Machine(formats, card, CARDS[card], cuda)
    for wanted, format in zip(CHOICES, (auto, smallest), strict=True):
        chosen, why = choose(wanted, machine)
        assert chosen == format and chosen in formats and why.startswith(f"{wanted}: {format}, ")


def test_auto_is_never_four_bits():
    for card, capability in CARDS.items():
        for cuda in ((0, 0), (12, 8), (13, 1)):
            assert choose("auto", Machine(NEW, card, capability, cuda))[0] in ("float8_e4m3fn", "int8_convrot")


def test_what_is_a_format_stays():
    assert [choose(name, Machine(())) for name in (*FORMATS, "none")] == [(name, "") for name in (*FORMATS, "none")]


def test_where_no_comfyui_is_known_a_file_is_for_all_or_for_this_gpu(monkeypatch):
    assert choose_for_others("auto")[0] == "float8_e4m3fn" and choose_for_others("w6a8") == ("w6a8", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_for_others("smallest")[0] == "w4a8" and "no GPU here" in choose_for_others("smallest")[1]


def test_a_file_made_on_a_mac_is_one_its_gpu_can_hold(monkeypatch):
    """``auto`` once made fp8 there: the bake succeeded, and sampling failed."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for wanted in CHOICES:
        format, why = choose_for_others(wanted)
        assert format == "int8_convrot" and is_held(format, "mps") and "MPS" in why
    assert choose_for_others("float8_e4m3fn") == ("float8_e4m3fn", "")  # whoever names it bakes for another machine


@pytest.mark.parametrize("kind", ["mps", "privateuseone"])
def test_a_choice_on_a_device_without_fp8_is_never_fp8(kind):
    held = [name for name in NEW if is_held(name, kind)]
    for wanted in CHOICES:
        assert choose(wanted, machine_of(torch.device("cpu"), held))[0] == "int8_convrot"


def test_a_machine_without_cuda_has_no_capability(monkeypatch):
    assert machine_of(torch.device("cpu"), NEW) == machine_of(None, NEW) == Machine(NEW)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.version, "cuda", None)  # ROCm
    assert machine_of(device, NEW) == Machine(NEW, "card")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert machine_of(device, NEW) == Machine(NEW, "card", (8, 6), (13, 0))
