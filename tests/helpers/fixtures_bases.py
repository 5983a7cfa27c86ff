"""One block of every family's diffusion model at its real size, as ComfyUI names its tensors and as diffusers does.

``NATIVE`` and ``DIFFUSERS`` map a family to {tensor name: shape}. The two hold the same numbers: the rows of a native
weight are those of its diffusers weights, for the fused ones below each other.
"""

from __future__ import annotations

from collections.abc import Mapping

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


def layers(block: str, modules: Mapping[str, Shape], bias: bool = True) -> Shapes:
    """Weights of these modules inside a block, and the biases of those that are no norms of one number a row."""
    shapes: Shapes = {}
    for name, shape in modules.items():
        module = f"{block}.{name}" if block else name
        shapes[f"{module}.weight"] = shape
        if bias and len(shape) > 1:
            shapes[f"{module}.bias"] = shape[:1]
    return shapes


def two_streams(width: int, mlp: int, gate: int) -> tuple[Shapes, Shapes]:
    """The blocks of FLUX, Chroma, FLUX.2 and HunyuanVideo: (native, diffusers); ``gate`` times the hidden MLP width."""
    w, hidden = width, mlp * width
    native: Shapes = {}
    diffusers: Shapes = {}
    for side, to, out, norm, ff in (
        ("img", "to_{}", "to_out.0", "norm_{}", "ff"),
        ("txt", "add_{}_proj", "to_add_out", "norm_added_{}", "ff_context"),
    ):
        native |= layers("double_blocks.0", {
            f"{side}_attn.qkv": (3 * w, w), f"{side}_attn.proj": (w, w),
            f"{side}_mlp.0": (gate * hidden, w), f"{side}_mlp.2": (w, hidden),
        })  # fmt: skip
        native |= {f"double_blocks.0.{side}_attn.norm.{part}_norm.scale": (128,) for part in ("query", "key")}
        diffusers |= layers("transformer_blocks.0", {
            **{f"attn.{to.format(part)}": (w, w) for part in "qkv"}, f"attn.{out}": (w, w),
            **{f"attn.{norm.format(part)}": (128,) for part in "qk"},
            f"{ff}.{'linear_in' if gate > 1 else 'net.0.proj'}": (gate * hidden, w),
            f"{ff}.{'linear_out' if gate > 1 else 'net.2'}": (w, hidden),
        })  # fmt: skip
    single, both = "single_blocks.0", {"linear1": (3 * w + gate * hidden, w), "linear2": (w, w + hidden)}
    native |= layers(single, both) | {f"{single}.norm.{part}_norm.scale": (128,) for part in ("query", "key")}
    norms: Shapes = {f"attn.norm_{part}": (128,) for part in "qk"}
    parts: Shapes
    if gate > 1:
        parts = {"attn.to_qkv_mlp_proj": both["linear1"], "attn.to_out": both["linear2"]}
    else:
        parts = {**{f"attn.to_{part}": (w, w) for part in "qkv"}, "proj_mlp": (hidden, w), "proj_out": both["linear2"]}
    return native, diffusers | layers("single_transformer_blocks.0", parts | norms)


def modulated(width: int) -> tuple[Shapes, Shapes]:
    """What modulates the blocks of FLUX and HunyuanVideo: (native, diffusers)."""
    w = width
    native = layers("double_blocks.0", {"img_mod.lin": (6 * w, w), "txt_mod.lin": (6 * w, w)})
    other = layers("transformer_blocks.0", {"norm1.linear": (6 * w, w), "norm1_context.linear": (6 * w, w)})
    return (
        native | layers("single_blocks.0", {"modulation.lin": (3 * w, w)}),
        other | layers("single_transformer_blocks.0", {"norm.linear": (3 * w, w)}),
    )


def ends(native: str, diffusers: str, shapes: list[Shape]) -> tuple[Shapes, Shapes]:
    """Layers outside the blocks: two lists of names, in one order."""
    pairs = zip(native.split(), diffusers.split(), shapes, strict=True)
    both = [(layers("", {a: shape}), layers("", {b: shape})) for a, b, shape in pairs]
    return {k: v for a, _ in both for k, v in a.items()}, {k: v for _, b in both for k, v in b.items()}


