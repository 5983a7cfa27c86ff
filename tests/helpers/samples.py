"""Real tensor names and shapes of LoRA dialects and base models, as compact tables, and a source that holds no data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lora_foundry.engine.tensors import InMemory, TensorInfo
from lora_foundry.loaders.bases.signatures import FLUX_OR_HUNYUAN

Shapes = dict[str, tuple[int, ...]]
Modules = Mapping[str, tuple[int, ...]]


class ShapeSource(InMemory):
    """Names and shapes; ``values`` holds what reading gives, everything else reads as zeros."""

    def __init__(
        self,
        shapes: Modules,
        values: dict[str, torch.Tensor] | None = None,
        dtype: torch.dtype = torch.bfloat16,
        label: str = "fake",
    ) -> None:
        self.label, self.values = label, values or {}
        self.tensors = {name: TensorInfo(name, dtype, tuple(shape)) for name, shape in shapes.items()}
        for name, value in self.values.items():
            self.tensors[name] = TensorInfo(name, value.dtype, tuple(value.shape))

    def read(self, name: str) -> torch.Tensor:
        info = self.tensors[name]
        return self.values.get(name, torch.zeros(info.shape, dtype=info.dtype))


EITHER = FLUX_OR_HUNYUAN  # the few modules of these tables are in both


@dataclass(frozen=True)
class Dialect:
    """One way of writing a LoRA: ``prefix + module + up/down``, the modules' weight shapes, and what must be found."""

    family: str | None
    dialect: str
    up: str
    down: str
    modules: Modules
    prefix: str = ""
    rank: int = 16
    alpha: float | None = None
    text_encoder: Modules = field(default_factory=dict)

    def source(self) -> ShapeSource:
        shapes: Shapes = {}
        values: dict[str, torch.Tensor] = {}
        modules = {self.prefix + module: shape for module, shape in self.modules.items()}
        for module, (out, *rest) in {**modules, **self.text_encoder}.items():
            shapes[module + self.down] = (self.rank, *rest)
            shapes[module + self.up] = (out, self.rank, *([1] * len(rest[1:])))
            if self.alpha is not None:
                values[module + ".alpha"] = torch.tensor(self.alpha)
        return ShapeSource(shapes, values)


KOHYA: dict[str, Any] = {"dialect": "down/up", "up": ".lora_up.weight", "down": ".lora_down.weight"}
PEFT: dict[str, Any] = {"dialect": "A/B", "up": ".lora_B.weight", "down": ".lora_A.weight"}
NAMED: dict[str, Any] = {"dialect": "A/B named", "up": ".lora_B.default.weight", "down": ".lora_A.default.weight"}
QWEN = {
    "transformer_blocks.0.attn.add_k_proj": (3072, 3072),
    "transformer_blocks.0.attn.to_out.0": (3072, 3072),
    "transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer_blocks.0.img_mlp.net.0.proj": (12288, 3072),
    "transformer_blocks.0.txt_mlp.net.2": (3072, 12288),
}
WAN = {
    "blocks.0.self_attn.q": (5120, 5120),
    "blocks.0.cross_attn.v": (5120, 5120),
    "blocks.0.ffn.0": (13824, 5120),
    "blocks.0.ffn.2": (5120, 13824),
}
FLUX = {
    "double_blocks.0.img_attn.qkv": (9216, 3072),
    "double_blocks.0.img_attn.proj": (3072, 3072),
    "double_blocks.0.txt_mlp.0": (12288, 3072),
    "single_blocks.0.linear1": (21504, 3072),
    "single_blocks.0.linear2": (3072, 15360),
}
FLUX2 = {
    "double_blocks.0.img_attn.qkv": (18432, 6144),
    "double_blocks.0.img_mlp.0": (36864, 6144),
    "single_blocks.0.linear1": (55296, 6144),
    "single_blocks.0.linear2": (6144, 24576),
}
FLUX_DIFFUSERS = {
    "single_transformer_blocks.0.attn.to_q": (3072, 3072),
    "single_transformer_blocks.0.proj_out": (3072, 15360),
    "transformer_blocks.0.ff.net.0.proj": (12288, 3072),
    "transformer_blocks.0.norm1.linear": (18432, 3072),
}
ZIMAGE = {
    "layers.0.attention.to_q": (3840, 3840),
    "layers.0.attention.to_out.0": (3840, 3840),
    "layers.0.feed_forward.w1": (10240, 3840),
    "layers.0.adaLN_modulation.0": (15360, 256),
}
SD3 = {"transformer_blocks.0.attn.to_q": (1536, 1536), "transformer_blocks.0.ff.net.0.proj": (6144, 1536)}
SD15 = {
    "down_blocks_0_attentions_0_proj_in": (320, 320, 1, 1),
    "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (320, 320),
    "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (320, 768),
}
SD15_DOTTED = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (320, 320),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0": (320, 320),
}
SD15_PROCESSORS = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q": (320, 320),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out": (320, 320),
}
SDXL = {
    "input_blocks_4_1_proj_in": (640, 640),
    "input_blocks_4_1_transformer_blocks_0_attn1_to_q": (640, 640),
    "input_blocks_4_1_transformer_blocks_0_attn2_to_v": (640, 2048),
}
CLIP_L = {"lora_te_text_model_encoder_layers_0_mlp_fc1": (3072, 768)}
CLIP_LG = {
    "lora_te1_text_model_encoder_layers_0_self_attn_k_proj": (768, 768),
    "lora_te2_text_model_encoder_layers_0_mlp_fc2": (1280, 5120),
}
HUNYUAN = {"double_blocks.0.img_attn_qkv": (9216, 3072), "double_blocks.0.img_mlp.fc1": (12288, 3072)}


