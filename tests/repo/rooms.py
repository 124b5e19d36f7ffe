"""Who may see what of whom: the part of the plan that import-linter's layers cannot say.

`.importlinter` holds the direction (one way down, rooms of one floor apart). Here: a room is seen through its `base.py`
alone, the rooms that import nothing of ours do so, and every part of the package has its place on a floor.
"""

from __future__ import annotations

import configparser
import re
from typing import TYPE_CHECKING, Final

from repo.modules import PACKAGE, Finding, Module, own_imports

if TYPE_CHECKING:
    from collections.abc import Iterator

SEES_ALL: Final = frozenset(
    {
        *(
            "app",
            "app_agent",
            "app_agents",
            "app_agent_search",
            "app_market",
            "app_answering",
            "app_books",
            "app_callers",
            "app_egress",
            "app_fees",
            "app_mcp",
            "app_mcp_agents",
            "app_images",
            "app_metrics",
            "app_models",
            "app_search",
            "app_serve",
            "app_tools",
            "app_channel",
            "app_worker",
            "app_workers",
        ),
        *(
            "cli",
            "cli_doctor",
            "cli_keys",
            "cli_models",
            "cli_output",
            "cli_store",
            "cli_upkeep",
            "cli_usage",
            "__main__",
        ),
        *("app_accounts", "app_runs", "cli_agents", "cli_runs", "cli_store", "cli_users"),
    }
)
"""The composition root and the command line, which starts it."""

FACED: Final = frozenset({"providers", "tools", "agents", "registry", "store", "engine", "http", "serving"})
"""Rooms with a `base.py` that is all the others see. `api` is seen by nobody; `limits` is pure arithmetic."""

ALONE: Final = frozenset({"engine", "http"})
"""Rooms that import nothing of ours but themselves: they could be packages of their own."""


def _room(name: str) -> str:
    """Return the room or flat module of a dotted name of ours; empty for the package itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def _is_face(name: str) -> bool:
    """Whether a module of a room is `base.py` or one of the `base_*.py` that it is divided into."""
    inner = name.split(".")[2:3]
    return inner == ["base"] or (bool(inner) and inner[0].startswith("base_"))


def faces(module: Module) -> Iterator[Finding]:
    """Find imports that go past a room's base.py."""
    home = _room(module.name)
    if home in SEES_ALL:
        return
    for statement, name in own_imports(module):
        room = _room(name)
        if room != home and room in FACED and not _is_face(name):
            yield module.finding(statement, f"imports {name}: {room}/ is seen through its base*.py alone")


def loners(module: Module) -> Iterator[Finding]:
    """Find imports of ours in rooms that have none."""
    home = _room(module.name)
    if home not in ALONE:
        return
    for statement, name in own_imports(module):
        if _room(name) != home:
            yield module.finding(statement, f"imports {name}: {home}/ imports nothing of ours")


def floors(contract: str) -> frozenset[str]:
    """Return the names that the layers of an import-linter file place on a floor."""
    parser = configparser.ConfigParser()
    parser.read_string(contract)
    layers = parser["importlinter:contract:floors"]["layers"]
    return frozenset(re.findall(r"\w+", layers))


def unplaced(modules: list[Module], contract: str) -> list[Finding]:
    """Return a finding for each room or flat module that stands on no floor."""
    placed = floors(contract)
    found: dict[str, Finding] = {}
    for module in modules:
        room = _room(module.name)
        if room and room not in placed:
            where = f"{PACKAGE}{room} has no floor in .importlinter"
            found.setdefault(room, module.finding(1, where))
    return list(found.values())
