"""What a refusal says: which limit, whose, when to come back; and what kind of error it is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene import errors
from convene.api.problems import detail_of, headers_of, status_of
from convene.limits.limit import DAY_US, MINUTE_US, Limit, Refusal, Unit
from convene.serving.refusals import TOO_LARGE_CODE, duration_words, money_words, refusal_fault, whose_words

TOKENS = Limit.rate(Unit.TOKENS, 20_000, MINUTE_US, scope="key", subject="k1", name="tokens per minute")
SLOTS = Limit.slots(4, scope="team", subject="t1")
DAILY = Limit.budget(Unit.MICROS, 2_500_000, "day", scope="user", subject="u1", name="budget per day")
TOTAL = Limit.budget(Unit.MICROS, 5_000_000, "total", scope="key", subject="k1", name="budget in total")


def refusal(limit: Limit, reason: str, wait_us: int | None) -> Refusal:
    """Return a refusal by one limit."""
    return Refusal(limit, reason, wait_us, 0, (0,))  # type: ignore[arg-type]  # the parameters name real reasons


@pytest.mark.req("LIMIT-02", "OSDK-02", "ERR-05")
def test_a_rate_is_a_429_that_says_which_limit_whose_and_when() -> None:
    fault = refusal_fault(refusal(TOKENS, "wait", 1_450_000))
    assert isinstance(fault, errors.RateLimited)
    assert status_of(fault) == 429
    assert fault.message == "Rate limit reached for this key: 20,000 tokens per minute. Try again in 1.5 s."
    assert (detail_of(fault).type, detail_of(fault).code) == ("rate_limit_error", "rate_limit_exceeded")
    assert headers_of(fault) == [(b"retry-after", b"2"), (b"retry-after-ms", b"1450")]


@pytest.mark.req("OSDK-03", "DEC-10")
def test_a_spent_budget_is_insufficient_quota_and_not_to_be_retried_by_itself() -> None:
    fault = refusal_fault(refusal(DAILY, "spent", 3 * 3_600_000_000 + 1), "USD")
    assert status_of(fault) == 429
    assert (detail_of(fault).type, detail_of(fault).code) == ("insufficient_quota", "insufficient_quota")
    assert fault.message == (
        "This key's user has used up its budget per day of 2.5 USD. "
        "It begins anew with the next day (UTC), in 3 h 1 min."
    )
    assert headers_of(fault) == [
        (b"retry-after", b"10801"),
        (b"retry-after-ms", b"10800001"),
        (b"x-should-retry", b"false"),
    ]


@pytest.mark.req("OSDK-03")
def test_a_spent_total_names_no_time() -> None:
    fault = refusal_fault(refusal(TOTAL, "spent", None))
    assert (
        fault.message
        == "This key has used up its budget in total of 5. Somebody must raise it before this works again."
    )
    assert headers_of(fault) == [(b"x-should-retry", b"false")]


def test_full_slots_ask_for_a_short_wait() -> None:
    fault = refusal_fault(refusal(SLOTS, "full", 1_000_000))
    assert status_of(fault) == 429
    assert fault.message == (
        "This key's team has 4 concurrent requests under way, which is its limit. Try again when one has ended."
    )
    assert (b"retry-after", b"1") in headers_of(fault)
    assert (b"x-should-retry", b"false") not in headers_of(fault)


@pytest.mark.req("OSDK-04")
@pytest.mark.parametrize(
    ("unit", "way_out"),
    [
        (Unit.TOKENS, "Shorten the prompt or lower max_tokens"),
        (Unit.INPUT_TOKENS, "Shorten the prompt"),
        (Unit.OUTPUT_TOKENS, "Lower max_tokens"),
        (Unit.IMAGES, "Ask for fewer images at once"),
        (Unit.REQUESTS, "Ask for less at once"),
    ],
)
def test_what_can_never_fit_is_a_400_that_nobody_repeats(unit: Unit, way_out: str) -> None:
    limit = Limit.rate(unit, 100, MINUTE_US, scope="model", subject="m", name="units per minute")
    fault = refusal_fault(refusal(limit, "never", None))
    assert status_of(fault) == 400
    assert fault.code == TOO_LARGE_CODE
    assert fault.message == (
        "This request alone is above a whole limit of the model m: 100 units per minute. "
        f"{way_out}; waiting does not help."
    )
    assert headers_of(fault) == []


@pytest.mark.req("OSDK-04")
def test_a_request_dearer_than_a_whole_budget_is_quota_without_a_time() -> None:
    fault = refusal_fault(refusal(DAILY, "never", None), "EUR")
    assert isinstance(fault, errors.OverBudget)
    assert fault.message.startswith("This request may cost more than the whole budget per day of this key's user")
    assert "2.5 EUR" in fault.message
    assert headers_of(fault) == [(b"x-should-retry", b"false")]


@pytest.mark.req("OSDK-04")
def test_a_limit_of_nothing_is_a_403() -> None:
    none = Limit.rate(Unit.IMAGES, 0, DAY_US, scope="key", subject="k1", name="images per day")
    fault = refusal_fault(refusal(none, "never", None))
    assert status_of(fault) == 403
    assert fault.message == "This key is allowed nothing of this: its limit of images per day is 0."


@pytest.mark.parametrize(
    ("scope", "subject", "words"),
    [
        ("key", "k1", "this key"),
        ("user", "u1", "this key's user"),
        ("team", "t1", "this key's team"),
        ("model", "asi1", "the model asi1"),
        ("key_model", "k1/org/model", "this key on the model org/model"),
    ],
)
def test_whose_a_limit_is(scope: str, subject: str, words: str) -> None:
    limit = Limit.slots(1, scope=scope, subject=subject)  # type: ignore[arg-type]  # the parameters are scopes
    assert whose_words(limit) == words


@pytest.mark.parametrize(
    ("span_us", "text"),
    [
        (0, "0 ms"),
        (1, "1 ms"),
        (60_000, "60 ms"),
        (1_000_000, "1 s"),
        (1_000_001, "1.1 s"),
        (9_990_000, "10 s"),
        (10_000_001, "11 s"),
        (60_000_000, "1 min"),
        (61_000_000, "1 min 1 s"),
        (3_600_000_000, "1 h"),
        (90_061_000_000, "1 d 1 h 2 min"),
    ],
)
def test_spans_for_people_are_rounded_up(span_us: int, text: str) -> None:
    assert duration_words(span_us) == text


_PART_US = {"ms": 1000, "s": 1_000_000, "min": MINUTE_US, "h": 60 * MINUTE_US, "d": DAY_US}


@given(st.integers(0, 400 * DAY_US))
def test_whoever_waits_as_told_never_comes_too_early(span_us: int) -> None:
    parts = re.findall(r"([0-9.]+) (ms|s|min|h|d)", duration_words(span_us))
    assert round(sum(float(count) * _PART_US[word] for count, word in parts)) >= span_us


@pytest.mark.req("LIMIT-02", "OSDK-05")
@given(st.integers(1, 400 * DAY_US))
def test_retry_after_is_never_early_never_a_second_late_and_both_forms_agree(wait_us: int) -> None:
    """Goal A6."""
    found = dict(headers_of(refusal_fault(refusal(TOKENS, "wait", wait_us))))
    seconds, millis = int(found[b"retry-after"]), int(found[b"retry-after-ms"])
    assert wait_us <= seconds * 1_000_000 < wait_us + 1_000_000
    assert wait_us <= millis * 1000 < wait_us + 1000
    assert seconds == -(-millis // 1000)


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0"), (1, "0.000001"), (250_000, "0.25"), (1_234_000_000, "1,234"), (-3_500_000, "-3.5")],
)
def test_money_is_written_without_needless_zeros(micros: int, text: str) -> None:
    assert money_words(micros) == text
    assert money_words(micros, "USD") == f"{text} USD"
