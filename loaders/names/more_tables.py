"""The tables of further families, in the form of tables.py, which puts them into its index."""

from __future__ import annotations

PIXART = """
x_embedder.proj = pos_embed.proj
y_embedder.y_proj.fc1 = caption_projection.linear_1
y_embedder.y_proj.fc2 = caption_projection.linear_2
t_embedder.mlp.0 = adaln_single.emb.timestep_embedder.linear_1
t_embedder.mlp.2 = adaln_single.emb.timestep_embedder.linear_2
csize_embedder.mlp.0 = adaln_single.emb.resolution_embedder.linear_1
csize_embedder.mlp.2 = adaln_single.emb.resolution_embedder.linear_2
ar_embedder.mlp.0 = adaln_single.emb.aspect_ratio_embedder.linear_1
ar_embedder.mlp.2 = adaln_single.emb.aspect_ratio_embedder.linear_2
t_block.1 = adaln_single.linear
final_layer.linear = proj_out
final_layer.scale_shift_table = scale_shift_table
blocks.# = transformer_blocks.#:
    scale_shift_table = scale_shift_table
    attn.qkv = attn1.to_q:1 | attn1.to_k | attn1.to_v
    attn.proj = attn1.to_out.0
    cross_attn.q_linear = attn2.to_q
    cross_attn.kv_linear = attn2.to_k | attn2.to_v
    cross_attn.proj = attn2.to_out.0
    mlp.fc1 = ff.net.0.proj
    mlp.fc2 = ff.net.2
"""

AURAFLOW = """
init_x_linear = pos_embed.proj
positional_encoding = pos_embed.pos_embed
cond_seq_linear = context_embedder
t_embedder.mlp.0 = time_step_proj.linear_1
t_embedder.mlp.2 = time_step_proj.linear_2
modF.1 = norm_out.linear ~
final_linear = proj_out
double_layers.# = joint_transformer_blocks.#:
    attn.w2q = attn.to_q
    attn.w2k = attn.to_k
    attn.w2v = attn.to_v
    attn.w2o = attn.to_out.0
    attn.w1q = attn.add_q_proj
    attn.w1k = attn.add_k_proj
    attn.w1v = attn.add_v_proj
    attn.w1o = attn.to_add_out
    mlpX.c_fc1 = ff.linear_1
    mlpX.c_fc2 = ff.linear_2
    mlpX.c_proj = ff.out_projection
    mlpC.c_fc1 = ff_context.linear_1
    mlpC.c_fc2 = ff_context.linear_2
    mlpC.c_proj = ff_context.out_projection
    modX.1 = norm1.linear
    modC.1 = norm1_context.linear
single_layers.# = single_transformer_blocks.#:
    attn.w1q = attn.to_q
    attn.w1k = attn.to_k
    attn.w1v = attn.to_v
    attn.w1o = attn.to_out.0
    mlp.c_fc1 = ff.linear_1
    mlp.c_fc2 = ff.linear_2
    mlp.c_proj = ff.out_projection
    modCX.1 = norm1.linear
"""

# The host joins the two halves of a gated layer.
QWEN21 = """
transformer_blocks.#.img_mlp.gate_up = transformer_blocks.#.img_mlp.gate_layer | transformer_blocks.#.img_mlp.proj
"""

# Trainers load the decoder alone, and leave its name out.
ACE_STEP = """
decoder.condition_embedder = condition_embedder
decoder.norm_out = norm_out
decoder.scale_shift_table = scale_shift_table
decoder.proj_in.1 = proj_in.1
decoder.proj_out.1 = proj_out.1
decoder.time_embed = time_embed:
    linear_1 = linear_1
    linear_2 = linear_2
    time_proj = time_proj
decoder.time_embed_r = time_embed_r:
    linear_1 = linear_1
    linear_2 = linear_2
    time_proj = time_proj
decoder.layers.# = layers.#:
    scale_shift_table = scale_shift_table
    self_attn.q_proj = self_attn.q_proj
    self_attn.k_proj = self_attn.k_proj
    self_attn.v_proj = self_attn.v_proj
    self_attn.o_proj = self_attn.o_proj
    self_attn.q_norm = self_attn.q_norm
    self_attn.k_norm = self_attn.k_norm
    cross_attn.q_proj = cross_attn.q_proj
    cross_attn.k_proj = cross_attn.k_proj
    cross_attn.v_proj = cross_attn.v_proj
    cross_attn.o_proj = cross_attn.o_proj
    cross_attn.q_norm = cross_attn.q_norm
    cross_attn.k_norm = cross_attn.k_norm
    self_attn_norm = self_attn_norm
    cross_attn_norm = cross_attn_norm
    mlp_norm = mlp_norm
    mlp.gate_proj = mlp.gate_proj
    mlp.up_proj = mlp.up_proj
    mlp.down_proj = mlp.down_proj
decoder.proj_in.1 = proj_in_conv
decoder.proj_out.1 = proj_out_conv
""" + "".join(
    f"""
decoder.layers.#.{part} = layers.#.{part}:
    q_proj = to_q
    k_proj = to_k
    v_proj = to_v
    o_proj = to_out.0
    q_norm = norm_q
    k_norm = norm_k
"""
    for part in ("self_attn", "cross_attn")
)


