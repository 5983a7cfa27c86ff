"""A workflow of ComfyUI in any form as one graph, and its models followed from loader to sampler.

Imports ``disk`` and ``names``. Start at ``reading.py``, then ``tracing.py``; ``node_kinds.py`` lists what it knows.
"""
