"""Agents that ask without a key: who they are to limits, ledger and sessions, by the address that they have proved.

    agent1q... ──► Principal: its own key id and owner, the limits of a plan; all of them are one team with limits too

An address costs nothing to make, so what one may do says nothing of what all may: hence the team. The key id says all
that there is to know, so a run is taken up again after a restart, and the past counts, like anybody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from convene.serving.base import Principal

if TYPE_CHECKING:
    from convene.limits.allowance import Allowance

PREFIX: Final = "agent:"
"""Before an address: the key id of an agent. No key's id has a colon."""
TEAM: Final = "agents"
"""Whose members all of them are. No team's id is so short."""


class AgentCallers:
    """Knows who agents without a key are."""

    def __init__(self, plan: str, together: Allowance) -> None:
        """`plan` is whose limits apply to each, `together` are the limits of all."""
        self._plan = plan
        self._together = together

    def of(self, address: str) -> Principal:
        """Return who an agent is, of whom the address is proved."""
        key_id = f"{PREFIX}{address}"
        return Principal(
            key_id=key_id,
            owner=key_id,
            name=address,
            plan=self._plan,
            scopes=("api",),
            user_id=address,
            team_id=TEAM,
            team_limits=self._together,
        )

    def holder(self, key_id: str) -> Principal | None:
        """Return who is behind a key id; None: it is no agent's."""
        return self.of(key_id.removeprefix(PREFIX)) if key_id.startswith(PREFIX) else None


class KnownCallers(Mapping[str, Principal]):
    """Who is behind every key id: those of keys, and of any agent that was ever here."""

    def __init__(self, keys: Mapping[str, Principal], agents: AgentCallers) -> None:
        self._keys = keys
        self._agents = agents

    def __getitem__(self, key_id: str) -> Principal:
        found = self._keys.get(key_id) or self._agents.holder(key_id)
        if found is None:
            raise KeyError(key_id)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
