"""What tensors are called: dialects of LoRA files, spellings of base models, blocks.

Imports ``disk``. Start at ``dialects.py`` (how a LoRA file names its parts), then ``tables.py`` (one row a spelling).
"""