def merged(*pairs: tuple[Shapes, Shapes]) -> tuple[Shapes, Shapes]:
    return {k: v for a, _ in pairs for k, v in a.items()}, {k: v for _, b in pairs for k, v in b.items()}


def flux(width: int = 3072, channels: int = 64) -> tuple[Shapes, Shapes]:
    w = width
    time = "time_text_embed"
    return merged(
        two_streams(w, 4, 1), modulated(w),
        ends(
            "img_in txt_in time_in.in_layer time_in.out_layer vector_in.in_layer guidance_in.in_layer",
            f"x_embedder context_embedder {time}.timestep_embedder.linear_1 {time}.timestep_embedder.linear_2 "
            f"{time}.text_embedder.linear_1 {time}.guidance_embedder.linear_1",
            [(w, channels), (w, 4096), (w, 256), (w, w), (w, 768), (w, 256)],
        ),
        ends("final_layer.linear final_layer.adaLN_modulation.1", "proj_out norm_out.linear", [(64, w), (2 * w, w)]),
    )  # fmt: skip


def chroma(w: int = 3072) -> tuple[Shapes, Shapes]:
    guide = "distilled_guidance_layer"
    return merged(
        two_streams(w, 4, 1),
        ends("img_in txt_in final_layer.linear", "x_embedder context_embedder proj_out", [(w, 64), (w, 4096), (64, w)]),
        ends(
            f"{guide}.in_proj {guide}.layers.0.in_layer {guide}.layers.0.out_layer {guide}.out_proj",
            f"{guide}.in_proj {guide}.layers.0.linear_1 {guide}.layers.0.linear_2 {guide}.out_proj",
            [(5120, 64), (5120, 5120), (5120, 5120), (w, 5120)],
        ),
        ({f"{guide}.norms.0.scale": (5120,)}, {f"{guide}.norms.0.weight": (5120,)}),
    )  # fmt: skip


def flux2(w: int = 6144) -> tuple[Shapes, Shapes]:
    stream = "double_stream_modulation"
    return merged(
        two_streams(w, 3, 2),
        ends(
            f"img_in txt_in time_in.in_layer guidance_in.in_layer {stream}_img.lin {stream}_txt.lin "
            "single_stream_modulation.lin final_layer.linear final_layer.adaLN_modulation.1",
            "x_embedder context_embedder time_guidance_embed.timestep_embedder.linear_1 "
            f"time_guidance_embed.guidance_embedder.linear_1 {stream}_img.linear {stream}_txt.linear "
            "single_stream_modulation.linear proj_out norm_out.linear",
            [(w, 128), (w, 15360), (w, 256), (w, 256), (6 * w, w), (6 * w, w), (3 * w, w), (128, w), (2 * w, w)],
        ),
    )


def hunyuan(w: int = 3072) -> tuple[Shapes, Shapes]:
    old, new = "txt_in.individual_token_refiner.blocks.0", "context_embedder.token_refiner.refiner_blocks.0"
    return merged(
        two_streams(w, 4, 1), modulated(w),
        ends(
            "img_in.proj txt_in.input_embedder txt_in.t_embedder.in_layer txt_in.c_embedder.out_layer "
            "time_in.in_layer guidance_in.out_layer final_layer.linear final_layer.adaLN_modulation.1",
            "x_embedder.proj context_embedder.proj_in context_embedder.time_text_embed.timestep_embedder.linear_1 "
            "context_embedder.time_text_embed.text_embedder.linear_2 time_text_embed.timestep_embedder.linear_1 "
            "time_text_embed.guidance_embedder.linear_2 proj_out norm_out.linear",
            [(w, 16, 1, 2, 2), (w, 4096), (w, 256), (w, w), (w, 256), (w, w), (64, w), (2 * w, w)],
        ),
        (
            layers(old, {"self_attn.qkv": (3 * w, w)}),
            layers(new, {f"attn.to_{part}": (w, w) for part in "qkv"}),
        ),
        ends(
            f"{old}.self_attn.proj {old}.mlp.0 {old}.mlp.2 {old}.adaLN_modulation.1 {old}.norm1",
            f"{new}.attn.to_out.0 {new}.ff.net.0.proj {new}.ff.net.2 {new}.norm_out.linear {new}.norm1",
            [(w, w), (4 * w, w), (w, 4 * w), (2 * w, w), (w,)],
        ),
    )  # fmt: skip


