"""Keys, users, teams and invitations over HTTP, by keys."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from api.people import ask, bearer, made, someone

if TYPE_CHECKING:
    from api.conftest import Served


async def until_refused(served: Served, key: str) -> str:
    """Ask until the key is refused, which the key watch makes so within a second; return the message."""
    async with asyncio.timeout(10):
        while True:
            answer = await served.http.get("/v1/models", headers=bearer(key))
            if answer.status_code == 401:
                message: str = answer.json()["error"]["message"]
                return message
            await asyncio.sleep(0.01)


@pytest.mark.req("KEY-02")
async def test_a_user_makes_a_key_that_works_at_once_is_shown_once_and_dies_when_it_is_deleted(served: Served) -> None:
    bob = await someone(served, "bob")
    key = await made(served, "/v1/keys", {"name": "ci"}, bob.key)
    assert (key["user_id"], key["owner"], key["state"], key["object"]) == (bob.id, bob.id, "active", "api_key")
    assert (await served.http.get("/v1/models", headers=bearer(key["key"]))).status_code == 200
    listed = await ask(served, "GET", "/v1/keys", bob.key)
    assert {one["name"] for one in listed.json()["data"]} == {"bob's", "ci"}
    assert key["key"] not in listed.text
    assert "digest" not in listed.text
    gone = await ask(served, "DELETE", f"/v1/keys/{key['id']}", bob.key)
    assert gone.json() == {"id": key["id"], "object": "api_key", "deleted": True}
    assert (await served.http.get("/v1/models", headers=bearer(key["key"]))).status_code == 401


async def test_answers_with_secrets_may_be_kept_by_no_cache(served: Served) -> None:
    bob = await someone(served, "bob")
    for path, body in (("/v1/keys", {"name": "ci"}), (f"/v1/keys/{bob.key_id}/rotate", None)):
        answer = await ask(served, "POST", path, bob.key, body)
        assert answer.headers["cache-control"] == "no-store"


async def test_a_rotated_key_has_its_id_and_another_text(served: Served) -> None:
    bob = await someone(served, "bob")
    fresh = await made(served, f"/v1/keys/{bob.key_id}/rotate", None, bob.key)
    assert fresh["id"] == bob.key_id
    assert fresh["key"] != bob.key
    assert (await ask(served, "GET", "/v1/me", bob.key)).status_code == 401
    assert (await ask(served, "GET", "/v1/me", fresh["key"])).json()["user"]["id"] == bob.id


async def test_a_key_is_renamed_and_tightened_and_never_loosened_by_a_member(served: Served) -> None:
    bob = await someone(served, "bob")
    key = await made(served, "/v1/keys", {"name": "ci", "limits": {"requests_per_minute": 5}}, bob.key)
    path = f"/v1/keys/{key['id']}"
    changed = await ask(served, "PATCH", path, bob.key, {"name": "cd", "limits": {"budget_per_day": 1.5}})
    assert changed.json()["name"] == "cd"
    limits = {name: value for name, value in changed.json()["limits"].items() if value is not None}
    assert limits == {"requests_per_minute": 5, "budget_per_day": 1.5}
    looser = await ask(served, "PATCH", path, bob.key, {"limits": {"budget_per_day": 1.51}})
    assert (looser.status_code, looser.json()["error"]["param"]) == (400, "limits.budget_per_day")
    assert (await ask(served, "PATCH", path, bob.key, {"plan": "owner"})).status_code == 403
    assert (await ask(served, "PATCH", path, "", {"limits": None, "plan": "pro"})).json()["limits"] is None


async def test_an_admin_makes_keys_with_all_terms(served: Served) -> None:
    bob = await someone(served, "bob")
    body = {
        "name": "all",
        "user_id": bob.id,
        "plan": "pro",
        "models": ["scripted-echo"],
        "expires_at": 4e9,
        "scopes": ["api"],
        "limits": {"tokens_per_minute": 1000, "concurrent_requests": 2, "budget_total": 0.000001},
        "model_limits": {"scripted-echo": {"requests_per_day": 3}},
    }
    key = await made(served, "/v1/admin/keys", body)
    for name in ("name", "user_id", "plan", "models", "expires_at", "scopes"):
        assert key[name] == body[name]
    assert {name: value for name, value in key["limits"].items() if value is not None} == body["limits"]
    listed = (await ask(served, "GET", "/v1/admin/keys?limit=1000")).json()["data"]
    assert key["id"] in [one["id"] for one in listed]
    models = await served.http.get("/v1/models", headers=bearer(key["key"]))
    assert [one["id"] for one in models.json()["data"]] == ["scripted-echo"]


async def test_who_is_calling(served: Served) -> None:
    bob = await someone(served, "bob")
    team = await made(served, "/v1/admin/teams", {"name": "Lab", "plan": "pro"})
    await made(served, f"/v1/admin/teams/{team['id']}/members", {"user_id": bob.id, "role": "owner"})
    me = (await ask(served, "GET", "/v1/me", bob.key)).json()
    assert (me["key_id"], me["owner"], me["scopes"]) == (bob.key_id, bob.id, ["api"])
    assert me["user"]["email"] == "bob@x.org"
    assert me["teams"] == [{"id": team["id"], "name": "Lab", "role": "owner"}]
    operator = (await ask(served, "GET", "/v1/me")).json()
    assert (operator["user"], operator["scopes"], operator["plan"]) == (None, ["api", "admin"], "owner")


@pytest.mark.req("KEY-04")
async def test_a_key_takes_the_plan_of_its_user_else_of_its_team(served: Served) -> None:
    bob = await someone(served, "bob")
    assert (await ask(served, "GET", "/v1/me", bob.key)).json()["plan"] == "free"
    await ask(served, "PATCH", f"/v1/admin/users/{bob.id}", "", {"plan": "pro"})
    await served.app.accounts.ring.poll()  # what its watch does twice a second
    assert (await ask(served, "GET", "/v1/me", bob.key)).json()["plan"] == "pro"


async def test_a_disabled_users_keys_die_within_a_second_and_come_back(served: Served) -> None:
    bob = await someone(served, "bob")
    assert (await ask(served, "DELETE", f"/v1/admin/users/{bob.id}")).json()["deleted"] is True
    assert "disabled" in await until_refused(served, bob.key)
    back = await ask(served, "PATCH", f"/v1/admin/users/{bob.id}", "", {"disabled": False})
    assert back.json()["disabled_at"] is None
    await served.app.accounts.ring.poll()
    assert (await ask(served, "GET", "/v1/me", bob.key)).status_code == 200


async def test_users_are_listed_in_pages_and_never_with_a_hash(served: Served) -> None:
    for name in ("a", "b", "c"):
        await someone(served, name)
    first = (await ask(served, "GET", "/v1/admin/users?limit=2")).json()
    second = (await ask(served, "GET", f"/v1/admin/users?limit=2&after={first['data'][-1]['id']}")).json()
    assert (len(first["data"]), first["has_more"], len(second["data"]), second["has_more"]) == (2, True, 1, False)
    assert "password" not in {name for one in first["data"] for name in one}
    for wrong in ("0", "1001", "-1", "x", "1.5", "9" * 50):
        answer = await ask(served, "GET", f"/v1/admin/users?limit={wrong}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")


async def test_keys_are_listed_in_pages(served: Served) -> None:
    bob = await someone(served, "bob")
    for number in range(3):
        await made(served, "/v1/keys", {"name": f"k{number}"}, bob.key)
    names: list[str] = []
    after = ""
    while True:
        page = (await ask(served, "GET", f"/v1/keys?limit=2&after={after}", bob.key)).json()
        names += [one["name"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = page["data"][-1]["id"]
    assert names == ["bob's", "k0", "k1", "k2"]
    assert (await ask(served, "GET", "/v1/keys?after=nobody", bob.key)).status_code == 400


async def test_teams_and_members(served: Served) -> None:
    bob, cy = await someone(served, "bob"), await someone(served, "cy")
    team = await made(served, "/v1/admin/teams", {"name": "Lab", "limits": {"requests_per_day": 9}})
    path = f"/v1/admin/teams/{team['id']}"
    assert (await ask(served, "PATCH", path, "", {"name": "Works"})).json()["name"] == "Works"
    await made(served, f"{path}/members", {"user_id": bob.id, "role": "owner"})
    await made(served, f"{path}/members", {"user_id": cy.id})
    members = (await ask(served, "GET", f"{path}/members")).json()["data"]
    assert {(one["user_id"], one["role"]) for one in members} == {(bob.id, "owner"), (cy.id, "member")}
    key = await made(served, "/v1/keys", {"name": "ours", "team_id": team["id"]}, cy.key)
    assert key["owner"] == team["id"]
    assert "ours" in [one["name"] for one in (await ask(served, "GET", "/v1/keys", bob.key)).json()["data"]]
    await ask(served, "DELETE", f"{path}/members/{cy.id}")
    assert "team" in await until_refused(served, key["key"])
    assert [one["id"] for one in (await ask(served, "GET", "/v1/admin/teams")).json()["data"]] == [team["id"]]


async def test_invitations_are_made_listed_and_withdrawn(served: Served) -> None:
    invited = await made(served, "/v1/admin/invitations", {"email": "Dee@x.org", "plan": "pro", "expires_in": 60})
    assert invited["link"].startswith("https://convene.test/signup?link=convene_link_")
    listed = await ask(served, "GET", "/v1/admin/invitations")
    assert [one["email"] for one in listed.json()["data"]] == [None, "dee@x.org"], "the first admin's, and this one"
    assert "link" not in listed.json()["data"][1]
    gone = await ask(served, "DELETE", f"/v1/admin/invitations/{invited['id']}")
    assert gone.json()["object"] == "invitation"
    assert (await ask(served, "DELETE", f"/v1/admin/invitations/{invited['id']}")).status_code == 404


async def test_what_is_wrong_is_named_and_taken_emails_are_told_to_admins_only(served: Served) -> None:
    await someone(served, "bob")
    for path, body, param in (
        ("/v1/admin/users", {"email": "BOB@x.org"}, "email"),
        ("/v1/admin/users", {"email": "x"}, "email"),
        ("/v1/admin/users", {}, "email"),
        ("/v1/admin/users", {"email": "a@b.c", "role": "root"}, "role"),
        ("/v1/admin/keys", {"name": "k", "limits": {"requests_per_minute": -1}}, "limits.requests_per_minute"),
        ("/v1/admin/keys", {"name": "k", "user_id": "usr_9"}, "user_id"),
        ("/v1/admin/keys", {"name": ""}, "name"),
        ("/v1/admin/keys", {"name": "k", "expires_at": 1}, "expires_at"),
        ("/v1/admin/teams", {"name": "\n"}, "name"),
    ):
        answer = await ask(served, "POST", path, "", body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


async def test_a_body_is_small_here(served: Served) -> None:
    answer = await ask(served, "POST", "/v1/admin/users", "", {"email": "a" * 70_000})
    assert answer.status_code == 413


async def test_the_last_admin_stays(served: Served) -> None:
    ada = await someone(served, "ada", role="admin")
    answer = await ask(served, "DELETE", f"/v1/admin/users/{ada.id}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "last_admin")
