"""``lora-foundry benchmark``: what the orders people argue about cost and keep, measured on this machine.

Start at ``run.py``; each strategy is one row of ``strategies.py``.
"""