def sd3(w: int = 1536) -> tuple[Shapes, Shapes]:
    """Two blocks: the last one's context only scales and shifts. The first attends twice, as in 3.5 medium."""
    x, c, other, last = "joint_blocks.0.x_block", "joint_blocks.0.context_block", "transformer_blocks.0", "blocks.1"
    time = "time_text_embed"
    return merged(
        (
            layers(x, {"attn.qkv": (3 * w, w), "attn2.qkv": (3 * w, w)}) | layers(c, {"attn.qkv": (3 * w, w)}),
            layers(other, {
                **{f"attn{i}.to_{part}": (w, w) for i in ("", "2") for part in "qkv"},
                **{f"attn.add_{part}_proj": (w, w) for part in "qkv"},
            }),
        ),
        ends(
            f"{x}.attn.proj {x}.attn.ln_q {x}.mlp.fc1 {x}.mlp.fc2 {x}.adaLN_modulation.1 {x}.attn2.proj",
            f"{other}.attn.to_out.0 {other}.attn.norm_q {other}.ff.net.0.proj {other}.ff.net.2 "
            f"{other}.norm1.linear {other}.attn2.to_out.0",
            [(w, w), (64,), (4 * w, w), (w, 4 * w), (9 * w, w), (w, w)],
        ),
        ends(
            f"{c}.attn.proj {c}.attn.ln_k {c}.mlp.fc1 {c}.mlp.fc2 {c}.adaLN_modulation.1 "
            f"joint_{last}.context_block.adaLN_modulation.1",
            f"{other}.attn.to_add_out {other}.attn.norm_added_k {other}.ff_context.net.0.proj "
            f"{other}.ff_context.net.2 {other}.norm1_context.linear transformer_{last}.norm1_context.linear",
            [(w, w), (64,), (4 * w, w), (w, 4 * w), (6 * w, w), (2 * w, w)],
        ),
        ends(
            "x_embedder.proj context_embedder t_embedder.mlp.0 y_embedder.mlp.2 final_layer.linear "
            "final_layer.adaLN_modulation.1",
            f"pos_embed.proj context_embedder {time}.timestep_embedder.linear_1 {time}.text_embedder.linear_2 "
            "proj_out norm_out.linear",
            [(w, 16, 2, 2), (w, 4096), (w, 256), (w, w), (64, w), (2 * w, w)],
        ),
        ({"pos_embed": (1, 36864, w)}, {"pos_embed.pos_embed": (1, 36864, w)}),
    )  # fmt: skip


def wan(w: int = 5120, hidden: int = 13824, channels: int = 16, image: bool = False) -> tuple[Shapes, Shapes]:
    attentions = (("self_attn", "attn1"), ("cross_attn", "attn2"))
    names = [(f"{a}.{p}", f"{b}.{q}") for a, b in attentions for p, q in zip("qkvo", OUTS, strict=True)]
    cond = "condition_embedder"
    pairs = [
        ends(" ".join(f"blocks.0.{a}" for a, _ in names), " ".join(f"blocks.0.{b}" for _, b in names), [(w, w)] * 8),
        ends(
            "blocks.0.self_attn.norm_q blocks.0.self_attn.norm_k blocks.0.norm3 blocks.0.ffn.0 blocks.0.ffn.2",
            "blocks.0.attn1.norm_q blocks.0.attn1.norm_k blocks.0.norm2 blocks.0.ffn.net.0.proj blocks.0.ffn.net.2",
            [(w,), (w,), (w,), (hidden, w), (w, hidden)],
        ),
        ends(
            "patch_embedding text_embedding.0 time_embedding.2 time_projection.1 head.head",
            f"patch_embedding {cond}.text_embedder.linear_1 {cond}.time_embedder.linear_2 {cond}.time_proj proj_out",
            [(w, channels, 1, 2, 2), (w, 4096), (w, w), (6 * w, w), (64, w)],
        ),
        (
            {"blocks.0.modulation": (1, 6, w), "head.modulation": (1, 2, w), "blocks.0.norm3.bias": (w,)},
            {"blocks.0.scale_shift_table": (1, 6, w), "scale_shift_table": (1, 2, w), "blocks.0.norm2.bias": (w,)},
        ),
    ]
    if image:
        pairs.append(ends(
            "blocks.0.cross_attn.k_img blocks.0.cross_attn.v_img blocks.0.cross_attn.norm_k_img img_emb.proj.1",
            "blocks.0.attn2.add_k_proj blocks.0.attn2.add_v_proj blocks.0.attn2.norm_added_k "
            f"{cond}.image_embedder.ff.net.0.proj",
            [(w, w), (w, w), (w,), (1280, 1280)],
        ))  # fmt: skip
    return merged(*pairs)


