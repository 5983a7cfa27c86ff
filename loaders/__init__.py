"""Files: what is read, understood, planned and baked, one room a subject.

Imports ``validator`` and ``engine``; its rooms only those before them: ``disk``, ``names`` and ``evidence``,
``bases``, ``loras`` and ``workflows``, ``lineage``, ``lint`` and ``plans``, ``bakes``. Start at ``plans/planner.py``.
"""
