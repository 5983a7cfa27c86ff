"""Names and shapes of the smallest models of each family that a ComfyUI accepts, as its own classes have them."""

from __future__ import annotations

from .layers import Shapes, conv, linear, merge, norm

FLUX_CONTEXT = FLUX_POOLED = 64  # free for the host, so small
CLIP_WIDTH, CLIP_LAYERS, CLIP_VOCABULARY, CLIP_POSITIONS = 768, 12, 49408, 77


def wan(width: int = 128, layers: int = 1) -> Shapes:
    """Wan 2.1 text-to-video: the feed-forward is as wide as the model (free for the host); text width 4096."""
    shapes = merge(
        {"patch_embedding.weight": (width, 16, 1, 2, 2), "patch_embedding.bias": (width,)},
        linear("text_embedding.0", width, 4096),
        linear("text_embedding.2", width, width),
        linear("time_embedding.0", width, 256),
        linear("time_embedding.2", width, width),
        linear("time_projection.1", 6 * width, width),
    )
    for layer in range(layers):
        block = f"blocks.{layer}"
        shapes[f"{block}.modulation"] = (1, 6, width)
        for attention in ("self_attn", "cross_attn"):
            shapes |= merge(*(linear(f"{block}.{attention}.{part}", width, width) for part in "qkvo"))
            shapes |= {f"{block}.{attention}.norm_{part}.weight": (width,) for part in "qk"}
        shapes |= norm(f"{block}.norm3", width)
        shapes |= merge(linear(f"{block}.ffn.0", width, width), linear(f"{block}.ffn.2", width, width))
    return merge(shapes, {"head.modulation": (1, 2, width)}, linear("head.head", 64, width))


def flux(width: int = 3072, layers: int = 1) -> Shapes:
    """FLUX with guidance: ``layers`` double and as many single blocks. ComfyUI 0.3.75 takes no width but 3072."""
    head = min(width, 128)
    embedders = (("time_in", 256), ("vector_in", FLUX_POOLED), ("guidance_in", 256))
    shapes = merge(
        linear("img_in", width, 64),
        linear("txt_in", width, FLUX_CONTEXT),
        *(linear(f"{name}.in_layer", width, inn) for name, inn in embedders),
        *(linear(f"{name}.out_layer", width, width) for name, _ in embedders),
    )
    for layer in range(layers):
        for side in ("img", "txt"):
            block = f"double_blocks.{layer}.{side}"
            shapes |= merge(
                linear(f"{block}_mod.lin", 6 * width, width),
                linear(f"{block}_attn.qkv", 3 * width, width),
                {f"{block}_attn.norm.{part}_norm.scale": (head,) for part in ("query", "key")},
                linear(f"{block}_attn.proj", width, width),
                linear(f"{block}_mlp.0", 4 * width, width),
                linear(f"{block}_mlp.2", width, 4 * width),
            )
    for layer in range(layers):
        block = f"single_blocks.{layer}"
        shapes |= merge(
            linear(f"{block}.linear1", 7 * width, width),
            linear(f"{block}.linear2", width, 5 * width),
            {f"{block}.norm.{part}_norm.scale": (head,) for part in ("query", "key")},
            linear(f"{block}.modulation.lin", 3 * width, width),
        )
    final = merge(linear("final_layer.linear", 64, width), linear("final_layer.adaLN_modulation.1", 2 * width, width))
    return merge(shapes, final)


def qwen_image(width: int = 3072, layers: int = 1) -> Shapes:
    """Qwen-Image; the text width 3584 is the host's, and 3072 the only width it loads from a file."""
    head = min(width, 128)
    attention = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out")
    shapes = merge(
        linear("time_text_embed.timestep_embedder.linear_1", width, 256),
        linear("time_text_embed.timestep_embedder.linear_2", width, width),
        {"txt_norm.weight": (3584,)},
        linear("img_in", width, 64),
        linear("txt_in", width, 3584),
    )
    for layer in range(layers):
        block = f"transformer_blocks.{layer}"
        for side in ("img", "txt"):
            shapes |= linear(f"{block}.{side}_mod.1", 6 * width, width)
            shapes |= linear(f"{block}.{side}_mlp.net.0.proj", 4 * width, width)
            shapes |= linear(f"{block}.{side}_mlp.net.2", width, 4 * width)
        shapes |= {f"{block}.attn.norm_{part}.weight": (head,) for part in ("q", "k", "added_q", "added_k")}
        shapes |= merge(*(linear(f"{block}.attn.{part}", width, width) for part in attention))
    return merge(shapes, linear("norm_out.linear", 2 * width, width), linear("proj_out", 64, width))


def sd15(width: int = 320, layers: int = 1) -> Shapes:
    """Stable Diffusion 1.5 with one level, one attention (``layers`` transformer blocks deep) and no middle block."""
    return merge(
        _unet_stem(width),
        _resnet("input_blocks.1.0", width, width),
        _transformer("input_blocks.1.1", width, 768, layers, convolution=True),
        *(_resnet(f"output_blocks.{i}.0", 2 * width, width) for i in range(2)),
        _unet_head(width),
    )


