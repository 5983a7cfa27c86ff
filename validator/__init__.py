"""Verdicts: a stack as the rules see it, the rules, their sentences, and what weights alone decide.

Imports ``engine`` only. Start at ``rules.py``, which lists every rule; ``texts.py`` holds every sentence.
"""
