"""Many LoRAs into one: each method one pure function over factors, the re-rank, and the proof. No files.

Imports ``engine`` and its texts. Start at ``run.py`` (a whole merge), then ``deltas.py`` (what one LoRA
adds to a weight).
"""
