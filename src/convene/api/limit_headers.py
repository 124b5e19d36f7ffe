"""Limits as header fields: what a caller is allowed, what is left, when more comes. Pure; on the path of every answer.

    x-ratelimit-{limit,remaining,reset}-{requests,tokens}   OpenAI's: the tightest limit of each (OSDK-09, LIMIT-03)
    ratelimit-policy, ratelimit                             draft-ietf-httpapi-ratelimit-headers-10, structured

OpenAI's `reset` is the time until the limit is whole again, as a duration such as `60ms`, `1s`, `6m0s`, rounded up. A
bare `x-ratelimit-reset` is never sent, as clients disagree on its unit (LIMIT-03). If a caller has no limit on tokens
as such, those on input or output tokens stand in for it.

`RateLimit-Policy` names every rate and every limit on concurrency: `q` its amount, `w` its window in seconds, `qu` its
unit; tokens and images have units of our own (`convene-tokens`), because none is registered. `RateLimit` has what is
left (`r`) of the tightest for requests and for tokens, and `t`, the seconds until more is made available: the next
unit, as a rate refills steadily; no `t` for a limit that is whole. A refusal also has the limit that refused, and `t`
only there, so that `Retry-After`, which is as long as the longest wait, never is earlier than a `t` beside it. Budgets
of money are not in headers; `GET /v1/limits` has them. A limit above 999,999,999,999,999, which no structured integer
can say, is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from convene.limits.limit import Limit, Unit
from convene.moments import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from convene.api.problems import Header
    from convene.limits.limit import Refusal

INTEGER_MAX: Final = 999_999_999_999_999
"""The largest integer of a structured field (RFC 9651, 3.3.1)."""
CACHED_MAX: Final = 1024
"""So many tuples of limits are kept ready at once; one for each kind of caller."""

_UNITS: Final[Mapping[Unit, bytes]] = {
    Unit.REQUESTS: b"",
    Unit.TOKENS: b';qu="convene-tokens"',
    Unit.INPUT_TOKENS: b';qu="convene-input-tokens"',
    Unit.OUTPUT_TOKENS: b';qu="convene-output-tokens"',
    Unit.IMAGES: b';qu="convene-images"',
    Unit.SLOTS: b';qu="concurrent-requests"',
}
_FAR: Final = 1 << 62
_MILLIS: Final = tuple(f"{n}ms" for n in range(1000))
_SECONDS: Final = tuple(f"{n}s" for n in range(60))
"""Nearly every reset is one of these, and to look a text up takes a quarter of what writing it does."""

_Shown: TypeAlias = "tuple[Header, bytes, bytes, Limit, tuple[str, str, str]]"
"""What is said of a rate: the header of its amount; its name; if a unit comes back within a second, so that `t` is
always 1, the template of its item in `RateLimit`; the limit itself; and for `lines` the texts before what is left,
before the reset and before what is left in `RateLimit`, each with the end of the field before it."""
_Rate: TypeAlias = "tuple[int, int, int, int, _Shown]"
"""Its place among the limits, `window_us`, `step`, `per`, what is said of it. Plain tuples unpack the fastest."""
_Group: TypeAlias = "tuple[tuple[_Rate, ...], bytes, bytes]"
"""The rates of which the tightest is shown, and the names for what is left and for the reset."""


class LimitHeaders:
    """The header fields of one tuple of limits; `granted` and `refused` fill in what is left."""

    __slots__ = ("_groups", "_limits", "_policy", "_policy_line")

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = tuple(limits)
        shown = [(place, limit) for place, limit in enumerate(self._limits) if _can_be_said(limit)]
        requests = _group(shown, {Unit.REQUESTS}, "requests", is_first=True)
        first = not requests[0]
        tokens = _group(shown, {Unit.TOKENS}, "tokens", is_first=first)
        if not tokens[0]:
            tokens = _group(shown, {Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS}, "tokens", is_first=first)
        self._groups = tuple(group for group in (requests, tokens) if group[0])
        policies = b", ".join(_policy_of(limit) for _, limit in shown)
        self._policy: list[Header] = [(b"ratelimit-policy", policies)] if policies else []
        self._policy_line = f"ratelimit-policy: {policies.decode()}" if policies else ""

    def granted(self, now_us: int, states: Sequence[int]) -> list[Header]:
        """Return the fields of an answer; `now_us` and `states` as in `limits.limit.Grant`.

        Unrolled for speed (2 us for six limits): every answer passes here.
        """
        headers = self._policy.copy()
        items = []
        for rates, remaining, reset in self._groups:
            left = _FAR
            for place, window_us, step, per, shown in rates:
                behind_us = states[place] - now_us
                room = (window_us - behind_us if behind_us > 0 else window_us) * per // step
                if room < left:
                    left, tightest, until_whole_us = room, shown, behind_us
            limit_header, name, steady_item, limit, _ = tightest
            if until_whole_us <= 0:
                items.append(b"%b;r=%d" % (name, left))
            elif left >= 0 and steady_item:
                items.append(steady_item % left)
            else:
                left = max(left, 0)
                items.append(b"%b;r=%d;t=%d" % (name, left, _next_s(limit, left, until_whole_us)))
            headers += (limit_header, (remaining, b"%d" % left), (reset, duration(until_whole_us)))
        if items:
            headers.append((b"ratelimit", b", ".join(items)))
        return headers

    def lines(self, now_us: int, states: Sequence[int]) -> bytes:
        """Return the fields of `granted` as they leave, each with its end: the same in a quarter of the time.

        Text, not bytes, while it is put together: CPython formats an integer into a text several times faster.
        """
        text, items = self._policy_line, ""
        for rates, _, _ in self._groups:
            left = _FAR
            for place, window_us, step, per, shown in rates:
                behind_us = states[place] - now_us
                room = (window_us - behind_us if behind_us > 0 else window_us) * per // step
                if room < left:
                    left, tightest, until_whole_us = room, shown, behind_us
            before_left, before_reset, before_item = tightest[4]
            if until_whole_us <= 0:
                said = str(left)  # once, for it stands in both
                text = f"{text}{before_left}{said}{before_reset}0s"
                items = f"{items}{before_item}{said}"
                continue
            if left < 0:
                left = 0
                next_s = f";t={_next_s(tightest[3], 0, until_whole_us)}"
            else:
                next_s = ";t=1" if tightest[2] else f";t={_next_s(tightest[3], left, until_whole_us)}"
            said = str(left)
            text = f"{text}{before_left}{said}{before_reset}{_spoken(until_whole_us)}"
            items = f"{items}{before_item}{said}{next_s}"
        return f"{text}{items}\r\n".encode() if text else b""

    def refused(self, refusal: Refusal) -> list[Header]:
        """Return the fields of a refusal: what is left, and when the limit that refused has more."""
        now_us, states, limit = refusal.now_us, refusal.states, refusal.limit
        headers = self.granted(now_us, states)
        items = {}
        if headers and headers[-1][0] == b"ratelimit":
            headers.pop()
            for rates, _, _ in self._groups:
                left, name = min((self._left(rate[0], refusal), rate[4][1]) for rate in rates)
                items[name] = b"%b;r=%d" % (name, left)
        if _can_be_said(limit):
            name = _name_of(limit)
            items[name] = b"%b;r=%d" % (name, self._left(self._limits.index(limit), refusal))
            if refusal.wait_us is not None:
                items[name] += b";t=%d" % -(-refusal.wait_us // SECOND_US)
        if items:
            headers.append((b"ratelimit", b", ".join(items.values())))
        return headers

    def _left(self, place: int, refusal: Refusal) -> int:
        limit, state = self._limits[place], refusal.states[place]
        if limit.kind == "slots":
            return max(0, limit.amount - state)
        return max(0, (limit.window_us - max(0, state - refusal.now_us)) * limit.per // limit.step)


class ReadyHeaders:
    """Keeps the `LimitHeaders` of the tuples of limits that are in use, found by the tuple's identity."""

    def __init__(self) -> None:
        self._ready: dict[int, tuple[Sequence[Limit], LimitHeaders]] = {}

    def of(self, limits: tuple[Limit, ...]) -> LimitHeaders:
        """Return those of `limits`; the same tuple is looked up in well under a microsecond, an equal one is not."""
        found = self._ready.get(id(limits))
        if found is not None and found[0] is limits:
            return found[1]
        if len(self._ready) >= CACHED_MAX:
            self._ready.clear()
        made = LimitHeaders(limits)
        self._ready[id(limits)] = (limits, made)
        return made