OUTS = ("to_q", "to_k", "to_v", "to_out.0")


def z_image(w: int = 3840, hidden: int = 10240) -> tuple[Shapes, Shapes]:
    pairs = [
        ends(
            "x_embedder cap_embedder.1 t_embedder.mlp.0 final_layer.linear final_layer.adaLN_modulation.1",
            "all_x_embedder.2-1 cap_embedder.1 t_embedder.mlp.0 all_final_layer.2-1.linear "
            "all_final_layer.2-1.adaLN_modulation.1",
            [(w, 64), (w, 2560), (1024, 256), (64, w), (w, 256)],
        )
    ]
    for block in ("layers.0", "noise_refiner.0", "context_refiner.0"):
        shared = {"feed_forward.w1": (hidden, w), "attention_norm1": (w,), "adaLN_modulation.0": (4 * w, 256)}
        native = {"attention.qkv": (3 * w, w), "attention.out": (w, w), "attention.q_norm": (128,), **shared}
        other = {f"attention.{part}": (w, w) for part in OUTS} | {"attention.norm_q": (128,), **shared}
        pairs.append((layers(block, native, bias=False), layers(block, other, bias=False)))
    return merged(*pairs)


def lumina2(w: int = 2304, kv: int = 768) -> tuple[Shapes, Shapes]:
    """Keys and values of Lumina 2 have a third of the rows of the queries."""
    time = "time_caption_embed"
    pairs = [
        ends(
            "x_embedder cap_embedder.1 t_embedder.mlp.2 final_layer.linear final_layer.adaLN_modulation.1",
            f"x_embedder {time}.caption_embedder.1 {time}.timestep_embedder.linear_2 norm_out.linear_2 "
            "norm_out.linear_1",
            [(w, 64), (w, 2304), (1024, 1024), (64, w), (w, 1024)],
        )
    ]
    for block in ("layers.0", "noise_refiner.0"):
        native = {
            "attention.qkv": (w + 2 * kv, w), "attention.out": (w, w), "attention.k_norm": (96,),
            "feed_forward.w1": (9216, w), "feed_forward.w2": (w, 9216), "attention_norm1": (w,), "ffn_norm1": (w,),
            "adaLN_modulation.1": (4 * w, 1024),
        }  # fmt: skip
        other = {
            "attn.to_q": (w, w), "attn.to_k": (kv, w), "attn.to_v": (kv, w), "attn.to_out.0": (w, w),
            "attn.norm_k": (96,), "feed_forward.linear_1": (9216, w), "feed_forward.linear_2": (w, 9216),
            "norm1.norm": (w,), "ffn_norm1": (w,), "norm1.linear": (4 * w, 1024),
        }  # fmt: skip
        pairs.append((layers(block, native, bias=False), layers(block, other, bias=False)))
    return merged(*pairs)


