"""What a LoRA file that is written calls its modules: a dialect's names for the weights of a base.

``comfyui``: ComfyUI's own names with dots, which every loader of ComfyUI reads. ``kohya``: the same, flat, and for
SD 1.5 and 2 those of diffusers, as sd-scripts and A1111 want them. ``diffusers``: the names diffusers has, where one
weight of ComfyUI may be several.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...engine.tensors import TensorInfo
from ...engine.texts.say import refuse
from .lookup import BIAS, TEXT_ENCODERS, candidates, flat, is_text_encoder
from .native import Shape, family_rules, native
from .spellings import UNETS, Piece, Spellings, Template, View, height, unet_names

COMFYUI, KOHYA, DIFFUSERS = DIALECTS = ("comfyui", "kohya", "diffusers")
WEIGHT = ".weight"
SCALE = ".scale"  # what a norm's weight is called before ComfyUI 0.33
FLAT_DIFFUSERS = ("sd15", "sd2")  # families whose flat names are those of diffusers
ONE_ENCODER = ("sd15", "sd2")  # families whose only text encoder has no number
_ENCODER_LAYERS = """
text_model.encoder.layers.#.self_attn.q_proj text_model.encoder.layers.#.self_attn.k_proj
text_model.encoder.layers.#.self_attn.v_proj text_model.encoder.layers.#.self_attn.out_proj
text_model.encoder.layers.#.mlp.fc1 text_model.encoder.layers.#.mlp.fc2
text_model.encoder.layers.#.layer_norm1 text_model.encoder.layers.#.layer_norm2
text_model.embeddings.token_embedding text_model.embeddings.position_embedding
text_model.final_layer_norm text_projection
encoder.block.#.layer.0.SelfAttention.q encoder.block.#.layer.0.SelfAttention.k
encoder.block.#.layer.0.SelfAttention.v encoder.block.#.layer.0.SelfAttention.o
encoder.block.#.layer.1.DenseReluDense.wi_0 encoder.block.#.layer.1.DenseReluDense.wi_1
encoder.block.#.layer.1.DenseReluDense.wo encoder.block.#.layer.#.layer_norm
encoder.block.#.layer.0.SelfAttention.relative_attention_bias encoder.final_layer_norm shared
"""
# What ComfyUI's own reader knows by the short names of kohya; anything else of CLIP it reads by its own name.
SHORT = re.compile(
    r"text_model_encoder_layers_\d+_(self_attn|mlp)_\w+|encoder_block_\d+_layer_\d_(SelfAttention_[qkvo]|\w+_w\w+)"
)
_KEY = re.compile(r"([123]):(.+)", re.DOTALL)  # of ``text_key``
OF_CLIP = ("text_model_", "text_projection")
OWN_NAMES = {"1": "clip_l", "2": "clip_g", "3": "t5xxl"}
THREE_ENCODERS = ("sd3", "flux")  # families whose T5 has the number 3; diffusers counts those that are there
_FLAT_LAYERS = [(Template(flat(name)).pattern, Template(name)) for name in _ENCODER_LAYERS.split()]


@dataclass(frozen=True)
class Unit:
    """A module of a file that is to be written.

    ``name`` is its name there without a suffix, ``shape`` that of its delta. ``tensor`` says what of the layer it
    changes: "weight", "bias", or "" for a tensor that is no part of a layer. ``view`` are the rows of the base it
    means, below each other; none for a module of a text encoder.
    """

    name: str
    shape: Shape
    tensor: str = "weight"
    view: View = ()

    @property
    def key(self) -> str:
        """What tells it from the other units of a file."""
        return self.name + BIAS if self.tensor == "bias" else self.name


class Outgoing:
    """The units of one dialect on one base; ``tensors`` have ComfyUI's bare names."""

    def __init__(self, tensors: Mapping[str, TensorInfo], family: str | None, dialect: str) -> None:
        if dialect not in DIALECTS:
            raise refuse("LF505.unknown", dialect=dialect, dialects=", ".join(DIALECTS))
        self._tensors, self._family, self._dialect = tensors, family, dialect
        self._spellings = Spellings(tensors, family)
        self._unet = dict(unet_names(list(self._spellings.own))) if family in UNETS else {}

    def units(self, weight: str) -> tuple[Unit, ...]:
        """The modules that hold what is added to one tensor of the base.

        Raises FoundryError ``LF505`` for a tensor the dialect has no name for.
        """
        if weight.endswith(BIAS):
            return self._biases(weight)
        module, tensor = weight.removesuffix(WEIGHT), "weight" if weight.endswith(WEIGHT) else ""
        if not tensor and self._dialect != COMFYUI:
            raise refuse("LF505.tensor", dialect=self._dialect, tensor=weight)
        return tuple(
            Unit(name, (height(view), *self._tensors[weight].shape[1:]), tensor, view)
            for name, view in self._named(module)
        )

    def text_unit(self, key: str, shape: Shape, tensor: str = "weight") -> Unit:
        """The module of a text encoder, by the key of ``text_key``."""
        return Unit(self._text_name(key), shape, tensor)

    def has_text(self, key: str, tensor: str = "weight") -> bool:
        """Whether readers of the dialect find this module of a text encoder, by its key."""
        _, module = _of_key(key)
        if self._dialect == COMFYUI:
            return not module or _known(module) is not None
        return bool(module) and SHORT.fullmatch(module) is not None and (tensor == "weight" or self._dialect == KOHYA)

    def _biases(self, bias: str) -> tuple[Unit, ...]:
        module, rows = bias.removesuffix(BIAS), self._tensors[bias].shape
        named = self._named(module)
        if self._dialect == DIFFUSERS or len(named) != 1:
            raise refuse("LF505.tensor", dialect=self._dialect, tensor=bias)
        return (Unit(named[0][0], rows, "bias", (Piece(bias, 0, rows[0]),)),)

    def _named(self, module: str) -> tuple[tuple[str, View], ...]:
        if native(module, self._family)[0].name.removesuffix(SCALE) != module.removesuffix(SCALE):
            raise refuse("LF505.layout", module=module)
        if self._dialect == COMFYUI:
            return ((f"diffusion_model.{module}", self._spellings.views[module]),)
        if self._dialect == KOHYA:
            name = self._diffusers(module)[0][0] if self._family in FLAT_DIFFUSERS else module
            return ((f"lora_unet_{flat(name)}", self._spellings.views[module]),)
        prefix = "unet" if self._family in UNETS else "transformer"
        return tuple((f"{prefix}.{name}", view) for name, view in self._diffusers(module))

    def _diffusers(self, module: str) -> tuple[tuple[str, View], ...]:
        if module in self._unet:
            return ((self._unet[module], self._spellings.views[module]),)
        return self._spellings.parts(module, family_rules(self._family))

    def _text_name(self, key: str) -> str:
        encoder, module = _of_key(key)
        if not module:
            return key
        dotted = _known(module)
        if self._dialect == COMFYUI and dotted and not self._is_short(encoder, module):
            own = "clip_h" if self._family == "sd2" else OWN_NAMES[encoder]
            return f"text_encoders.{own}.transformer.{dotted}"
        if self._dialect != DIFFUSERS:
            number = "" if encoder == "1" and self._family in ONE_ENCODER else encoder
            return f"lora_te{number}_{flat(module)}"
        number = "2" if encoder == "3" and self._family == "flux" else encoder
        return f"text_encoder{'' if number == '1' else f'_{number}'}.{_dotted(module)}"

    def _is_short(self, encoder: str, module: str) -> bool:
        """Whether ComfyUI knows a module of a text encoder by its short name: of T5 any, where it has this number."""
        if module.startswith(OF_CLIP):
            return SHORT.fullmatch(module) is not None
        return encoder != "3" or self._family is None or self._family in THREE_ENCODERS


def text_key(module: str) -> str:
    """What a text-encoder module is in every naming: ``1:text_model_encoder_layers_0_mlp_fc1``.

    The number is that of the encoder. A name that says no encoder is its own key.
    """
    for name in candidates(module):
        if is_text_encoder(name) and (found := TEXT_ENCODERS.match(name)):
            number = found["number"] or ("2" if found["second"] else "1")
            return f"{number}:{flat(name[found.end() :].removeprefix('transformer.'))}"
    return module


def _of_key(key: str) -> tuple[str, str]:
    """(number of the encoder, flat module) of a key; ("", "") for a name that is its own key, whatever is in it."""
    found = _KEY.fullmatch(key)
    return (found[1], found[2]) if found else ("", "")


def _known(module: str) -> str | None:
    """A text encoder's module with its dots, where a table knows it."""
    found = ((pattern.fullmatch(module), template) for pattern, template in _FLAT_LAYERS)
    return next((template.name(match.groups()) for match, template in found if match), None)


def _dotted(module: str) -> str:
    """The dots of a text encoder's module; FoundryError ``LF505`` for one that no table knows."""
    if dotted := _known(module):
        return dotted
    raise refuse("LF505.text_encoder", module=re.sub(r"[^\w.]", "", module))