def sdxl(width: int = 320, layers: int = 1) -> Shapes:
    """SDXL's family in its smallest member: Segmind Vega's depths 0,0,1,1,2,2 with every level equally wide."""
    shapes = merge(
        _unet_stem(width),
        linear("label_emb.0.0", 4 * width, 2816),
        linear("label_emb.0.2", 4 * width, 4 * width),
    )
    depths = {1: 0, 2: 0, 4: layers, 5: layers, 7: 2 * layers, 8: 2 * layers}
    for index, depth in depths.items():
        shapes |= _resnet(f"input_blocks.{index}.0", width, width)
        shapes |= _transformer(f"input_blocks.{index}.1", width, 2048, depth) if depth else {}
    shapes |= merge(conv("input_blocks.3.0.op", width, width), conv("input_blocks.6.0.op", width, width))
    shapes |= _resnet("middle_block.0", width, width)
    shapes |= merge(*(_resnet(f"output_blocks.{index}.0", 2 * width, width) for index in range(9)))
    shapes |= merge(*(conv(f"output_blocks.{index}.1.conv", width, width) for index in (2, 5)))
    return merge(shapes, _unet_head(width))


def _unet_stem(width: int) -> Shapes:
    embed = merge(linear("time_embed.0", 4 * width, width), linear("time_embed.2", 4 * width, 4 * width))
    return merge(embed, conv("input_blocks.0.0", width, 4))


def _unet_head(width: int) -> Shapes:
    return merge(norm("out.0", width), conv("out.2", 4, width))


def _resnet(name: str, inn: int, out: int) -> Shapes:
    body = merge(
        norm(f"{name}.in_layers.0", inn),
        conv(f"{name}.in_layers.2", out, inn),
        linear(f"{name}.emb_layers.1", out, 4 * out),
        norm(f"{name}.out_layers.0", out),
        conv(f"{name}.out_layers.3", out, out),
    )
    return body if inn == out else merge(body, conv(f"{name}.skip_connection", out, inn, kernel=1))


def _transformer(name: str, width: int, context: int, depth: int, convolution: bool = False) -> Shapes:
    def project(side: str) -> Shapes:
        return conv(f"{name}.{side}", width, width, kernel=1) if convolution else linear(f"{name}.{side}", width, width)

    shapes = merge(norm(f"{name}.norm", width), project("proj_in"))
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, inn in (("attn1", width), ("attn2", context)):
            shapes |= linear(f"{block}.{attention}.to_q", width, width, bias=False)
            shapes |= linear(f"{block}.{attention}.to_k", width, inn, bias=False)
            shapes |= linear(f"{block}.{attention}.to_v", width, inn, bias=False)
            shapes |= linear(f"{block}.{attention}.to_out.0", width, width)
        shapes |= merge(
            linear(f"{block}.ff.net.0.proj", 8 * width, width), linear(f"{block}.ff.net.2", width, 4 * width)
        )
        shapes |= merge(*(norm(f"{block}.norm{i}", width) for i in (1, 2, 3)))
    return merge(shapes, project("proj_out"))


def clip_l(width: int = CLIP_WIDTH, layers: int = CLIP_LAYERS) -> Shapes:
    """The CLIP-L text encoder of SD1.5, names from ``text_model.``; a host takes no other size (246 MB in bf16)."""
    shapes: Shapes = {
        "text_model.embeddings.token_embedding.weight": (CLIP_VOCABULARY, width),
        "text_model.embeddings.position_embedding.weight": (CLIP_POSITIONS, width),
    }
    for layer in range(layers):
        block = f"text_model.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{block}.self_attn.{part}", width, width)
        shapes |= merge(linear(f"{block}.mlp.fc1", 4 * width, width), linear(f"{block}.mlp.fc2", width, 4 * width))
        shapes |= merge(norm(f"{block}.layer_norm1", width), norm(f"{block}.layer_norm2", width))
    return merge(shapes, norm("text_model.final_layer_norm", width))


def taesd(width: int = 64, layers: int = 3) -> Shapes:
    """TAESD, the tiny autoencoder of SD1.5 (4 latent channels), as the host's VAE loader knows it."""

    def block(name: str) -> Shapes:
        return merge(*(conv(f"{name}.conv.{index}", width, width) for index in (0, 2, 4)))

    encoder = merge(conv("0", width, 3), block("1"))
    for level in range(3):
        start = 2 + level * (layers + 1)
        encoder |= conv(str(start), width, width, bias=False)
        encoder |= merge(*(block(str(start + 1 + i)) for i in range(layers)))
    encoder |= conv(str(2 + 3 * (layers + 1)), 4, width)
    decoder = conv("1", width, 4)  # 0 is a clamp, 2 a ReLU; each level ends with an upsampling and a convolution
    for level in range(3):
        start = 3 + level * (layers + 2)
        decoder |= merge(*(block(str(start + i)) for i in range(layers)))
        decoder |= conv(str(start + layers + 1), width, width, bias=False)
    last = 3 + 3 * (layers + 2)
    decoder |= merge(block(str(last)), conv(str(last + 1), 3, width))
    named = {
        f"taesd_{side}.{name}": shape
        for side, part in (("encoder", encoder), ("decoder", decoder))
        for name, shape in part.items()
    }
    return {**named, "vae_scale": (), "vae_shift": ()}
