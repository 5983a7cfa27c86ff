"""Numbers on tensors: plan, adapters, fuse, quantize, bake, measure. No files and no verdicts.

Imports nothing of the pack but itself. Start at ``plan.py`` (what is to be done), then ``bake.py`` (how it is done).
"""
