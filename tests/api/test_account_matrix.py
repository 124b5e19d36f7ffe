"""Every route with every kind of caller and other people's things: the matrix is made from the route table (E2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from api.people import ask, made, someone
from convene.api.table import Endpoints, route_table
from convene.serving.base import Principal
from run_doubles import job

if TYPE_CHECKING:
    from api.conftest import Served
    from convene.api.call import Call
    from convene.api.routes import Route


async def nobody(call: Call) -> None:
    raise AssertionError(call.path)


ROUTES: Final = tuple(
    route
    for route in route_table(Endpoints(**dict.fromkeys(Endpoints.__struct_fields__, nobody)))
    if route.described and not route.open
)
ADMINS: Final = tuple(route for route in ROUTES if route.scope == "admin")
OWN: Final = tuple(route for route in ROUTES if "{key}" in route.path)
BODIES: Final[dict[str, object]] = {
    "/v1/admin/users/{user}": {"name": "owned"},
    "/v1/admin/teams/{team}": {"name": "owned"},
    "/v1/keys/{key}": {"name": "owned"},
}


def name(route: Route) -> str:
    return f"{route.method} {route.path}"


def filled(route: Route, **ids: str) -> str:
    return re.sub(r"{(\w+)}", lambda found: ids.get(found[1], "missing"), route.path)


async def everything(served: Served) -> list[Any]:
    """Return all that is kept of accounts and keys, to see that nothing has changed."""
    paths = ("users", "teams", "keys", "invitations")
    return [(await ask(served, "GET", f"/v1/admin/{path}?limit=1000")).json() for path in paths]


def test_the_matrix_has_all_there_is() -> None:
    assert len(ADMINS) >= 16
    assert len(OWN) == 3
    assert all(route.path.startswith("/v1/admin/") for route in ADMINS)
    assert all(route.scope == "admin" for route in ROUTES if route.path.startswith("/v1/admin/"))


@pytest.mark.parametrize("route", ROUTES, ids=name)
async def test_without_a_key_every_route_is_shut(served: Served, route: Route) -> None:
    for path in (filled(route), filled(route).removeprefix("/v1"), filled(route).replace("/", "//")):
        answer = await served.http.request(route.method, path, json={})
        assert answer.status_code == 401, path


async def test_no_route_of_admins_opens_for_members_team_owners_or_nobodys_keys(served: Served) -> None:
    bob, cy = await someone(served, "bob"), await someone(served, "cy")
    team = await made(served, "/v1/admin/teams", {"name": "Lab"})
    await made(served, f"/v1/admin/teams/{team['id']}/members", {"user_id": bob.id, "role": "owner"})
    plain = await made(served, "/v1/admin/keys", {"name": "nobody's"})
    invited = await made(served, "/v1/admin/invitations", {})
    before = await everything(served)
    ids = {"user": cy.id, "team": team["id"], "invitation": invited["id"]}
    for route in ADMINS:
        for key in (bob.key, plain["key"]):
            there = await ask(served, route.method, filled(route, **ids), key, BODIES.get(route.path, {}))
            missing = await ask(served, route.method, filled(route), key, BODIES.get(route.path, {}))
            assert there.status_code == missing.status_code == 403, name(route)
            assert there.json() == missing.json(), "nobody learns what there is"
    assert await everything(served) == before


@pytest.mark.parametrize("route", OWN, ids=name)
async def test_other_peoples_keys_are_not_there_and_stay_as_they_are(served: Served, route: Route) -> None:
    bob, cy = await someone(served, "bob"), await someone(served, "cy")
    team = await made(served, "/v1/admin/teams", {"name": "Lab"})
    await made(served, f"/v1/admin/teams/{team['id']}/members", {"user_id": bob.id})
    teams = await made(served, "/v1/admin/keys", {"name": "lab's", "team_id": team["id"]})
    plain = await made(served, "/v1/admin/keys", {"name": "nobody's"})
    first = next(one for one in (await everything(served))[2]["data"] if one["name"] == "first")
    before = await everything(served)
    missing = await ask(served, route.method, filled(route, key="0" * 12), bob.key, BODIES.get(route.path))
    assert missing.status_code == 404
    for key_id in (cy.key_id, teams["id"], plain["id"], first["id"]):
        answer = await ask(served, route.method, filled(route, key=key_id), bob.key, BODIES.get(route.path))
        assert answer.status_code == 404, name(route)
        assert answer.text.replace(key_id, "0" * 12) == missing.text
    assert await everything(served) == before


@pytest.mark.parametrize("route", OWN, ids=name)
async def test_a_key_of_nobody_manages_no_key_not_even_itself(served: Served, route: Route) -> None:
    plain = await made(served, "/v1/admin/keys", {"name": "nobody's"})
    answer = await ask(served, route.method, filled(route, key=plain["id"]), plain["key"], BODIES.get(route.path))
    assert answer.status_code == 403


async def test_a_list_shows_ones_own_and_nothing_else(served: Served) -> None:
    bob, cy = await someone(served, "bob"), await someone(served, "cy")
    for who, other in ((bob, cy), (cy, bob)):
        text = (await ask(served, "GET", "/v1/keys", who.key)).text
        assert who.key_id in text
        assert other.key_id not in text
        assert other.id not in (await ask(served, "GET", "/v1/me", who.key)).text


@pytest.mark.parametrize("route", ADMINS, ids=name)
async def test_an_admin_gets_through_and_what_is_missing_is_missing(served: Served, route: Route) -> None:
    answer = await ask(served, route.method, filled(route), "", BODIES.get(route.path, {}))
    expected = {404} if ("{" in route.path and route.takes is None) or route.path in BODIES else {200, 400, 404}
    assert answer.status_code in expected, answer.text


async def test_a_demoted_admins_key_is_a_members_within_a_second(served: Served) -> None:
    ada, _ = await someone(served, "ada", role="admin"), await someone(served, "eve", role="admin")
    key = await made(served, "/v1/admin/keys", {"name": "a", "user_id": ada.id, "scopes": ["api", "admin"]})
    assert (await ask(served, "GET", "/v1/admin/users", key["key"])).status_code == 200
    await ask(served, "PATCH", f"/v1/admin/users/{ada.id}", "", {"role": "member"})
    await served.app.accounts.ring.poll()  # what its watch does twice a second
    assert (await ask(served, "GET", "/v1/admin/users", key["key"])).status_code == 403


KEPT: Final = tuple(route for route in ROUTES if "{run}" in route.path or "{session}" in route.path)


@pytest.mark.parametrize("route", KEPT, ids=name)
async def test_other_peoples_runs_and_sessions_are_not_there_and_stay_as_they_are(served: Served, route: Route) -> None:
    bob, cy = await someone(served, "bob"), await someone(served, "cy")
    kept = served.app.runs
    for who in (bob, cy):
        await kept.runs.begin(job(f"run_{who.id}", owner=who.id, session="s" + who.id))
        await kept.sessions.enter(who.id, "s" + who.id)
    for query in ("", "?stream=true"):
        missing = await ask(served, route.method, filled(route, run="missing", session="missing") + query, bob.key)
        assert missing.status_code == 404
        theirs = await ask(
            served, route.method, filled(route, run=f"run_{cy.id}", session=f"s{cy.id}") + query, bob.key
        )
        assert (theirs.status_code, theirs.text) == (404, missing.text)
    state = await kept.runs.show(Principal(key_id="", owner=cy.id), f"run_{cy.id}")
    assert (state.run.status, state.run.cancel_asked) == ("running", False)
    assert await kept.sessions.known(Principal(key_id="", owner=cy.id), f"s{cy.id}")


async def test_lists_of_runs_and_sessions_show_ones_own_and_nothing_else(served: Served) -> None:
    bob, cy = await someone(served, "bob"), await someone(served, "cy")
    kept = served.app.runs
    for who in (bob, cy):
        await kept.runs.begin(job(f"run_{who.id}", owner=who.id, session="shared"))
        await kept.sessions.enter(who.id, "shared")
    for who, other in ((bob, cy), (cy, bob)):
        for path in ("/v1/runs", "/v1/runs?session=shared"):
            found = (await ask(served, "GET", path, who.key)).json()["data"]
            assert [run["id"] for run in found] == [f"run_{who.id}"]
        mine = (await ask(served, "GET", "/v1/sessions", who.key)).json()["data"]
        theirs = (await ask(served, "GET", "/v1/sessions", other.key)).json()["data"]
        assert [one["id"] for one in mine] == [one["id"] for one in theirs] == ["shared"]
        assert mine[0]["conversation_id"] != theirs[0]["conversation_id"]
