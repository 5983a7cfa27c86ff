"""Every sentence of a finding: ``lf1.py`` LF1xx, ``lf2.py`` LF2xx, ``lf3.py`` LF3xx (``lf304.py``: LF304), and so on.

They lie in the lowest room because engine, validator and loaders all speak. Imports ``findings`` and ``errors``, the
two things a text becomes. Start at ``say.py``.
"""
