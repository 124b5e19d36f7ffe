"""What is remembered: `base*.py` say what, the others how. The only room that knows SQL."""
