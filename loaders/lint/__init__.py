"""The check of a workflow: its models become stacks for the validator.

Imports ``workflows`` and ``lineage``. Start at ``lint.py``.
"""
