"""Through how many agents a question has been, and whom it may not be taken to, so that agents do not go in circles.

    question ──► read_hops ──► fault(agent) ──► "" ──► onward ──► write_hops ──► the next agent
                                  └──► why not: it leads back, or it has come too far

The list travels with a question: as a metadata content of a chat message (`ACP_KEY`), as metadata of an A2A message and
`_meta` of an MCP request (`KEY`), as a header of an HTTP request (`HEADER`). Whoever sends it can leave it out or make
it up, so it only ever forbids; what does not pass it on is bounded by rate (`agents/responder.py`). Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER: Final = "x-convene-hops"
KEY: Final = "convene/hops"
ACP_KEY: Final = "convene-hops"
DEPTH: Final = 4
"""How many agents a question passes through unless the operator says otherwise."""
HOPS_MAX: Final = 16
"""More are not read: no depth is larger."""
HOP_MAX: Final = 300
"""Characters of an address or a URL; a longer one is cut, and still counts."""
TEXT_MAX: Final = HOPS_MAX * (HOP_MAX + 2)

HERE_BEFORE: Final = "This question has been here before, so no agent is asked for it again."
TOO_FAR: Final = "This question has passed through {hops} agents already, which is the most that this server allows."
LEADS_BACK: Final = "This question has come from or through this agent, so it is not asked back."


def read_hops(text: object) -> tuple[str, ...]:
    """Return the hops that somebody states, first to last; whatever it is, it is read as far as it makes sense."""
    if not isinstance(text, str):
        return ()
    cut = text[:TEXT_MAX].split(",")
    hops = ("".join(letter for letter in hop if letter.isprintable()).strip()[:HOP_MAX] for hop in cut)
    return tuple(hop for hop in hops if hop)[:HOPS_MAX]


def write_hops(hops: Sequence[str]) -> str:
    """Return hops as they travel: one line of ASCII that `read_hops` reads."""
    return ", ".join(_plain(hop) for hop in hops[:HOPS_MAX])


def onward(hops: Sequence[str], caller: str, me: str) -> tuple[str, ...]:
    """Return the hops that go on with a question: those that came with it, who has asked it, and ourselves."""
    found = list(hops)
    for one in (caller, me):
        if one and (not found or found[-1] != one):
            found.append(one)
    return tuple(found)


def fault(hops: Sequence[str], caller: str, me: str, agent: str, depth: int = DEPTH) -> str:
    """Return why an agent is not asked for a question that came this way, in words for people; empty: it may be.

    Args:
        hops: as they came with the question.
        caller: who has asked it: an agent's address, or empty.
        me: our own address.
        agent: whom to ask, by address or URL.
        depth: the most agents that a question passes through, this server included.
    """
    if me and me in hops:
        return HERE_BEFORE
    way = onward(hops, caller, me)
    if agent in way:
        return LEADS_BACK
    return TOO_FAR.format(hops=len(way)) if len(way) > depth else ""


def _plain(hop: str) -> str:
    """Return a hop without what separates hops, and without what a header cannot hold."""
    return "".join(letter if " " < letter <= "~" and letter != "," else f"%{ord(letter):02X}" for letter in hop)
