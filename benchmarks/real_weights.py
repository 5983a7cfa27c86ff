"""What known inputs gain on real weights: a small speech model that a package ships, and made-up speech through it.

pip install --no-deps Resemblyzer==0.1.4        its wheel holds the weights; nothing of it is imported
python benchmarks/real_weights.py               seconds

Rounded are the input weights of the second and third LSTM layer (1024 x 256) and the last layer (256 x 256), by 4800
frames of 30 voices; the error of their outputs is that of 3200 frames of 20 other voices.
"""

from __future__ import annotations

import math
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pack_here as pack_here  # first: it makes the rest importable
import torch
from lora_foundry.cli.demo.formats import gram_of
from lora_foundry.engine.feedback import Feedback
from lora_foundry.engine.formats import FORMATS, quantize
from lora_foundry.engine.gemm import Workspace

RATE, WINDOW, HOP, MELS = 16000, 400, 160, 40
FRAMES, WIDTH, LAYERS = 160, 256, 3  # of an utterance; of the model
HARMONICS = 40
COUNTED, OTHERS = range(30), range(30, 50)  # voices


def weights_file() -> Path:
    """The weights in the installed package."""
    try:
        (found,) = [each for each in files("Resemblyzer") or () if each.name == "pretrained.pt"]
    except (PackageNotFoundError, ValueError):
        sys.exit("needs its weights; run: pip install --no-deps Resemblyzer==0.1.4")
    return Path(str(found.locate()))


def speech(voice: int) -> torch.Tensor:
    """One utterance [samples]: harmonics of a wandering pitch under three wandering formants, in syllables, and breath.

    Pitch and formants differ by voice.
    """
    generator = torch.Generator().manual_seed(voice)
    time = torch.arange(FRAMES * HOP + WINDOW) / RATE

    def wander(low: float, high: float, points: int = 8) -> torch.Tensor:
        at = low + (high - low) * torch.rand(1, 1, points, generator=generator)
        return torch.nn.functional.interpolate(at, len(time), mode="linear", align_corners=True).view(-1)

    middle = 90 + 160 * float(torch.rand((), generator=generator))
    pitch = middle * wander(0.85, 1.2)
    formants = [wander(*each) for each in ((300, 900), (900, 2400), (2300, 3400))]
    loud, phase = wander(0.05, 1.0, 16), 2 * math.pi * torch.cumsum(pitch, 0) / RATE
    sound = 0.01 * torch.randn(len(time), generator=generator)
    for number in range(1, HARMONICS + 1):
        tone = number * pitch
        shape = sum((torch.exp(-(((tone - each) / 150) ** 2)) for each in formants), torch.full_like(tone, 0.02))
        sound += torch.where(tone < RATE / 2, shape / number**0.5, 0.0) * torch.sin(number * phase)
    sound *= loud
    return sound * 10 ** (-30 / 20) / sound.square().mean().sqrt()  # -30 dB, as the model is given speech


def mels(sound: torch.Tensor) -> torch.Tensor:
    """Power in bands of equal width on the mel scale, [frames, MELS]."""
    spectrum = torch.stft(sound, WINDOW, HOP, window=torch.hann_window(WINDOW), center=False, return_complex=True)
    edges = 700 * (10 ** (torch.linspace(0, 2595 * math.log10(1 + RATE / 2 / 700), MELS + 2) / 2595) - 1)
    tones = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rise = (tones - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - tones) / (edges[2:] - edges[1:-1])[:, None]
    bands = torch.minimum(rise, fall).clamp(min=0) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return (bands @ spectrum.abs().square()).t()[:FRAMES]


def heard(state: dict[str, torch.Tensor], voices: range) -> list[torch.Tensor]:
    """What the second and third LSTM layer and the last layer are given, each [frames of all voices, WIDTH]."""
    inputs, given = torch.stack([mels(speech(voice)) for voice in voices]), list[torch.Tensor]()
    for layer in range(LAYERS):
        lstm = torch.nn.LSTM(inputs.shape[2], WIDTH, batch_first=True)
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        lstm.load_state_dict({f"{kind}_l0": state[f"lstm.{kind}_l{layer}"] for kind in kinds})
        with torch.no_grad():
            inputs = lstm(inputs)[0]
        given.append(inputs.reshape(-1, WIDTH))
    return given


def error(stored: torch.Tensor, weight: torch.Tensor, inputs: torch.Tensor) -> float:
    """|(stored - weight) x| over |weight x|, all inputs together."""
    off, whole = ((each.double() @ inputs.double().t()).norm() for each in (stored - weight, weight))
    return float(off / whole)


def main() -> None:
    """One row a format: errors to the nearest and by the inputs, of each of the three weights."""
    state = torch.load(weights_file(), map_location="cpu", weights_only=True)["model_state"]
    names = ("lstm.weight_ih_l1", "lstm.weight_ih_l2", "linear.weight")
    counted, others = heard(state, COUNTED), heard(state, OTHERS)
    print("| format |" + "".join(f" {name} |" for name in names) + "\n|---|" + "--:|" * len(names))
    for format_name, format in FORMATS.items():
        cells = []
        for name, seen, held in zip(names, counted, others, strict=True):
            weight = state[name].to(torch.float32)
            codes, scale = quantize(weight, format)
            prepared = format.prepare(weight.clone())
            rounded = Feedback(gram_of(seen), format).adjust(prepared, scale, Workspace())
            guided = format.decode(format.encode(rounded, scale), scale)
            plain = error(format.decode(codes, scale), weight, held)
            cells.append(f" {plain:.2%} to {error(guided, weight, held):.2%} |")
        print(f"| {format_name} |" + "".join(cells))


if __name__ == "__main__":
    main()
