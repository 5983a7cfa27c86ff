"""The command ``lora-foundry``: one file a group of verbs, ``demo/`` and ``benchmark/`` with rooms of their own.

Imports ``loaders``, ``validator`` and ``engine``, never ``nodes``. Start at ``main.py``, which lists the verbs.
"""