def duration(span_us: int) -> bytes:
    """Return a span as OpenAI writes it, rounded up: `0s`, `60ms`, `1s`, `6m0s`, `24h0m0s`."""
    return _spoken(span_us).encode("ascii")


def _spoken(span_us: int) -> str:
    if span_us <= 0:
        return "0s"
    millis = (span_us + 999) // 1000
    if millis < 1000:  # noqa: PLR2004 -- a second
        return _MILLIS[millis]
    seconds = (span_us + 999_999) // SECOND_US
    if seconds < 60:  # noqa: PLR2004 -- a minute
        return _SECONDS[seconds]
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:  # noqa: PLR2004 -- an hour
        return f"{minutes}m{seconds}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s"


def _can_be_said(limit: Limit) -> bool:
    return limit.kind != "budget" and limit.amount <= INTEGER_MAX


def _group(limits: Iterable[tuple[int, Limit]], units: Container[Unit], word: str, *, is_first: bool) -> _Group:
    before_name = "\r\nratelimit: " if is_first else ", "
    rates = tuple(
        _rate_of(place, limit, word, before_name)
        for place, limit in limits
        if limit.kind == "rate" and limit.unit in units
    )
    return rates, f"x-ratelimit-remaining-{word}".encode(), f"x-ratelimit-reset-{word}".encode()


def _rate_of(place: int, limit: Limit, word: str, before_name: str) -> _Rate:
    name = _name_of(limit)
    header = (f"x-ratelimit-limit-{word}".encode(), b"%d" % limit.amount)
    steady_item = name + b";r=%d;t=1" if limit.step <= limit.per * SECOND_US else b""
    before_left = f"\r\nx-ratelimit-limit-{word}: {limit.amount}\r\nx-ratelimit-remaining-{word}: "
    texts = (before_left, f"\r\nx-ratelimit-reset-{word}: ", f"{before_name}{name.decode()};r=")
    return place, limit.window_us, limit.step, limit.per, (header, name, steady_item, limit, texts)


def _name_of(limit: Limit) -> bytes:
    """Return a limit's name in both fields: whose and what, which is unique among the limits of one request."""
    return f'"{limit.scope}-{limit.name}"'.replace(" ", "-").encode()


def _policy_of(limit: Limit) -> bytes:
    policy = b"%b;q=%d%b" % (_name_of(limit), limit.amount, _UNITS[limit.unit])
    return policy if limit.kind == "slots" else b"%b;w=%d" % (policy, -(-limit.window_us // SECOND_US))


def _next_s(limit: Limit, left: int, until_whole_us: int) -> int:
    """Return the seconds, rounded up, until a rate that is not whole has one unit more than `left`."""
    if not limit.amount:
        return -(-limit.window_us // SECOND_US)
    room_us = limit.window_us - until_whole_us
    return -(-(-(-(left + 1) * limit.step // limit.per) - room_us) // SECOND_US)
