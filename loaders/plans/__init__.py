"""From a stack document or rows to a plan: paths, settings, what matched.

Imports the rooms that read files and ``lineage``. Start at ``planner.py``.
"""
