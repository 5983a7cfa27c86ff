"""Stack documents and rows as data, and what they call their files; nothing is opened but the document.

Imports ``disk``, ``remote`` and ``bases``. Start at ``document.py``.
"""
