"""The sites that a request names in `web_search_options.filters`: for its searches, and for the pages it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.tools.search_clean import domain, is_within
from convene.tools.search_http import field, text

if TYPE_CHECKING:
    from collections.abc import Mapping

DOMAINS_MAX: Final = 20


class Filters(msgspec.Struct, frozen=True):
    """Domains; none allowed means any."""

    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Filters:
        """Read `filters` as OpenAI's Responses API has them; what is no domain is left out."""
        blocked = {*_listed(options, "blocked_domains"), *_listed(options, "excluded_domains")}
        return cls(_listed(options, "allowed_domains"), tuple(sorted(blocked)))

    def allow(self, host: str) -> bool:
        """Whether pages of this host may be read."""
        if self.allowed and not is_within(host, self.allowed):
            return False
        return not is_within(host, self.blocked)


def _listed(options: Mapping[str, object], name: str) -> tuple[str, ...]:
    names = field(options.get("filters"), name)
    found = (domain(text(one)) for one in names[:DOMAINS_MAX]) if isinstance(names, list) else ()
    return tuple(sorted({one for one in found if one}))