def flat(modules: Modules) -> Shapes:
    return {name.replace(".", "_"): shape for name, shape in modules.items()}


DIALECTS = {
    "lightx2v qwen lightning": Dialect("qwen-image", **KOHYA, modules=QWEN, rank=64, alpha=8.0),
    "diffsynth qwen": Dialect("qwen-image", **NAMED, modules=QWEN),
    "musubi qwen": Dialect("qwen-image", **KOHYA, modules=flat(QWEN), prefix="lora_unet_", alpha=1.0),
    "diffsynth wan": Dialect("wan", **NAMED, modules=WAN),
    "musubi wan": Dialect("wan", **KOHYA, modules=flat(WAN), prefix="lora_unet_", alpha=16.0),
    "videox-fun wan": Dialect("wan", **KOHYA, modules=flat(WAN), prefix="lora_unet__", alpha=16.0),
    "ai toolkit wan": Dialect("wan", **PEFT, modules=WAN, prefix="diffusion_model."),
    "kohya flux": Dialect(EITHER, **KOHYA, modules=flat(FLUX), prefix="lora_unet_", alpha=16.0, text_encoder=CLIP_L),
    "ai toolkit flux": Dialect(EITHER, **PEFT, modules=FLUX, prefix="diffusion_model."),
    "diffusers flux": Dialect(EITHER, **PEFT, modules=FLUX_DIFFUSERS, prefix="transformer."),
    "peft raw flux": Dialect(EITHER, **PEFT, modules=FLUX_DIFFUSERS, prefix="base_model.model.", rank=4),
    "ai toolkit flux2": Dialect("flux2", **PEFT, modules=FLUX2, prefix="diffusion_model."),
    "ai toolkit z-image": Dialect("z-image", **PEFT, modules=ZIMAGE, prefix="diffusion_model."),
    "musubi z-image": Dialect("z-image", **KOHYA, modules=flat(ZIMAGE), prefix="lora_unet_", alpha=32.0),
    "diffusers sd3": Dialect("sd3", **PEFT, modules=SD3, prefix="transformer."),
    "diffusion-pipe hunyuan": Dialect("hunyuan-video", **PEFT, modules=HUNYUAN, prefix="transformer."),
    "kohya sd15": Dialect("sd15", **KOHYA, modules=SD15, prefix="lora_unet_", alpha=16.0, text_encoder=CLIP_L),
    "kohya sdxl": Dialect("sdxl", **KOHYA, modules=SDXL, prefix="lora_unet_", alpha=16.0, text_encoder=CLIP_LG),
    "diffusers sd15": Dialect(
        "sd15 or sd2", "lora.down/up", ".lora.up.weight", ".lora.down.weight", SD15_DOTTED, "unet."
    ),
    "diffusers sd15 peft": Dialect("sd15 or sd2", **PEFT, modules=SD15_DOTTED, prefix="unet."),
    "diffusers sd15 processors": Dialect(
        "sd15 or sd2", "processor", "_lora.up.weight", "_lora.down.weight", SD15_PROCESSORS, "unet.", rank=4
    ),
    "diffusers sd15 text encoder": Dialect(
        None, "linear layer", ".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight", {},
        text_encoder={"text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (768, 768)},
    ),
    "bare A/B": Dialect("wan", "A/B bare", ".lora_B", ".lora_A", WAN),
}  # fmt: skip


def weights(modules: Modules, extra: Modules | None = None) -> Shapes:
    """The tensors of a base that holds these modules: weights with a bias each, and ``extra`` under its own names."""
    shapes = {f"{module}.weight": shape for module, shape in modules.items()}
    return {**shapes, **{f"{module}.bias": shape[:1] for module, shape in modules.items()}, **(extra or {})}


BASES = {
    "qwen-image": weights({**QWEN, "transformer_blocks.0.img_mod.1": (18432, 3072)}, {"txt_norm.weight": (3584,)}),
    "wan": weights(WAN, {"head.modulation": (1, 2, 5120), "blocks.0.modulation": (1, 6, 5120)}),
    "flux": weights({**FLUX, "img_in": (3072, 64), "double_blocks.0.img_mod.lin": (18432, 3072)}),
    "chroma": weights({**FLUX, "img_in": (3072, 64), "distilled_guidance_layer.in_proj": (5120, 64)}),
    "flux2": weights({**FLUX2, "img_in": (6144, 128), "double_stream_modulation_img.lin": (36864, 6144)}),
    "sd15": weights(
        {
            "input_blocks.0.0": (320, 4, 3, 3),
            "input_blocks.1.1.proj_in": (320, 320, 1, 1),
            "input_blocks.1.1.transformer_blocks.0.attn1.to_q": (320, 320),
            "input_blocks.1.1.transformer_blocks.0.attn2.to_k": (320, 768),
        }
    ),
    "sdxl": weights(
        {
            "input_blocks.0.0": (320, 4, 3, 3),
            "input_blocks.4.1.proj_in": (640, 640),
            "input_blocks.4.1.transformer_blocks.0.attn1.to_q": (640, 640),
            "input_blocks.4.1.transformer_blocks.0.attn2.to_v": (640, 2048),
            "label_emb.0.0": (1280, 2816),
        }
    ),
    "sd3": weights(
        {"joint_blocks.0.x_block.attn.qkv": (4608, 1536), "joint_blocks.0.context_block.attn.qkv": (4608, 1536)}
    ),
    "hunyuan-video": weights(
        {
            "txt_in.individual_token_refiner.blocks.0.self_attn.qkv": (9216, 3072),
            "double_blocks.0.img_attn.qkv": (9216, 3072),
            "double_blocks.0.img_mlp.0": (12288, 3072),
        }
    ),
    "z-image": weights(
        {
            "cap_embedder.1": (3840, 2560),
            "layers.0.attention.qkv": (11520, 3840),
            "layers.0.attention.out": (3840, 3840),
            "layers.0.feed_forward.w1": (10240, 3840),
            "layers.0.adaLN_modulation.0": (15360, 256),
        }
    ),
    "lumina2": weights({"cap_embedder.1": (2304, 2304), "layers.0.attention.qkv": (3840, 2304)}),
}
DIFFUSERS_BASES = {
    "sd15": weights({**SD15_DOTTED, "conv_in": (320, 4, 3, 3),
                     "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 768)}),
    "flux": weights({**FLUX_DIFFUSERS, "x_embedder": (3072, 64)}),
    "sd3": weights({**SD3, "transformer_blocks.0.attn.add_q_proj": (1536, 1536), "context_embedder": (1536, 4096),
                    "pos_embed.proj": (1536, 16, 2, 2)}),
    "wan": weights({"blocks.0.attn2.to_q": (5120, 5120), "condition_embedder.time_proj": (30720, 5120)},
                   {"scale_shift_table": (1, 2, 5120)}),
}  # fmt: skip
