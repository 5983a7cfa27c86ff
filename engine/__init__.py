"""The maths on tensors: plan, adapters, fuse, quantize, bake, rules. No files, no ComfyUI."""
