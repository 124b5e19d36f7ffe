"""What is remembered: `base.py` says what, `memory.py` and `sqlite.py` how. The only room that knows SQL."""