def _same(whole: str, other: str, *layers: str) -> str:
    """A rule for each layer that has one name inside two blocks that have not."""
    return "".join(f"{whole}.{layer} = {other}.{layer}\n" for layer in layers)


_ADALN = ("emb.timestep_embedder.linear_1", "emb.timestep_embedder.linear_2", "linear")
_BLOCKS = "transformer_blocks.#"
_BLOCK = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2")

LTX = (
    _same("adaln_single", "time_embed", *_ADALN)
    + """
patchify_proj = proj_in
*.q_norm = *.norm_q
*.k_norm = *.norm_k
"""
)
LTX2 = (
    LTX
    + _same("audio_adaln_single", "audio_time_embed", *_ADALN)
    + _same("prompt_adaln_single", "prompt_adaln", *_ADALN)
    + _same("audio_prompt_adaln_single", "audio_prompt_adaln", *_ADALN)
    + _same("av_ca_video_scale_shift_adaln_single", "av_cross_attn_video_scale_shift", *_ADALN)
    + _same("av_ca_audio_scale_shift_adaln_single", "av_cross_attn_audio_scale_shift", *_ADALN)
    + _same("av_ca_a2v_gate_adaln_single", "av_cross_attn_video_a2v_gate", *_ADALN)
    + _same("av_ca_v2a_gate_adaln_single", "av_cross_attn_audio_v2a_gate", *_ADALN)
    + """
audio_patchify_proj = audio_proj_in
*.scale_shift_table_a2v_ca_video = *.video_a2v_cross_attn_scale_shift_table
*.scale_shift_table_a2v_ca_audio = *.audio_a2v_cross_attn_scale_shift_table
"""
    + "".join(
        _same(
            f"{kind}_embeddings_connector.transformer_1d_blocks.#",
            f"connectors.{kind}_connector.transformer_blocks.#",
            *_BLOCK,
        )
        for kind in ("audio", "video")
    )
)

KREA2 = """
first = img_in
tmlp.0 = time_embed.linear_1
tmlp.2 = time_embed.linear_2
tproj.1 = time_mod_proj
txtmlp.1 = txt_in.linear_1
txtmlp.3 = txt_in.linear_2
txtfusion.projector = text_fusion.projector
txtmlp.0.scale = txt_in.norm
last.linear = final_layer.linear
last.norm.scale = final_layer.norm
last.modulation.lin = final_layer.scale_shift_table
blocks.#.mod.lin = transformer_blocks.#.scale_shift_table
""" + "".join(
    f"""
{ours}.# = {theirs}.#:
    prenorm.scale = norm1
    postnorm.scale = norm2
    attn.qknorm.qnorm.scale = attn.norm_q
    attn.qknorm.knorm.scale = attn.norm_k
    attn.wq = attn.to_q
    attn.wk = attn.to_k
    attn.wv = attn.to_v
    attn.wo = attn.to_out.0
    attn.gate = attn.to_gate
    mlp.gate = ff.gate
    mlp.up = ff.up
    mlp.down = ff.down
"""
    for ours, theirs in (
        ("blocks", "transformer_blocks"),
        ("txtfusion.layerwise_blocks", "text_fusion.layerwise_blocks"),
        ("txtfusion.refiner_blocks", "text_fusion.refiner_blocks"),
    )
)

# Diffusers computes value * silu(gate) with the value first, MiniMax with the gate first.
MINIMAX_H3 = """
video_patch_proj = proj_in
audio_patch_proj = audio_proj_in
condition_proj = context_embedder
time_embedder.proj_in = time_embedder.linear_1
time_embedder.proj_out = time_embedder.linear_2
final_layer.norm = norm_out.norm
final_layer.adaln_proj.linear = norm_out.linear
final_layer.video_out = proj_out
final_layer.audio_out = audio_proj_out
""" + "".join(
    f"""
{ours}.# = {theirs}.#:
    attn.qkv_proj = attn.to_q | attn.to_k | attn.to_v
    attn.out_proj = attn.to_out.0
    attn.q_norm = attn.norm_q
    attn.k_norm = attn.norm_k
    mlp.fc1 = ff.net.0.proj ~~
    mlp.fc2 = ff.net.2
    norm1 = norm1
    norm2 = norm2
    adaln_proj.linear = adaln_proj.linear
"""
    for ours, theirs in (("blocks", "transformer_blocks"), ("token_refiner.blocks", "token_refiner.refiner_blocks"))
)

