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

# Qwen-Image 2.1: the host joins the two halves of a gated layer.
QWEN = """
transformer_blocks.#.img_mlp.gate_up = transformer_blocks.#.img_mlp.gate_layer | transformer_blocks.#.img_mlp.proj
transformer_blocks.#.txt_mlp.gate_up = transformer_blocks.#.txt_mlp.gate_layer | transformer_blocks.#.txt_mlp.proj
"""

# Trainers load the decoder alone, and leave its name out.
ACE_STEP = """
decoder.condition_embedder = condition_embedder
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
    mlp.gate_proj = mlp.gate_proj
    mlp.up_proj = mlp.up_proj
    mlp.down_proj = mlp.down_proj
"""

LTX2 = "".join(
    f"""
{kind}_embeddings_connector.transformer_1d_blocks.# = connectors.{kind}_connector.transformer_blocks.#:
    attn1.to_q = attn1.to_q
    attn1.to_k = attn1.to_k
    attn1.to_v = attn1.to_v
    attn1.to_out.0 = attn1.to_out.0
    ff.net.0.proj = ff.net.0.proj
    ff.net.2 = ff.net.2
"""
    for kind in ("audio", "video")
)
