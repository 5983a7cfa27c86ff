"""Files that are on no disk of this machine: their names, who may ask for them, how they are read and kept.

Imports ``disk``. Start at ``names.py``, then ``fetching.py`` (LoRAs, whole) and ``source.py`` (bases, by ranges).
"""
