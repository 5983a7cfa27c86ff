"""Many documents: what is to be done, shared out by base, and what became of each, on record.

Imports every other room but ``lint`` and ``merges``. Start at ``unit.py``, which is what a worker does.
"""
