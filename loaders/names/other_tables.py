"""The tables of families that few LoRAs are trained for, in the form of tables.py, which puts them into its index."""

from __future__ import annotations

MOCHI = """
x_embedder.proj = patch_embed.proj
t_embedder.mlp.0 = time_embed.timestep_embedder.linear_1
t_embedder.mlp.2 = time_embed.timestep_embedder.linear_2
t5_y_embedder.to_q = time_embed.pooler.to_q
t5_y_embedder.to_kv = time_embed.pooler.to_kv
t5_y_embedder.to_out = time_embed.pooler.to_out
t5_yproj = time_embed.caption_proj
final_layer.mod = norm_out.linear ~
final_layer.linear = proj_out
blocks.# = transformer_blocks.#:
    mod_x = norm1.linear
    mod_y = norm1_context.linear
    mod_y = norm1_context.linear_1
    attn.qkv_x = attn1.to_q | attn1.to_k | attn1.to_v
    attn.qkv_y = attn1.add_q_proj | attn1.add_k_proj | attn1.add_v_proj
    attn.proj_x = attn1.to_out.0
    attn.proj_y = attn1.to_add_out
    attn.q_norm_x = attn1.norm_q
    attn.k_norm_x = attn1.norm_k
    attn.q_norm_y = attn1.norm_added_q
    attn.k_norm_y = attn1.norm_added_k
    mlp_x.w1 = ff.net.0.proj ~~
    mlp_x.w2 = ff.net.2
    mlp_y.w1 = ff_context.net.0.proj ~~
    mlp_y.w2 = ff_context.net.2
"""

# Norms 2 and 3 have changed places in diffusers: the same names mean other weights there, so they are in no rule.
HUNYUAN_DIT = """
x_embedder.proj = pos_embed.proj
mlp_t5.0 = text_embedder.linear_1
mlp_t5.2 = text_embedder.linear_2
t_embedder.mlp.0 = time_extra_emb.timestep_embedder.linear_1
t_embedder.mlp.2 = time_extra_emb.timestep_embedder.linear_2
extra_embedder.0 = time_extra_emb.extra_embedder.linear_1
extra_embedder.2 = time_extra_emb.extra_embedder.linear_2
style_embedder = time_extra_emb.style_embedder
pooler = time_extra_emb.pooler:
    positional_embedding = positional_embedding
    q_proj = q_proj
    k_proj = k_proj
    v_proj = v_proj
    c_proj = c_proj
final_layer.adaLN_modulation.1 = norm_out.linear ~
final_layer.linear = proj_out
blocks.# = blocks.#:
    norm1 = norm1.norm
    default_modulation.1 = norm1.linear
    attn1.Wqkv = attn1.to_q:1 | attn1.to_k | attn1.to_v
    attn1.out_proj = attn1.to_out.0
    attn1.q_norm = attn1.norm_q
    attn1.k_norm = attn1.norm_k
    attn2.q_proj = attn2.to_q
    attn2.kv_proj = attn2.to_k | attn2.to_v
    attn2.out_proj = attn2.to_out.0
    attn2.q_norm = attn2.norm_q
    attn2.k_norm = attn2.norm_k
    mlp.fc1 = ff.net.0.proj
    mlp.fc2 = ff.net.2
"""

