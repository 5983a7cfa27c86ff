"""How a LoRA was trained, parsed from scripts, logs, configs, sidecars and metadata; never grepped.

Imports ``disk``. Start at ``reading.py``; a claim is built in ``claims.py``.
"""
