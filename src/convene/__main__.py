"""`python -m convene`: the same as the command `convene`."""

from __future__ import annotations

from convene.cli import main

if __name__ == "__main__":
    main()
