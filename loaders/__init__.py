"""Bytes in, bytes out: checkpoints, shards, LoRA dialects, key names, documents, the writer. No ComfyUI."""
