"""``lora-foundry demo``: a tiny model made on the spot, the right order and the wrong ones; ``--host`` on a ComfyUI.

Start at ``run.py``; ``tiny.py`` makes the models.
"""
