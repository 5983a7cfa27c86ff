"""What is known of a LoRA, who says so, and where that is kept.

Imports the rooms that read files. Start at ``provenance.py``; ``accelerators.json`` lists the known accelerators.
"""
