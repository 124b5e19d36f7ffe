"""What the parts of the store in memory have in common: each is open until it is closed."""

from __future__ import annotations

from convene.errors import StoreFault


class MemoryPart:
    """A part that says so when it is asked after its end."""

    _open = True

    def close(self) -> None:
        """Take no more questions; what a part holds it forgets itself."""
        self._open = False

    def _check_open(self) -> None:
        """Raise `StoreFault` once it is closed."""
        if not self._open:
            raise StoreFault("The store is closed.")
