"""Files: what is read, understood, planned and baked, one room a subject.

Imports ``validator`` and ``engine``; its rooms only those before them: ``disk``, ``names``, ``evidence`` and
``remote``, ``bases``, ``documents``, ``loras`` and ``workflows``, ``lineage``, ``lint`` and ``plans``, ``bakes`` and
``merges``.
Start at ``plans/planner.py``.
"""
