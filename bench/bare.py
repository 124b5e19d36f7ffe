"""Convene without limits and ledger, for the benchmark that says what they cost; takes the same environment."""

from __future__ import annotations

import sys

from convene.app_serve import serve
from convene.config import load_here
from convene.serving.admission import Open

if __name__ == "__main__":
    sys.exit(serve(load_here({}), Open()))
