"""The gatekeepers that ask nobody: before the keys are open, and where keys are switched off. `app.py` picks one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.errors import Busy
from convene.serving.keyring import LOCAL

if TYPE_CHECKING:
    from convene.serving.base import Principal


class ClosedGate:
    """Nobody yet: the keys are not open before the start."""

    def admit(self, authorization: str | None) -> Principal | None:
        """Refuse."""
        del authorization
        raise Busy("The server is starting.", retry_after_s=1)

    def still(self, principal: Principal) -> bool:
        """Nobody was admitted."""
        del principal
        return False

    async def look_up(self, authorization: str | None) -> Principal:
        """Refuse."""
        self.admit(authorization)
        raise AssertionError("unreachable: admit raises")


class LocalGate:
    """Everybody is the local operator: `auth = "none"`, on loopback only (decisions 20)."""

    def admit(self, authorization: str | None) -> Principal:
        """Admit."""
        del authorization
        return LOCAL

    def still(self, principal: Principal) -> bool:
        """Say yes of the local operator."""
        return principal is LOCAL

    async def look_up(self, authorization: str | None) -> Principal:
        """Admit."""
        return self.admit(authorization)
