"""What the books are grouped by: how a group is written for people and read back from a cursor. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.base_ledger import Filter, GroupBy

COLUMN: Final[dict[GroupBy, str]] = {
    "day": "day",
    "hour": "hour",
    "model": "model",
    "key": "key_id",
    "user": "user_id",
    "team": "team_id",
    "session": "session_id",
    "agent": "agent_address",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORM: Final[dict[str, str]] = {"day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H"}
_LENGTH: Final[dict[str, timedelta]] = {"day": timedelta(days=1), "hour": timedelta(hours=1)}


def needs_entries(which: Filter, by: Sequence[GroupBy]) -> bool:
    """Whether the sums of the days do not tell this apart."""
    return (
        which.session_id is not None
        or which.agent_address is not None
        or any(one in {"hour", "session", "agent"} for one in by)
    )


def shown(by: Sequence[GroupBy], group: Sequence[object]) -> tuple[str, ...]:
    """Return a group as people read it; days and hours are numbers since 1970."""
    return tuple(
        (_EPOCH + value * _LENGTH[one]).strftime(_FORM[one]) if one in _FORM and isinstance(value, int) else str(value)
        for one, value in zip(by, group, strict=True)
    )


def read(by: Sequence[GroupBy], group: Sequence[str]) -> tuple[object, ...]:
    """Return what `shown` wrote as it is compared. Raises ValueError for anything else."""
    return tuple(
        (datetime.strptime(text, _FORM[one]).replace(tzinfo=UTC) - _EPOCH) // _LENGTH[one] if one in _FORM else text
        for one, text in zip(by, group, strict=True)
    )