COSMOS1 = (
    """
x_embedder.proj.1 = patch_embed.proj
t_embedder.1.linear_1 = time_embed.t_embedder.linear_1
t_embedder.1.linear_2 = time_embed.t_embedder.linear_2
affline_norm = time_embed.norm
extra_pos_embedder.pos_emb_t = learnable_pos_embed.pos_emb_t
extra_pos_embedder.pos_emb_h = learnable_pos_embed.pos_emb_h
extra_pos_embedder.pos_emb_w = learnable_pos_embed.pos_emb_w
final_layer.adaLN_modulation.1 = norm_out.linear_1
final_layer.adaLN_modulation.2 = norm_out.linear_2
final_layer.linear = proj_out
blocks.block#.blocks.2.block = transformer_blocks.#.ff:
    layer1 = net.0.proj
    layer2 = net.2
"""
    + "".join(
        f"""
blocks.block#.blocks.{place}.adaLN_modulation = transformer_blocks.#.norm{place + 1}:
    1 = linear_1
    2 = linear_2
"""
        for place in range(3)
    )
    + "".join(
        f"""
blocks.block#.blocks.{place}.block.attn = transformer_blocks.#.attn{place + 1}:
    to_q.0 = to_q
    to_q.1 = norm_q
    to_k.0 = to_k
    to_k.1 = norm_k
    to_v.0 = to_v
    to_out.0 = to_out.0
"""
        for place in range(2)
    )
)

_ATTENTION = ("to_query", "to_key", "to_value", "query_norm", "key_norm", "out_layer")


def _block(ours: str, theirs: str, attentions: tuple[tuple[str, str], ...], modulation: str) -> str:
    """The rules of a block of Kandinsky 6, whose feed-forward layers diffusers calls as elsewhere."""
    layers = [(f"{one}.{layer}", f"{other}.{layer}") for one, other in attentions for layer in _ATTENTION]
    layers += [("feed_forward.in_layer", "feed_forward.net.0.proj"), ("feed_forward.out_layer", "feed_forward.net.2")]
    layers += [(f"{modulation}.out_layer",) * 2]
    return "".join(f"{ours}.{one} = {theirs}.{other}\n" for one, other in layers)


_OWN = (("self_attention", "self_attention"), ("cross_attention", "cross_attention"))
KANDINSKY6 = (
    "".join(
        f"""
{kind}_time_embeddings.in_layer = {kind}_time_embeddings.timestep_embedder.linear_1
{kind}_time_embeddings.out_layer = {kind}_time_embeddings.timestep_embedder.linear_2
"""
        + _block(*(f"{kind}_text_transformer_blocks.#",) * 2, (("self_attention", "attn"),), "text_modulation")
        + _block(f"visual_blocks.#.{kind}T", f"visual_transformer_blocks.#.{kind}_dec_block", _OWN, "visual_modulation")
        for kind in ("video", "audio")
    )
    + "".join(
        f"visual_blocks.#.{way}.{layer} = visual_transformer_blocks.#.{way}.{layer}\n"
        for way in ("va_cross_attention", "av_cross_attention")
        for layer in _ATTENTION
    )
    + """
visual_blocks.#.va_modulation.out_layer = visual_transformer_blocks.#.va_modulation.out_layer
visual_blocks.#.av_modulation.out_layer = visual_transformer_blocks.#.av_modulation.out_layer
audio_outLayer.modulation.out_layer = audio_out_layer.modulation.out_layer
audio_outLayer.out_layer = audio_out_layer.out_layer
"""
)

# Wan 2.2 Animate. In the motion encoder a blur, which has no weight that anybody trains, comes before a convolution.
WAN_ANIMATE = """
face_adapter.fuser_blocks.# = face_adapter.#:
    linear1_q = to_q
    linear1_kv = to_k | to_v
    linear2 = to_out
    q_norm = norm_q
    k_norm = norm_k
face_encoder = face_encoder:
    conv1_local.conv = conv1_local
    conv2.conv = conv2
    conv3.conv = conv3
motion_encoder = motion_encoder:
    enc.net_app.convs.0.0 = conv_in
    enc.net_app.convs.8 = conv_out
    enc.fc.# = motion_network.#
    dec.direction = motion_synthesis_weight
""" + "".join(
    f"""
motion_encoder.enc.net_app.convs.{place + 1} = motion_encoder.res_blocks.{place}:
    conv1.0 = conv1
    conv2.1 = conv2
    skip.1 = conv_skip
"""
    for place in range(7)
)
