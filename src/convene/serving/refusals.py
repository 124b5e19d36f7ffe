"""What is said to somebody whom a limit refuses: which limit, for which scope, when to come back (LIMIT-02, OSDK-02).

    wait   a rate            RateLimited  rate_limit_exceeded      exact time
    full   slots             RateLimited  rate_limit_exceeded      a short guess
    spent  a budget          OverBudget   insufficient_quota       exact time; a total budget has none (decisions 10)
    never  above the whole   a 400 that no client repeats          no time: waiting is pointless (reliability 1.1)

Pure words over `limits.limit.Refusal`. `api/problems.py` gives them a status and the exact `Retry-After`; an
`OverBudget` tells clients not to try again by themselves (OSDK-03). Not here: who decides (`store/`, `limits/`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.errors import BadRequest, ConveneError, Forbidden, OverBudget, RateLimited
from convene.limits.limit import Unit
from convene.moments import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.limits.limit import Limit, Period, Refusal

TOO_LARGE_CODE: Final = "request_above_limit"
"""Our word for a request that is dearer than a whole limit: it can be made smaller, but never waits its way in."""
MICROS: Final = 1_000_000

_NEXT: Final[Mapping[Period, str]] = {
    "day": "It begins anew with the next day (UTC)",
    "month": "It begins anew with the next month (UTC)",
}
_WAY_OUT: Final[Mapping[Unit, str]] = {
    Unit.TOKENS: "Shorten the prompt or lower max_tokens",
    Unit.INPUT_TOKENS: "Shorten the prompt",
    Unit.OUTPUT_TOKENS: "Lower max_tokens",
    Unit.IMAGES: "Ask for fewer images at once",
}


def refusal_fault(refusal: Refusal, currency: str = "") -> ConveneError:
    """Return the error of a refusal, to be raised by whoever asked for admission.

    `currency` is the price table's (`USD`); money is shown in it, not in micro-units.
    """
    limit = refusal.limit
    if refusal.reason == "never":
        return _never(limit, currency)
    wait_us = refusal.wait_us
    retry_after_s = None if wait_us is None else wait_us / SECOND_US
    whose = whose_words(limit)
    if refusal.reason == "spent":
        message = f"{_capital(whose)} has used up its {limit.name} of {amount_words(limit, currency)}."
        if wait_us is not None:
            message += f" {_NEXT.get(limit.period, 'It begins anew')}, in {duration_words(wait_us)}."
        else:
            message += " Somebody must raise it before this works again."
        return OverBudget(message, retry_after_s=retry_after_s)
    if refusal.reason == "full":
        message = (
            f"{_capital(whose)} has {amount_words(limit, currency)} {limit.name} under way, which is its limit. "
            "Try again when one has ended."
        )
        return RateLimited(message, retry_after_s=retry_after_s)
    message = f"Rate limit reached for {whose}: {amount_words(limit, currency)} {limit.name}."
    return RateLimited(f"{message} Try again in {duration_words(wait_us or 0)}.", retry_after_s=retry_after_s)


def whose_words(limit: Limit) -> str:
    """Return whose limit it is, in words for whoever holds the key."""
    match limit.scope:
        case "key":
            return "this key"
        case "user":
            return "this key's user"
        case "team":
            return "this key's team"
        case "model":
            return f"the model {limit.subject}"
        case "key_model":
            return f"this key on the model {limit.subject.partition('/')[2]}"


def amount_words(limit: Limit, currency: str = "") -> str:
    """Return a limit's amount for people: `20,000`, or `5 USD` for money."""
    if limit.unit is not Unit.MICROS:
        return f"{limit.amount:,}"
    return money_words(limit.amount, currency)


def money_words(micros: int, currency: str = "") -> str:
    """Return micro-units as an amount without needless zeros: `0.25 USD`, `-3`."""
    sign = "-" if micros < 0 else ""
    whole, part = divmod(abs(micros), MICROS)
    text = f"{sign}{whole:,}" + (f".{part:06d}".rstrip("0") if part else "")
    return f"{text} {currency}" if currency else text


def duration_words(span_us: int) -> str:
    """Return a span for people, rounded up, so that nobody who waits so long comes too early: `60 ms`, `2 h 5 min`."""
    if span_us < SECOND_US:
        return f"{-(-span_us // 1000)} ms"
    if span_us <= 10 * SECOND_US:
        tenths = -(-span_us // 100_000)
        return f"{tenths // 10}.{tenths % 10} s" if tenths % 10 else f"{tenths // 10} s"
    seconds = -(-span_us // SECOND_US)
    if seconds < 60:  # noqa: PLR2004 -- seconds of a minute
        return f"{seconds} s"
    if seconds < 3600:  # noqa: PLR2004 -- seconds of an hour
        minutes, rest = divmod(seconds, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = -(-seconds // 60)
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"))
    return " ".join(f"{count} {word}" for count, word in parts if count)


def _never(limit: Limit, currency: str) -> ConveneError:
    whose = whose_words(limit)
    amount = amount_words(limit, currency)
    if limit.amount == 0:
        return Forbidden(f"{_capital(whose)} is allowed nothing of this: its limit of {limit.name} is 0.")
    if limit.kind == "budget":
        message = (
            f"This request may cost more than the whole {limit.name} of {whose}, which is {amount}. "
            "Shorten the prompt, lower max_tokens, or ask a cheaper model."
        )
        return OverBudget(message)
    way_out = _WAY_OUT.get(limit.unit, "Ask for less at once")
    message = (
        f"This request alone is above a whole limit of {whose}: {amount} {limit.name}. {way_out}; "
        "waiting does not help."
    )
    return BadRequest(message, code=TOO_LARGE_CODE)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
