"""How the families' weights are named by ComfyUI (left) and by others (right: diffusers, original repositories, tools).

One line is one rule. ``#`` is a number and ``*`` anything, the same on both sides; ``a | b`` are rows below each other,
``a:3`` is as many rows as the weight has three times columns, parts without a number share the rest, ``-`` has no name
of its own. ``~`` swaps the halves of an adaLN weight that holds one scale and one shift, ``~~`` those of any weight. Of
several rules for one weight the first is that of diffusers: files in its dialect are written by it. A line that ends in
a colon prefixes the indented lines below it. A new naming is a line here and a fixture in the tests.
"""

from __future__ import annotations

from .more_tables import (
    ACE_STEP,
    ANIMA,
    AURAFLOW,
    COGVIDEOX,
    IDEOGRAM4,
    KREA2,
    LATER_HUNYUANS,
    LTX,
    LTX2,
    MINIMAX_H3,
    OVIS,
    PIXART,
    QWEN21,
)
from .other_tables import COSMOS1, HUNYUAN_DIT, KANDINSKY6, MOCHI, WAN_ANIMATE

# Names that any family may have: projections fused by a trainer or by diffusers, and ``to_out`` without its index.
GENERAL = """
*.to_out.0 = *.to_out
*.to_qkv = *.to_q:1 | *.to_k | *.to_v
*.to_kv = *.to_k | *.to_v
*.add_qkv_proj = *.add_q_proj:1 | *.add_k_proj | *.add_v_proj
*.to_added_qkv = *.add_q_proj:1 | *.add_k_proj | *.add_v_proj
*.qkv = *.q:1 | *.k | *.v
*.qkv = *.qkv.0:1 | *.qkv.1 | *.qkv.2
"""

UNET = """
input_blocks.0.0 = conv_in
time_embed.0 = time_embedding.linear_1
time_embed.2 = time_embedding.linear_2
label_emb.0.0 = add_embedding.linear_1
label_emb.0.2 = add_embedding.linear_2
label_emb.0.0 = class_embedding.linear_1
label_emb.0.2 = class_embedding.linear_2
out.0 = conv_norm_out
out.2 = conv_out
"""

BLOCKS = """
double_blocks.# = transformer_blocks.#:
    img_attn.qkv = attn.to_q:1 | attn.to_k | attn.to_v
    txt_attn.qkv = attn.add_q_proj:1 | attn.add_k_proj | attn.add_v_proj
    img_attn.proj = attn.to_out.0
    txt_attn.proj = attn.to_add_out
    img_attn.norm.query_norm.scale = attn.norm_q
    img_attn.norm.key_norm.scale = attn.norm_k
    txt_attn.norm.query_norm.scale = attn.norm_added_q
    txt_attn.norm.key_norm.scale = attn.norm_added_k
    img_attn.norm.query_norm = attn.norm_q
    img_attn.norm.key_norm = attn.norm_k
    txt_attn.norm.query_norm = attn.norm_added_q
    txt_attn.norm.key_norm = attn.norm_added_k
    img_mod.lin = norm1.linear
    txt_mod.lin = norm1_context.linear
    img_mlp.0 = ff.net.0.proj
    img_mlp.2 = ff.net.2
    txt_mlp.0 = ff_context.net.0.proj
    txt_mlp.2 = ff_context.net.2
single_blocks.# = single_transformer_blocks.#:
    linear1 = attn.to_q:1 | attn.to_k:1 | attn.to_v:1 | proj_mlp
    linear1 = attn.to_qkv:3 | proj_mlp
    linear2 = proj_out
    modulation.lin = norm.linear
    norm.query_norm.scale = attn.norm_q
    norm.key_norm.scale = attn.norm_k
    norm.query_norm = attn.norm_q
    norm.key_norm = attn.norm_k
"""

