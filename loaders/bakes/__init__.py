"""Plans into files: results are written, taken over where they are there already, and kept for the next time.

Imports every other room but ``lint``. Start at ``baking.py``.
"""
