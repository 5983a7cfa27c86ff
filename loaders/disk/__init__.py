"""Bytes and text on disk, safely in and out: headers, readers, writers, hashes, temporary names.

The lowest room: imports ``engine`` only. Start at ``header.py`` (in) and ``writer.py`` (out).
"""