# The OMI layout of OneTrainer, and OFT of sd-scripts: the parts of a fused layer by number.
NUMBERED = """
img_in = img_in.proj
double_blocks.# = double_blocks.#:
    img_attn.qkv = img_attn.qkv.0:1 | img_attn.qkv.1 | img_attn.qkv.2
    txt_attn.qkv = txt_attn.qkv.0:1 | txt_attn.qkv.1 | txt_attn.qkv.2
single_blocks.# = single_blocks.#:
    linear1 = linear1.0:1 | linear1.1:1 | linear1.2:1 | linear1.3
"""

ENDS = """
img_in = x_embedder
txt_in = context_embedder
final_layer.linear = proj_out
final_layer.adaLN_modulation.1 = norm_out.linear ~
"""

TIME_TEXT = """
time_in = time_text_embed.timestep_embedder:
    in_layer = linear_1
    out_layer = linear_2
time_in = time_embed.timestep_embedder:
    in_layer = linear_1
    out_layer = linear_2
vector_in = time_text_embed.text_embedder:
    in_layer = linear_1
    out_layer = linear_2
guidance_in = time_text_embed.guidance_embedder:
    in_layer = linear_1
    out_layer = linear_2
"""

XLABS = """
double_blocks.# = double_blocks.#.processor:
    img_attn.qkv = qkv_lora1
    img_attn.proj = proj_lora1
    txt_attn.qkv = qkv_lora2
    txt_attn.proj = proj_lora2
single_blocks.# = single_blocks.#.processor:
    linear1 = qkv_lora:3 | -
    linear2 = proj_lora
single_blocks.#.linear1 = single_blocks.#.linear1_qkv:3 | -
"""

CHROMA = """
distilled_guidance_layer.layers.# = distilled_guidance_layer.layers.#:
    in_layer = linear_1
    out_layer = linear_2
distilled_guidance_layer.norms.#.scale = distilled_guidance_layer.norms.#
"""

# FLUX.2 in diffusers; some write FLUX.1 so.
LINEAR_IN = """
double_blocks.# = transformer_blocks.#:
    img_mlp.0 = ff.linear_in
    img_mlp.2 = ff.linear_out
    txt_mlp.0 = ff_context.linear_in
    txt_mlp.2 = ff_context.linear_out
single_blocks.# = single_transformer_blocks.#:
    linear1 = attn.to_qkv_mlp_proj
    linear2 = attn.to_out
"""

FLUX2 = """
double_stream_modulation_img.lin = double_stream_modulation_img.linear
double_stream_modulation_txt.lin = double_stream_modulation_txt.linear
single_stream_modulation.lin = single_stream_modulation.linear
time_in = time_guidance_embed.timestep_embedder:
    in_layer = linear_1
    out_layer = linear_2
guidance_in = time_guidance_embed.guidance_embedder:
    in_layer = linear_1
    out_layer = linear_2
"""

