"""What a killed run has used, by its journal: exact for rounds that ended, as reserved for one under way. Pure.

The first holder of a run enters its use under the turn's id, each later one under `<turn>-r<fence>`; a step belongs to
the holder that wrote it last. An entry is made before anybody goes on with the run, so no step changes hands unseen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from convene.serving.bookkeeping import entry_of_orphan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convene.store.base_ledger import Entry, Intent
    from convene.store.base_runs import Run, Step

_RESUMED: Final = re.compile(r"(.+)-r([0-9]+)").fullmatch
_TOOLS: Final = frozenset({"search", "fetch", "tool"})


def entry_id(turn_id: str, fence: int) -> str:
    """Return the id under which a holder of a run is in the books."""
    return turn_id if fence == 1 else f"{turn_id}-r{fence}"


def turn_of(wanted: str) -> tuple[str, int]:
    """Return the turn and the fence behind an id of the books."""
    match = _RESUMED(wanted)
    return (wanted, 1) if match is None else (match[1], int(match[2]))


def entry_of_killed(intent: Intent, run: Run, rows: Iterable[Step]) -> Entry:
    """Return the entry of a holder that was killed; `rows` are all of the run's, as it left them."""
    _, fence = turn_of(intent.id)
    mine = [row for row in rows if row.fence == fence]
    under_way = sum(row.reserved_tokens for row in mine)
    ended = [row for row in mine if row.status in {"done", "failed"}]
    return msgspec.structs.replace(
        entry_of_orphan(intent),
        prompt_tokens=sum(row.prompt_tokens for row in mine),
        completion_tokens=sum(row.completion_tokens for row in mine) + under_way,
        cost_micros=sum(row.cost_micros + row.reserved_micros for row in mine),
        tool_calls=sum(row.kind in _TOOLS for row in ended),
        agent_calls=sum(row.kind == "agent" for row in ended),
        images=0,
        estimated=under_way > 0,
        finish="resumed" if run.status == "running" else run.status,
    )
