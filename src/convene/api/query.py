"""The query of an address, read strictly: each parameter once, of its kind, within its bounds (ERRSHAPE-03, 06).

Parameters that an endpoint does not know are ignored, as fields of a body are (invariant 7). Every fault names the
parameter. `Parameter` describes one for the API description.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import msgspec

from convene.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.api.call import Call

QUERY_BYTES_MAX: Final = 8192
TEXT_MAX: Final = 512
"""Longest value of one parameter, in characters."""
PARAMETERS_MAX: Final = 32


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter in the query, as the API description tells of it."""

    name: str
    about: str
    enum: tuple[str, ...] = ()
    is_list: bool = False
    """Several values of `enum`, joined by commas."""
    least: int | None = None
    most: int | None = None
    """With `least`, the bounds of a whole number."""


class Query:
    """The parameters of one request."""

    def __init__(self, given: dict[str, str]) -> None:
        self._given = given

    @classmethod
    def of(cls, call: Call) -> Query:
        """Read a call's query. Raises `BadRequest` if it is too long, not UTF-8, or names a parameter twice."""
        raw: bytes = call.scope.get("query_string", b"")
        if len(raw) > QUERY_BYTES_MAX:
            raise BadRequest(f"The query is longer than {QUERY_BYTES_MAX} bytes.", code="invalid_query")
        try:
            pairs = parse_qsl(
                raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX
            )
        except ValueError:
            message = f"The query is not percent-encoded UTF-8 of at most {PARAMETERS_MAX} parameters."
            raise BadRequest(message, code="invalid_query") from None
        given: dict[str, str] = {}
        for name, value in pairs:
            if name in given:
                raise BadRequest(f"{name[:40]} is given twice.", param=name[:40])
            given[name] = value
        return cls(given)

    def texts(self) -> dict[str, str]:
        """Return all parameters as they came."""
        return dict(self._given)

    def text(self, name: str, most: int = TEXT_MAX) -> str | None:
        """Return a parameter's text; None if it is absent or empty. Raises `BadRequest` if it is too long."""
        found = self._given.get(name, "")
        if len(found) > most or "\0" in found:
            raise BadRequest(f"{name} must be a text of at most {most} characters, without NUL.", param=name)
        return found or None

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number within bounds; the default only if there is none at all. Raises `BadRequest`."""
        if name not in self._given:
            return default
        found = self._given[name]
        if not (found.isascii() and found.isdigit() and len(found) <= len(str(most)) and least <= int(found) <= most):
            raise BadRequest(f"{name} must be a whole number from {least} to {most}.", param=name)
        return int(found)

    def choice(self, name: str, default: str, choices: Sequence[str]) -> str:
        """Return one of some words; the default only if there is none at all. Raises `BadRequest`."""
        if name not in self._given:
            return default
        found = self._given[name]
        if found not in choices:
            raise BadRequest(f"{name} must be one of: {', '.join(choices)}.", param=name)
        return found

    def choices(self, name: str, choices: Sequence[str]) -> tuple[str, ...]:
        """Return some words of several, joined by commas, each at most once; empty if absent. Raises `BadRequest`."""
        if name not in self._given:
            return ()
        found = tuple(part.strip() for part in (self.text(name) or "").split(","))
        if not set(found) <= set(choices) or len(set(found)) != len(found):
            message = f"{name} must be one or more of {', '.join(choices)}, joined by commas, each once."
            raise BadRequest(message, param=name)
        return found