HUNYUAN = """
img_in.proj = x_embedder.proj
time_in.in_layer = time_in.mlp.0
time_in.out_layer = time_in.mlp.2
guidance_in.in_layer = guidance_in.mlp.0
guidance_in.out_layer = guidance_in.mlp.2
double_blocks.# = double_blocks.#:
    img_mod.lin = img_mod.linear
    txt_mod.lin = txt_mod.linear
    img_attn.qkv = img_attn_qkv
    txt_attn.qkv = txt_attn_qkv
    img_attn.proj = img_attn_proj
    txt_attn.proj = txt_attn_proj
    img_mlp.0 = img_mlp.fc1
    img_mlp.2 = img_mlp.fc2
    txt_mlp.0 = txt_mlp.fc1
    txt_mlp.2 = txt_mlp.fc2
    img_attn.norm.query_norm.scale = img_attn_q_norm
    img_attn.norm.key_norm.scale = img_attn_k_norm
    txt_attn.norm.query_norm.scale = txt_attn_q_norm
    txt_attn.norm.key_norm.scale = txt_attn_k_norm
single_blocks.# = single_blocks.#:
    modulation.lin = modulation.linear
    norm.query_norm.scale = q_norm
    norm.key_norm.scale = k_norm
txt_in = context_embedder:
    input_embedder = proj_in
    t_embedder.in_layer = time_text_embed.timestep_embedder.linear_1
    t_embedder.out_layer = time_text_embed.timestep_embedder.linear_2
    c_embedder.in_layer = time_text_embed.text_embedder.linear_1
    c_embedder.out_layer = time_text_embed.text_embedder.linear_2
txt_in = txt_in:
    t_embedder.in_layer = t_embedder.mlp.0
    t_embedder.out_layer = t_embedder.mlp.2
    c_embedder.in_layer = c_embedder.linear_1
    c_embedder.out_layer = c_embedder.linear_2
txt_in.individual_token_refiner.blocks.# = context_embedder.token_refiner.refiner_blocks.#:
    self_attn.qkv = attn.to_q:1 | attn.to_k | attn.to_v
    self_attn.proj = attn.to_out.0
    mlp.0 = ff.net.0.proj
    mlp.2 = ff.net.2
    norm1 = norm1
    norm2 = norm2
    adaLN_modulation.1 = norm_out.linear
txt_in.individual_token_refiner.blocks.# = txt_in.individual_token_refiner.blocks.#:
    self_attn.qkv = self_attn_qkv
    self_attn.proj = self_attn_proj
    mlp.0 = mlp.fc1
    mlp.2 = mlp.fc2
"""

SD3 = """
x_embedder.proj = pos_embed.proj
pos_embed = pos_embed.pos_embed
t_embedder.mlp.0 = time_text_embed.timestep_embedder.linear_1
t_embedder.mlp.2 = time_text_embed.timestep_embedder.linear_2
y_embedder.mlp.0 = time_text_embed.text_embedder.linear_1
y_embedder.mlp.2 = time_text_embed.text_embedder.linear_2
final_layer.linear = proj_out
final_layer.adaLN_modulation.1 = norm_out.linear ~
joint_blocks.#.x_block = transformer_blocks.#:
    attn.qkv = attn.to_q:1 | attn.to_k | attn.to_v
    attn.proj = attn.to_out.0
    attn.ln_q = attn.norm_q
    attn.ln_k = attn.norm_k
    attn2.qkv = attn2.to_q:1 | attn2.to_k | attn2.to_v
    attn2.proj = attn2.to_out.0
    attn2.ln_q = attn2.norm_q
    attn2.ln_k = attn2.norm_k
    mlp.fc1 = ff.net.0.proj
    mlp.fc2 = ff.net.2
    adaLN_modulation.1 = norm1.linear
joint_blocks.#.context_block = transformer_blocks.#:
    attn.qkv = attn.add_q_proj:1 | attn.add_k_proj | attn.add_v_proj
    attn.proj = attn.to_add_out
    attn.ln_q = attn.norm_added_q
    attn.ln_k = attn.norm_added_k
    mlp.fc1 = ff_context.net.0.proj
    mlp.fc2 = ff_context.net.2
    adaLN_modulation.1 = norm1_context.linear ~
"""

WAN = """
text_embedding = condition_embedder.text_embedder:
    0 = linear_1
    2 = linear_2
time_embedding = condition_embedder.time_embedder:
    0 = linear_1
    2 = linear_2
time_projection.1 = condition_embedder.time_proj
img_emb.proj = condition_embedder.image_embedder:
    0 = norm1
    1 = ff.net.0.proj
    3 = ff.net.2
    4 = norm2
img_emb.emb_pos = condition_embedder.image_embedder.pos_embed
head.modulation = scale_shift_table
head.head = proj_out
* = *:
    modulation = scale_shift_table
    self_attn.q = attn1.to_q
    self_attn.k = attn1.to_k
    self_attn.v = attn1.to_v
    self_attn.o = attn1.to_out.0
    self_attn.norm_q = attn1.norm_q
    self_attn.norm_k = attn1.norm_k
    cross_attn.q = attn2.to_q
    cross_attn.k = attn2.to_k
    cross_attn.v = attn2.to_v
    cross_attn.o = attn2.to_out.0
    cross_attn.norm_q = attn2.norm_q
    cross_attn.norm_k = attn2.norm_k
    cross_attn.k_img = attn2.add_k_proj
    cross_attn.v_img = attn2.add_v_proj
    cross_attn.norm_k_img = attn2.norm_added_k
    norm3 = norm2
    ffn.0 = ffn.net.0.proj
    ffn.2 = ffn.net.2
vace_blocks.#.before_proj = vace_blocks.#.proj_in
vace_blocks.#.after_proj = vace_blocks.#.proj_out
"""

