"""From the wire to values and back: money, pages, what is shown and what never is."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import UNSET

from convene.api.accounts_wire import (
    account_of,
    address_of_link,
    allowance_of,
    changed_limits,
    invitation_of,
    key_of,
    limits_of,
    page_of,
    read_page,
    team_of,
)
from convene.api.shapes_accounts import LimitsBody
from convene.errors import BadRequest
from convene.limits.allowance import FIELDS, Allowance
from convene.serving.base_accounts import KeyRecord, Link, Team, User
from unit.api.asgi_doubles import Connection

KEY = KeyRecord(
    id="k1", name="ci", owner="usr_1", plan="", digest=b"\x01" * 32, last4="wxyz", created_at=1.0, scopes=("api",)
)
USER = User(id="usr_1", name="Bob", email="b@x.org", password="$argon2id$canary", created_at=1.0)
LINK = Link(id="lnk_1", digest=b"\x02" * 32, purpose="signup", created_by="x", created_at=1.0, expires_at=2.0)


def shown(value: object) -> str:
    return msgspec.json.encode(value).decode()


def test_the_limits_of_the_wire_are_those_that_are_kept() -> None:
    assert LimitsBody.__struct_fields__ == FIELDS


def test_money_is_kept_in_micro_units_and_shown_as_it_was_said() -> None:
    body = LimitsBody(budget_per_day=0.1, budget_total=1234.567891, requests_per_day=7, concurrent_requests=0)
    kept = allowance_of(body)
    assert kept == Allowance(
        budget_per_day=100_000, budget_total=1_234_567_891, requests_per_day=7, concurrent_requests=0
    )
    assert limits_of(kept) == body


@pytest.mark.parametrize("amount", [0, 1, 20, 999_999_999])
def test_counts_stay_whole(amount: int) -> None:
    kept = allowance_of(LimitsBody(tokens_per_minute=amount))
    assert kept is not None
    assert kept.tokens_per_minute == amount
    assert isinstance(kept.tokens_per_minute, int)


def test_null_unset_and_empty_limits_stay_apart() -> None:
    assert allowance_of(None) is None
    assert allowance_of(LimitsBody()) == Allowance()
    assert changed_limits(UNSET) is UNSET
    assert changed_limits(None) is None
    assert changed_limits(LimitsBody()) == Allowance()
    assert limits_of(None) is None


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "active"),
        ({"expires_at": 11.0}, "active"),
        ({"expires_at": 10.0}, "expired"),
        ({"revoked_at": 5.0}, "revoked"),
        ({"revoked_at": 5.0, "expires_at": 1.0}, "revoked"),
    ],
)
def test_a_key_says_whether_it_works(fields: dict[str, float], state: str) -> None:
    assert key_of(msgspec.structs.replace(KEY, **fields), 10.0).state == state


def test_neither_digests_nor_hashes_are_shown() -> None:
    for value in (key_of(KEY, 1.0), account_of(USER), invitation_of(LINK)):
        text = shown(value)
        assert "digest" not in text
        assert "canary" not in text
        assert "\\u0001" not in text
    assert account_of(USER).has_password
    assert not account_of(msgspec.structs.replace(USER, password=None)).has_password


def test_secrets_are_there_only_where_they_were_just_made() -> None:
    assert '"key":' not in shown(key_of(KEY, 1.0))
    assert '"key":"text"' in shown(key_of(KEY, 1.0, "text"))
    assert '"link":' not in shown(account_of(USER))
    assert '"link":"x"' in shown(invitation_of(LINK, "x"))


def test_what_is_empty_is_null() -> None:
    key = key_of(KEY, 1.0)
    assert (key.user_id, key.team_id, key.plan) == (None, None, None)
    assert account_of(USER).plan is None
    assert team_of(Team(id="t", name="Lab", created_at=1.0)).plan is None
    link = invitation_of(LINK)
    assert (link.email, link.plan, link.team_id, link.user_id) == (None, None, None, None)


def test_pages_go_on_where_the_one_before_ended() -> None:
    keys = [msgspec.structs.replace(KEY, id=name) for name in "abcde"]

    def ids(limit: int, after: str) -> tuple[list[str], bool]:
        page, more = page_of(keys, limit, after)
        return [one.id for one in page], more

    assert ids(2, "") == (["a", "b"], True)
    assert ids(2, "b") == (["c", "d"], True)
    assert ids(2, "d") == (["e"], False)
    assert ids(5, "") == (["a", "b", "c", "d", "e"], False)
    assert ids(2, "e") == ([], False)
    with pytest.raises(BadRequest) as caught:
        ids(2, "x")
    assert caught.value.param == "after"


@pytest.mark.parametrize(
    ("query", "page"), [(b"", (100, "")), (b"limit=7", (7, "")), (b"after=usr_1&limit=1000", (1000, "usr_1"))]
)
def test_the_page_is_read_from_the_address(query: bytes, page: tuple[int, str]) -> None:
    connection = Connection()
    connection.scope["query_string"] = query
    assert read_page(connection.call()) == page


@pytest.mark.parametrize(
    ("host", "public_url", "base"),
    [
        (b"convene.example", "", "https://convene.example"),
        (b"LOCALHOST:8000", "", "http://localhost:8000"),
        (b"127.0.0.1:8000", "", "http://127.0.0.1:8000"),
        (b"10.0.0.7", "https://ai.example/", "https://ai.example"),
    ],
)
def test_a_link_leads_to_where_it_was_asked_for(host: bytes, public_url: str, base: str) -> None:
    call = Connection(headers=[(b"host", host)]).call()
    assert address_of_link(call, public_url, "TEXT") == f"{base}/signup?link=TEXT"
