"""Who generates: the seam in `base.py`, then one module per dialect. Only this room knows vendors."""
