"""`make bench`: every figure beside its bar, as ratios to a yardstick of the same run where speed is concerned.

    python bench/run.py [plain] [streams] [engine] [ledger] [postgres] [limits] [runs] [agentic] [agents] [search]
        [images]

Quiet machine, two cores or more: the gateway has core 0, load and upstream share core 1. Exit code 1 if a bar is
missed, 2 if a yardstick is not installed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import agent_search
import agentic
import agents
import engine
import images
import ledger
import ledger_postgres
import limits
import plain
import runs
import streams
from parts import missing, say

if TYPE_CHECKING:
    from collections.abc import Callable

SECTIONS: dict[str, Callable[[], bool]] = {
    "plain": plain.measure,
    "streams": streams.measure,
    "engine": engine.measure,
    "ledger": ledger.measure,
    "postgres": ledger_postgres.measure,
    "limits": limits.measure,
    "agentic": agentic.measure,
    "agents": agents.measure,
    "search": agent_search.measure,
    "runs": runs.measure,
    "images": images.measure,
}


def main(names: list[str]) -> int:
    """Run the named sections, all when none is named."""
    unknown = sorted(set(names) - SECTIONS.keys())
    if unknown:
        say(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
        return 2
    chosen = names or list(SECTIONS)
    absent = missing(["nginx", "wrk", "h2load", "taskset"]) if "plain" in chosen else missing(["taskset"])
    if absent:
        packages = {"nginx": "nginx-light", "wrk": "wrk", "h2load": "nghttp2-client", "taskset": "util-linux"}
        wanted = " ".join(packages[tool] for tool in absent)
        say(f"not installed: {', '.join(absent)}. On Debian or Ubuntu: apt-get install {wanted}")
        return 2
    holds = True
    for name in chosen:
        say(f"== {name}")
        holds = SECTIONS[name]() and holds
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
