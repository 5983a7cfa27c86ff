"""The processes and machines that work through a batch, and the loop that loses no document when one of them dies.

Imports ``loaders`` and below. Start at ``loop.py``.
"""
