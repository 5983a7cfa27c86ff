"""What the note of each example says: what it shows, and the files it needs."""

from __future__ import annotations

SDXL_FILES = """\
- `checkpoints/sd_xl_base_1.0.safetensors` and `loras/sd_xl_offset_example-lora_1.0.safetensors`: Hugging Face,
  stabilityai/stable-diffusion-xl-base-1.0.
- `loras/pixel-art-xl.safetensors`: Hugging Face, nerijs/pixel-art-xl.
- `loras/add-detail-xl.safetensors`: Civitai, "Detail Tweaker XL".

Any other SDXL LoRAs will do."""

QWEN_FILES = """\
Files to download (into ComfyUI's `models/`), those of the example `1_qwen_image_lightning_and_style`:

- `diffusion_models/qwen_image_bf16.safetensors`, `text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors` and
  `vae/qwen_image_vae.safetensors`: Hugging Face, Comfy-Org/Qwen-Image_ComfyUI.
- `loras/Qwen-Image-Lightning-8steps-V1.0.safetensors`: Hugging Face, lightx2v/Qwen-Image-Lightning.
- `loras/flymy_realism.safetensors`: Hugging Face, flymy-ai/qwen-image-realism-lora."""

NOTES = {
    "1_qwen_image_lightning_and_style": """## Lightning fused first, style stacked on top, FP8 last

Files to download (into ComfyUI's `models/`):

- `diffusion_models/qwen_image_bf16.safetensors`, `text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors` and
  `vae/qwen_image_vae.safetensors`: Hugging Face, Comfy-Org/Qwen-Image_ComfyUI. Take the **bf16** model: an fp8 one is
  refused, for LoRAs added after quantization lose their effect.
- `loras/Qwen-Image-Lightning-8steps-V1.0.safetensors`: Hugging Face, lightx2v/Qwen-Image-Lightning.
- `loras/flymy_realism.safetensors`: Hugging Face, flymy-ai/qwen-image-realism-lora. Any other Qwen-Image LoRA will do.

What happens:

- **1 Fuse** puts Lightning into the untouched weights. `once`: exact sums, rounded at the very end.
- **2 Stack** takes your LoRAs with their weights. The validator says what does not fit before it costs anything.
- **3 Quantize** reads each weight once, adds everything in fp32 and rounds to fp8, last.
- **Sample**: this Lightning wants 8 steps and cfg 1.
""",
    "2_sdxl_multi_lora": f"""## Several LoRAs on SDXL, text encoders included

Files to download (into ComfyUI's `models/`):

{SDXL_FILES}

What happens:

- **1 Fuse** is set to `none: vanilla base`: no Lightning here, and the recipe says so.
- **2 Stack**: a **LoRA** node is one row, **LoRA Stack** holds rows as text, and they chain. All rows are summed at
  once, so their order does not matter. CLIP goes through **2 Stack LoRAs** and receives the LoRAs' text-encoder parts.
- **3 Quantize** comes last; replace it with **3 Apply, no quantization** to keep the checkpoint's own precision.
""",
    "3_wan_lightning": """## Wan 2.2 text-to-video in four steps

Files to download (into ComfyUI's `models/`), all from Hugging Face, Comfy-Org/Wan_2.2_ComfyUI_Repackaged:

- `diffusion_models/wan2.2_t2v_high_noise_14B_fp16.safetensors` and `..._low_noise_14B_fp16.safetensors`
- `loras/wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors` and `..._low_noise.safetensors`
- `vae/wan_2.1_vae.safetensors`, `text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors`

What happens:

- **1 Fuse**: Wan 2.2 has two models, and each gets the step-distill LoRA of its own half: high with high, low with low.
- **2 Stack**: put your LoRAs into the shared **LoRA Stack** and set `"on": true`; or give each half a stack of its own,
  when your LoRA comes as two files. Rows that are off are left out and need no file.
- **3 Quantize**: two fp8 models are held in memory, about half the size of the two files. On a small machine, bake each
  once with **Save Baked Model** and load the results with the ordinary loader.

Step-distill LoRAs with `.diff` parts (the ones extracted from Wan 2.1 have them) are refused by this version: LF304.
""",
    "4_sdxl_merge_once": f"""## Three LoRAs merged once, used as one

Files to download (into ComfyUI's `models/`), those of the example `2_sdxl_multi_lora`:

{SDXL_FILES}

What happens:

- **Merge LoRAs** writes `output/loras/my_mix_00001_.safetensors`: the weighted sum, text-encoder parts included. At
  strength 1 it is the three LoRAs. Run again, and the file is found there; change a strength, and a new one is made.
- Its panel tells the share of every LoRA and the error: `fp16` costs what rounding takes, `fp32` nothing.
- **2 Stack LoRAs** takes the merged row like any other. So does every LoRA loader: the file is in its list.
""",
    "5_sdxl_merge_to_a_size": f"""## A merged LoRA of a given size, beside the live stack

Files to download (into ComfyUI's `models/`), those of the example `2_sdxl_multi_lora`:

{SDXL_FILES}

What happens:

- **LoRA Conflicts** shows who works against whom, and the energy by block. `apply_advice` lowers the strengths until
  all together are as strong as the strongest alone.
- **Merge LoRAs** shrinks the sum to 100 MB: ranks are chosen over all layers at once, and its panel says
  what that cost.
- **Sample**: the same prompt and seed with the live stack (left) and with the merged file (right), in one picture.
""",
    "6_sd15_first_try": """## First try: two small files, eight steps

Files to download (into ComfyUI's `models/`), 2.4 GB together; ComfyUI offers them when this opens:

- `checkpoints/v1-5-pruned-emaonly-fp16.safetensors`: Hugging Face, Comfy-Org/stable-diffusion-v1-5-archive.
- `loras/Hyper-SD15-8steps-lora.safetensors`: Hugging Face, ByteDance/Hyper-SD.

Press Run. What happens:

- **1 Fuse** puts Hyper-SD into the untouched weights: eight steps, cfg 1.
- **2 Stack** is empty. Press **+** in **LoRA Stack** and add a LoRA for SD 1.5: its badges say,
  before a run, whether it fits.
- **3 Quantize** rounds to fp8 last, and its panel says how much of every LoRA is left.
""",
    "7_qwen_image_native": f"""## Before: LoRA loaders on weights that are cast to fp8

{QWEN_FILES}

This is how such a workflow is usually built. What is wrong with it stands on the nodes: the weights are rounded to
fp8 first, and what each LoRA adds is rounded once more on top, for every one of them.

**Extensions > LoRA Foundry: Convert LoRA loaders**, or the button on the finding, makes the example
`8_qwen_image_converted` of it. Undo brings this one back.
""",
    "8_qwen_image_converted": f"""## After: the same workflow, converted

{QWEN_FILES}

`convert` made this of the example `7_qwen_image_native`; prompt, seed and steps are what they were:

- **1 Fuse** has the Lightning LoRA, at its strength: the other was put on top of it.
- **LoRA Stack** has the other one, at its strength.
- **3 Quantize** does what `fp8_e4m3fn` of the loader was for, last and with a scale: the report says how much of each
  LoRA is left.
""",
}
