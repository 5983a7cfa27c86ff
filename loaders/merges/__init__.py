"""LoRA files merged into one file, and what such a file tells of its inputs.

Imports every other room but ``lint`` and ``bakes``. Start at ``merging.py``.
"""
