"""A program that keeps an engine and prints its child's process id: to be killed by a test.

Run as `python engine_parent.py CACHE_DIR MODEL`; it ends by itself when its stdin does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from convene.engine.base import EngineSettings, FetchSettings
from convene.engine.files import ModelFolder
from convene.engine.process import Engine


async def main() -> None:
    """Serve until stdin ends."""
    weights = ModelFolder(Path(sys.argv[1]), FetchSettings()).weights(sys.argv[2])
    engine = Engine(weights, "chat", EngineSettings(), token=os.urandom)
    engine.start()
    await engine.wait_ready()
    sys.stdout.write(f"{engine.status().pid}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await engine.aclose()


if __name__ == "__main__":
    asyncio.run(main())