Z_IMAGE = """
x_embedder = all_x_embedder.2-1
final_layer.linear = all_final_layer.2-1.linear
final_layer.adaLN_modulation.1 = all_final_layer.2-1.adaLN_modulation.1
*.attention.qkv = *.attention.to_q:1 | *.attention.to_k | *.attention.to_v
*.attention.out = *.attention.to_out.0
*.attention.q_norm = *.attention.norm_q
*.attention.k_norm = *.attention.norm_k
"""

LUMINA2 = """
t_embedder.mlp.0 = time_caption_embed.timestep_embedder.linear_1
t_embedder.mlp.2 = time_caption_embed.timestep_embedder.linear_2
cap_embedder.0 = time_caption_embed.caption_embedder.0
cap_embedder.1 = time_caption_embed.caption_embedder.1
final_layer.adaLN_modulation.1 = norm_out.linear_1
final_layer.linear = norm_out.linear_2
context_refiner.#.attention_norm1 = context_refiner.#.norm1
* = *:
    attention.qkv = attn.to_q:1 | attn.to_k | attn.to_v
    attention.out = attn.to_out.0
    attention.q_norm = attn.norm_q
    attention.k_norm = attn.norm_k
    feed_forward.w1 = feed_forward.linear_1
    feed_forward.w2 = feed_forward.linear_2
    feed_forward.w3 = feed_forward.linear_3
    attention_norm1 = norm1.norm
    attention_norm2 = norm2
    adaLN_modulation.1 = norm1.linear
"""

FLUX = BLOCKS + ENDS + TIME_TEXT + XLABS + NUMBERED + LINEAR_IN

HUNYUANS = ("hunyuan-video", "hunyuan-video-1.5", "hunyuan-image-2.1")  # one set of names

TABLES = {
    "sd15": UNET,
    "sd2": UNET,
    "sdxl": UNET,
    "svd": UNET,
    "sd3": SD3,
    "flux": FLUX,
    "chroma": FLUX + CHROMA,
    "flux2": LINEAR_IN + FLUX2 + BLOCKS + ENDS + TIME_TEXT + XLABS + NUMBERED,
    "wan": WAN + WAN_ANIMATE,
    **dict.fromkeys(HUNYUANS, BLOCKS + ENDS + TIME_TEXT + HUNYUAN + LATER_HUNYUANS + NUMBERED),
    "ovis-image": OVIS + FLUX,
    "qwen-image-2.1": QWEN21,
    "pixart": PIXART,
    "auraflow": AURAFLOW,
    "ace-step-1.5": ACE_STEP,
    "ltx-video": LTX,
    "ltx-2": LTX2,
    "krea-2": KREA2,
    "minimax-h3": MINIMAX_H3,
    **dict.fromkeys(("anima", "cosmos-predict2"), ANIMA),
    "ideogram-4": IDEOGRAM4,
    "cogvideox": COGVIDEOX,
    "mochi": MOCHI,
    "hunyuan-dit": HUNYUAN_DIT,
    "cosmos": COSMOS1,
    "kandinsky-6": KANDINSKY6,
    **dict.fromkeys(("z-image", "ming-image"), Z_IMAGE),
    "lumina2": Z_IMAGE + LUMINA2,
}