_ADAPTER = (
    *(f"{part}_attn.{layer}_proj" for part in ("self", "cross") for layer in "qkvo"),
    *(f"{part}_attn.{layer}_norm" for part in ("self", "cross") for layer in "qk"),
    "mlp.0", "mlp.2", "norm_self_attn", "norm_cross_attn", "norm_mlp",
)  # fmt: skip
ANIMA = (
    _same("llm_adapter.blocks.#", "text_conditioner.blocks.#", *_ADAPTER)
    + _same("llm_adapter", "text_conditioner", "embed", "in_proj", "out_proj", "norm")
    + """
x_embedder.proj.1 = patch_embed.proj
t_embedder.1.linear_1 = time_embed.t_embedder.linear_1
t_embedder.1.linear_2 = time_embed.t_embedder.linear_2
t_embedding_norm = time_embed.norm
final_layer.adaln_modulation.1 = norm_out.linear_1
final_layer.adaln_modulation.2 = norm_out.linear_2
final_layer.linear = proj_out
blocks.# = transformer_blocks.#:
    adaln_modulation_self_attn.1 = norm1.linear_1
    adaln_modulation_self_attn.2 = norm1.linear_2
    adaln_modulation_cross_attn.1 = norm2.linear_1
    adaln_modulation_cross_attn.2 = norm2.linear_2
    adaln_modulation_mlp.1 = norm3.linear_1
    adaln_modulation_mlp.2 = norm3.linear_2
    self_attn.q_proj = attn1.to_q
    self_attn.k_proj = attn1.to_k
    self_attn.v_proj = attn1.to_v
    self_attn.output_proj = attn1.to_out.0
    self_attn.q_norm = attn1.norm_q
    self_attn.k_norm = attn1.norm_k
    cross_attn.q_proj = attn2.to_q
    cross_attn.k_proj = attn2.to_k
    cross_attn.v_proj = attn2.to_v
    cross_attn.output_proj = attn2.to_out.0
    cross_attn.q_norm = attn2.norm_q
    cross_attn.k_norm = attn2.norm_k
    mlp.layer1 = ff.net.0.proj
    mlp.layer2 = ff.net.2
"""
)

IDEOGRAM4 = """
*.attention.qkv = *.attention.to_q | *.attention.to_k | *.attention.to_v
*.attention.o = *.attention.to_out.0
"""

OVIS = """
txt_norm = context_embedder_norm
time_in = timestep_embedder:
    in_layer = linear_1
    out_layer = linear_2
""" + "".join(
    f"""
transformer_blocks.#.{theirs}.net.0.proj = double_blocks.#.{ours}.up_proj | double_blocks.#.{ours}.gate_proj
double_blocks.#.{ours}.down_proj = transformer_blocks.#.{theirs}.net.2
"""
    for ours, theirs in (("img_mlp", "ff"), ("txt_mlp", "ff_context"))
)

COGVIDEOX = (
    _same("blocks.#", _BLOCKS, "norm1.linear", "norm1.norm", "norm2.linear", "norm2.norm")
    + """
time_embedding_linear_1 = time_embedding.linear_1
time_embedding_linear_2 = time_embedding.linear_2
ofs_embedding_linear_1 = ofs_embedding.linear_1
ofs_embedding_linear_2 = ofs_embedding.linear_2
blocks.# = transformer_blocks.#:
    q = attn1.to_q
    k = attn1.to_k
    v = attn1.to_v
    attn_out = attn1.to_out.0
    norm_q = attn1.norm_q
    norm_k = attn1.norm_k
    ff_proj = ff.net.0.proj
    ff_out = ff.net.2
"""
)

LATER_HUNYUANS = """
vision_in.proj.0 = image_embedder.norm_in
vision_in.proj.1 = image_embedder.linear_1
vision_in.proj.3 = image_embedder.linear_2
vision_in.proj.4 = image_embedder.norm_out
byt5_in.layernorm = context_embedder_2.norm
byt5_in.fc1 = context_embedder_2.linear_1
byt5_in.fc2 = context_embedder_2.linear_2
byt5_in.fc3 = context_embedder_2.linear_3
cond_type_embedding = cond_type_embed
time_in = time_guidance_embed.timestep_embedder:
    in_layer = linear_1
    out_layer = linear_2
time_r_in = time_guidance_embed.timestep_embedder_r:
    in_layer = linear_1
    out_layer = linear_2
guidance_in = time_guidance_embed.guidance_embedder:
    in_layer = linear_1
    out_layer = linear_2
"""
