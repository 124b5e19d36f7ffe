"""The endpoints of keys, users, teams and links: what of a request reaches the use case, for whom, as what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from convene.api.admin import Admin
from convene.api.keys import Keys
from convene.api.table import Endpoints, route_table
from convene.api.table_accounts import account_routes
from convene.errors import BadRequest, TooLarge
from convene.limits.allowance import Allowance
from convene.serving.base import Principal
from convene.serving.base_accounts import (
    KeyChange,
    KeyDraft,
    KeyRecord,
    Link,
    LinkDraft,
    Member,
    Self,
    Team,
    TeamChange,
    User,
    UserChange,
    UserDraft,
)
from unit.api.asgi_doubles import Connection

if TYPE_CHECKING:
    from convene.api.call import Call

CALLER: Final = Principal(key_id="key_1", owner="usr_1", name="laptop", scopes=("api", "admin"), models=("asi1",))
KEY: Final = KeyRecord(id="k1", name="ci", owner="usr_1", plan="", digest=b"", last4="wxyz", created_at=1.0)
USER: Final = User(id="usr_1", name="Ada", email="ada@x.org", created_at=1.0)
TEAM: Final = Team(id="team_1", name="Lab", created_at=1.0)
MEMBER: Final = Member(team_id="team_1", user_id="usr_1", role="owner")
LINK: Final = Link(id="lnk_1", digest=b"", purpose="signup", created_by="x", created_at=1.0, expires_at=2.0)
NOW: Final = 50.0


class Recorder:
    """Stands for both use cases: notes each call and gives what such a call gives."""

    ANSWERS: Final[dict[str, Any]] = {
        "about": Self(principal=CALLER, user=USER, teams=((TEAM, MEMBER),)),
        "mine": [KEY, msgspec.structs.replace(KEY, id="k2")],
        "all": [KEY],
        "create": ("text", KEY),
        "issue": ("text", KEY),
        "rotate": ("text", KEY),
        "change": KEY,
        "revoke": KEY,
        "users": [USER, USER, USER],
        "add_user": (USER, "LINK"),
        "change_user": USER,
        "disable_user": USER,
        "reset_link": ("LINK", LINK),
        "teams": [TEAM],
        "add_team": TEAM,
        "change_team": TEAM,
        "members": [MEMBER],
        "put_member": MEMBER,
        "remove_member": None,
        "links": [LINK],
        "invite": ("LINK", LINK),
        "withdraw_link": None,
    }

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- every method of two seams
        async def call(caller: Principal, *given: Any) -> Any:  # noqa: ANN401 -- the same
            assert caller is CALLER
            self.calls.append((name, given))
            return self.ANSWERS[name]

        return call


async def asked(method: str, path: str, body: object = None, query: bytes = b"") -> tuple[Any, Any, dict[bytes, bytes]]:
    """Send a request to the endpoint that the table has for it; return the call it made, the answer, its headers."""
    recorder = Recorder()
    keys, admin = Keys(recorder, recorder, lambda: NOW), Admin(recorder, lambda: NOW, "https://ai.example")
    mine = {route.path: route for route in account_routes(endpoints(keys, admin)) if route.method == method}
    route = mine[path]
    connection = Connection(msgspec.json.encode(body), method=method, headers=[(b"host", b"x")])
    connection.scope["query_string"] = query
    call = connection.call(1_000_000)
    call.principal = CALLER
    call.params = {"key": "k1", "user": "usr_1", "team": "team_1", "invitation": "lnk_1"}
    await route.endpoint(call)
    [made] = recorder.calls
    return made, msgspec.json.decode(connection.body), connection.headers


def endpoints(keys: Keys, admin: Admin) -> Endpoints:
    async def nobody(call: Call) -> None:
        raise AssertionError(call.path)

    found: dict[str, Any] = dict.fromkeys(Endpoints.__struct_fields__, nobody)
    found |= {name: getattr(admin, name) for name in found if hasattr(admin, name)}
    found |= {"show_me": keys.show_me, "list_keys": keys.list_mine, "create_key": keys.create, "issue_key": keys.issue}
    found |= {"rotate_key": keys.rotate, "change_key": keys.change, "revoke_key": keys.revoke}
    return Endpoints(**found | {"list_all_keys": keys.list_all})


USERS, TEAMS, LINKS = "/v1/admin/users", "/v1/admin/teams", "/v1/admin/invitations"
FIVE: Final = Allowance(requests_per_minute=5)


@pytest.mark.parametrize(
    ("method", "path", "body", "call"),
    [
        ("GET", "/v1/me", None, ("about", ())),
        ("GET", "/v1/keys", None, ("mine", ())),
        ("POST", "/v1/keys", {"name": "ci"}, ("create", (KeyDraft(name="ci"),))),
        (
            "POST",
            "/v1/keys",
            {"name": "ci", "team_id": "team_1", "models": ["a"], "scopes": ["admin"], "expires_at": 9, "plan": "owner"},
            ("create", (KeyDraft(name="ci", team_id="team_1", models=("a",), scopes=("admin",), expires_at=9.0),)),
        ),
        ("POST", "/v1/keys/{key}/rotate", None, ("rotate", ("k1",))),
        ("PATCH", "/v1/keys/{key}", {}, ("change", ("k1", KeyChange()))),
        (
            "PATCH",
            "/v1/keys/{key}",
            {"name": "x", "limits": {"requests_per_minute": 5}, "plan": "", "models": ["a"], "expires_at": None},
            ("change", ("k1", KeyChange(name="x", limits=FIVE, plan="", models=("a",), expires_at=None))),
        ),
        (
            "PATCH",
            "/v1/keys/{key}",
            {"limits": None, "models": None},
            ("change", ("k1", KeyChange(limits=None, models=None))),
        ),
        ("DELETE", "/v1/keys/{key}", None, ("revoke", ("k1",))),
        ("GET", "/v1/admin/keys", None, ("all", ())),
        (
            "POST",
            "/v1/admin/keys",
            {"name": "ci", "user_id": "usr_1", "plan": "pro", "model_limits": {"a": {"requests_per_minute": 5}}},
            ("issue", (KeyDraft(name="ci", user_id="usr_1", plan="pro", model_limits={"a": FIVE}),)),
        ),
        ("GET", USERS, None, ("users", (101, ""))),
        ("POST", USERS, {"email": "a@x.org"}, ("add_user", (UserDraft(email="a@x.org"),))),
        (
            "POST",
            USERS,
            {"email": "a@x.org", "name": "A", "role": "admin", "plan": "pro", "limits": {"requests_per_minute": 5}},
            ("add_user", (UserDraft(email="a@x.org", name="A", role="admin", plan="pro", limits=FIVE),)),
        ),
        ("PATCH", f"{USERS}/{{user}}", {}, ("change_user", ("usr_1", UserChange()))),
        (
            "PATCH",
            f"{USERS}/{{user}}",
            {"disabled": True, "role": "member", "limits": None},
            ("change_user", ("usr_1", UserChange(disabled_at=NOW, role="member", limits=None))),
        ),
        ("PATCH", f"{USERS}/{{user}}", {"disabled": False}, ("change_user", ("usr_1", UserChange(disabled_at=None)))),
        ("DELETE", f"{USERS}/{{user}}", None, ("disable_user", ("usr_1",))),
        ("POST", f"{USERS}/{{user}}/link", None, ("reset_link", ("usr_1",))),
        ("GET", TEAMS, None, ("teams", (101, ""))),
        ("POST", TEAMS, {"name": "Lab"}, ("add_team", ("Lab", "", None))),
        ("PATCH", f"{TEAMS}/{{team}}", {"plan": "pro"}, ("change_team", ("team_1", TeamChange(plan="pro")))),
        ("GET", f"{TEAMS}/{{team}}/members", None, ("members", ("team_1",))),
        ("POST", f"{TEAMS}/{{team}}/members", {"user_id": "u"}, ("put_member", ("team_1", "u", "member"))),
        ("DELETE", f"{TEAMS}/{{team}}/members/{{user}}", None, ("remove_member", ("team_1", "usr_1"))),
        ("GET", LINKS, None, ("links", ())),
        ("POST", LINKS, {}, ("invite", (LinkDraft(),))),
        ("POST", LINKS, {"email": "a", "expires_in": 60}, ("invite", (LinkDraft(email="a", lifetime_s=60.0),))),
        ("DELETE", f"{LINKS}/{{invitation}}", None, ("withdraw_link", ("lnk_1",))),
    ],
)
async def test_what_reaches_the_use_case(method: str, path: str, body: object, call: object) -> None:
    made, _, headers = await asked(method, path, body)
    assert made == call
    assert headers[b"cache-control"] == b"no-store"


@pytest.mark.parametrize(
    ("method", "path", "field", "value"),
    [
        ("POST", "/v1/keys", "key", "text"),
        ("POST", "/v1/keys/{key}/rotate", "key", "text"),
        ("POST", "/v1/admin/keys", "key", "text"),
        ("POST", USERS, "link", "https://ai.example/signup?link=LINK"),
        ("POST", f"{USERS}/{{user}}/link", "link", "https://ai.example/signup?link=LINK"),
        ("POST", LINKS, "link", "https://ai.example/signup?link=LINK"),
    ],
)
async def test_a_secret_is_shown_where_it_is_made(method: str, path: str, field: str, value: str) -> None:
    _, answer, _ = await asked(method, path, {"name": "x", "email": "a@x.org"})
    assert answer[field] == value


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/keys"), ("PATCH", "/v1/keys/{key}"), ("GET", USERS), ("PATCH", f"{USERS}/{{user}}"), ("GET", LINKS)],
)
async def test_and_nowhere_else(method: str, path: str) -> None:
    _, answer, _ = await asked(method, path, {})
    for one in answer.get("data", [answer]):
        assert not {"key", "link", "password", "digest"} & one.keys()


async def test_lists_say_whether_there_is_more() -> None:
    _, keys, _ = await asked("GET", "/v1/keys", query=b"limit=1")
    assert ([one["id"] for one in keys["data"]], keys["has_more"]) == (["k1"], True)
    _, keys, _ = await asked("GET", "/v1/keys", query=b"limit=1&after=k1")
    assert ([one["id"] for one in keys["data"]], keys["has_more"]) == (["k2"], False)
    made, users, _ = await asked("GET", USERS, query=b"limit=2&after=usr_0")
    assert (made, len(users["data"]), users["has_more"]) == (("users", (3, "usr_0")), 2, True)


async def test_a_caller_is_told_who_it_is() -> None:
    _, me, _ = await asked("GET", "/v1/me")
    assert (me["key_id"], me["key_name"], me["models"]) == ("key_1", "laptop", ["asi1"])
    assert me["teams"] == [{"id": "team_1", "name": "Lab", "role": "owner"}]


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/v1/keys", {}, "name"),
        ("POST", "/v1/keys", {"name": 5}, "name"),
        ("POST", "/v1/keys", {"name": "x" * 257}, "name"),
        ("POST", "/v1/keys", {"name": "x", "scopes": ["root"]}, "scopes[0]"),
        ("POST", "/v1/keys", {"name": "x", "limits": {"requests_per_minute": 10**10}}, "limits.requests_per_minute"),
        ("POST", "/v1/keys", {"name": "x", "limits": {"budget_total": -1}}, "limits.budget_total"),
        ("POST", "/v1/keys", {"name": "x", "expires_at": 1e300}, "expires_at"),
        ("POST", "/v1/keys", {"name": "x", "models": ["a"] * 257}, "models"),
        ("PATCH", f"{USERS}/{{user}}", {"disabled": "yes"}, "disabled"),
        ("POST", LINKS, {"expires_in": 0}, "expires_in"),
        ("POST", f"{TEAMS}/{{team}}/members", {"user_id": "u", "role": "boss"}, "role"),
    ],
)
async def test_what_is_no_request_reaches_nobody(method: str, path: str, body: object, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await asked(method, path, body)
    assert caught.value.param == param


async def test_a_body_is_small_here() -> None:
    with pytest.raises(TooLarge):
        await asked("POST", "/v1/keys", {"name": "x", "more": "y" * 70_000})


# The rows.


def test_every_row_says_what_it_gives_and_admins_rows_need_the_scope() -> None:
    recorder = Recorder()
    to = endpoints(Keys(recorder, recorder, lambda: NOW), Admin(recorder, lambda: NOW))
    rows = account_routes(to)
    assert {row.path for row in rows} <= {row.path for row in route_table(to)}
    for row in rows:
        assert row.gives is not None
        assert row.browser
        assert not row.open
        assert row.described
        assert (row.scope == "admin") is row.path.startswith("/v1/admin/")
        assert (row.takes is not None) is (
            row.method == "PATCH" or (row.method == "POST" and "}/" not in row.path)
        ) or (row.path.endswith("/members"))
    assert len({(row.method, row.path) for row in rows}) == len(rows) == 22
