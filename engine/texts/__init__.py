"""Every sentence of a finding: ``lf1.py`` LF1xx, ``lf2.py`` LF2xx, ``lf3.py`` LF3xx, ``lf4.py`` LF4xx.

They lie in the lowest room because engine, validator and loaders all speak. Imports ``findings``. Start at ``say.py``.
"""
