"""Verdicts: a stack as the rules see it, the rules, and what weights alone decide.

Imports ``engine`` only. Start at ``rules.py``, which lists every rule; their sentences lie in ``engine/texts``.
"""
