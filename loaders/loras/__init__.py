"""LoRA files: their tensors become adapters, and adapters find the weights of a base.

Imports ``disk``, ``names`` and ``bases``. Start at ``file.py`` (one file), then ``matching.py`` (a file on a base).
"""
