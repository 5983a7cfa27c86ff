"""Workflows of native LoRA loaders made into fuse -> stack -> validate -> quantize or apply; nothing runs.

Imports ``workflows``, ``loras`` and ``lint``. Start at ``convert.py``; ``kinds.py`` lists what can be taken apart.
"""
