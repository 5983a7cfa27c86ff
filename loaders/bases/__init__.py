"""Base models: which tensors of a file are the diffusion model, its family, quantized weights as plain ones.

Imports ``disk``, ``names`` and ``remote``. Start at ``checkpoint.py``.
"""