def qwen(w: int = 3072) -> tuple[Shapes, Shapes]:
    attention = (*OUTS, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    shapes = layers("transformer_blocks.0", {
        **{f"attn.{part}": (w, w) for part in attention}, **{f"{side}_mod.1": (6 * w, w) for side in ("img", "txt")},
        **{f"{side}_mlp.net.{i}": s for side in ("img", "txt") for i, s in (("0.proj", (4 * w, w)), ("2", (w, 4 * w)))},
    }) | layers("", {"img_in": (w, 64), "txt_in": (w, 3584), "txt_norm": (3584,), "proj_out": (64, w)})  # fmt: skip
    return shapes, shapes


NORM1 = "transformer_blocks.0.norm1"
RESNET = {"in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2"}


def unet(places: str, width: int, context: int, extra: tuple[Shapes, Shapes]) -> tuple[Shapes, Shapes]:
    """A UNet with these blocks: ``native=diffusers`` each, ``width`` wide, and 320 in the first level."""
    pairs = [extra]
    for place in places.split():
        a, _, b = place.partition("=")
        w = 320 if b.startswith("down_blocks.0") else width
        if "conv" in b:
            pairs.append((layers("", {a: (w, w, 3, 3)}), layers("", {b: (w, w, 3, 3)})))
        elif "resnets" in b:
            resnet = {"in_layers.2": (w, w, 3, 3), "emb_layers.1": (w, 1280), "out_layers.0": (w,)}
            pairs.append((layers(a, resnet), layers(b, {RESNET[k]: s for k, s in resnet.items()})))
        else:
            pairs.append((layers(a, transformer(w, context)), layers(b, transformer(w, context))))
            pairs.append(({f"{a}.{NORM1}.bias": (w,)}, {f"{b}.{NORM1}.bias": (w,)}))
    return merged(*pairs)


def transformer(w: int, context: int) -> Shapes:
    block = "transformer_blocks.0"
    return {
        "proj_in": (w, w), "norm": (w,), NORM1: (w,), **{f"{block}.attn1.{part}": (w, w) for part in OUTS},
        f"{block}.attn2.to_q": (w, w), f"{block}.attn2.to_k": (w, context), f"{block}.attn2.to_v": (w, context),
        f"{block}.ff.net.0.proj": (8 * w, w), f"{block}.ff.net.2": (w, 4 * w),
    }  # fmt: skip


STEM = ends("input_blocks.0.0 time_embed.0 out.2", "conv_in time_embedding.linear_1 conv_out",
            [(320, 4, 3, 3), (1280, 320), (4, 320, 3, 3)])  # fmt: skip
LABEL = ends("label_emb.0.0", "add_embedding.linear_1", [(1280, 2816)])
SD15_PLACES = (
    "input_blocks.1.0=down_blocks.0.resnets.0 input_blocks.1.1=down_blocks.0.attentions.0 "
    "input_blocks.2.0=down_blocks.0.resnets.1 input_blocks.3.0.op=down_blocks.0.downsamplers.0.conv "
    "input_blocks.4.1=down_blocks.1.attentions.0 "
    "middle_block.0=mid_block.resnets.0 middle_block.1=mid_block.attentions.0 middle_block.2=mid_block.resnets.1 "
    "output_blocks.2.1.conv=up_blocks.0.upsamplers.0.conv output_blocks.3.1=up_blocks.1.attentions.0 "
    "output_blocks.5.2.conv=up_blocks.1.upsamplers.0.conv output_blocks.11.0=up_blocks.3.resnets.2 "
    "output_blocks.11.1=up_blocks.3.attentions.2"
)
SDXL_PLACES = (
    "input_blocks.1.0=down_blocks.0.resnets.0 input_blocks.3.0.op=down_blocks.0.downsamplers.0.conv "
    "input_blocks.4.0=down_blocks.1.resnets.0 input_blocks.4.1=down_blocks.1.attentions.0 "
    "input_blocks.8.1=down_blocks.2.attentions.1 middle_block.1=mid_block.attentions.0 "
    "output_blocks.2.1=up_blocks.0.attentions.2 output_blocks.2.2.conv=up_blocks.0.upsamplers.0.conv "
    "output_blocks.3.1=up_blocks.1.attentions.0 output_blocks.8.0=up_blocks.2.resnets.2"
)

BOTH = {
    "sd15": unet(SD15_PLACES, 320, 768, STEM),
    "sdxl": unet(SDXL_PLACES, 640, 2048, merged(STEM, LABEL)),
    "sd3": sd3(),
    "flux": flux(),
    "chroma": chroma(),
    "flux2": flux2(),
    "wan": wan(),
    "hunyuan-video": hunyuan(),
    "qwen-image": qwen(),
    "z-image": z_image(),
    "lumina2": lumina2(),
}
NATIVE = {family: native for family, (native, _) in BOTH.items()}
DIFFUSERS = {family: diffusers for family, (_, diffusers) in BOTH.items()}
