"""The form: sign up by link, log in, make a key and use it, and everything another site may not do (KEY-01, E11)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from api.form_client import PASSWORD, TYPE, Browser, calm, signed_up
from api.people import ask, bearer, made, someone
from convene.api.browser import form_token_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    import httpx2

    from api.conftest import Served
    from convene.config import Config

    Serve = Callable[..., AbstractAsyncContextManager[Served]]

KEY: Final = re.compile(r"<code>(convene_\w+)</code>")


async def first_admin(served: Served) -> Browser:
    assert served.app.first.link is not None
    return await signed_up(served, served.app.first.link)


async def new_key(browser: Browser, name: str = "laptop") -> str:
    await browser.post("/account/keys", name=name)
    found = KEY.search(browser.page)
    assert found is not None, browser.page
    return found[1]


# The way of a user.


@pytest.mark.req("KEY-01")
async def test_the_first_link_makes_an_admin_who_makes_a_key_that_works_at_once(served: Served) -> None:
    ada = await first_admin(served)
    assert "Ada (ada@x.org), admin" in ada.page
    text = await new_key(ada)
    assert (await served.http.get("/v1/models", headers=bearer(text))).status_code == 200
    await ada.get("/account")
    assert "laptop" in ada.page
    assert text not in ada.page, "shown once"


async def test_a_link_works_once(served: Served) -> None:
    await first_admin(served)
    assert served.app.first.link is not None
    late = Browser(served)
    await late.get(f"/signup?link={served.app.first.link}")
    assert "was not used yet" in late.said
    assert "<form" not in late.page


async def test_opening_a_link_does_not_use_it_up(served: Served) -> None:
    for _ in range(3):
        await Browser(served).get(f"/signup?link={served.app.first.link}")
    assert "Ada" in (await first_admin(served)).page


async def test_a_user_revokes_and_rotates_its_keys(served: Served) -> None:
    ada = await first_admin(served)
    old = await new_key(ada)
    await ada.get("/account")
    found = re.search(r'name="key" value="(\w{12})"', ada.page)
    assert found is not None
    await ada.post("/account/keys/rotate", key=found[1])
    fresh = KEY.search(ada.page)
    assert fresh is not None
    assert (await served.http.get("/v1/models", headers=bearer(old))).status_code == 401
    assert (await served.http.get("/v1/models", headers=bearer(fresh[1]))).status_code == 200
    await ada.get("/account")
    await ada.post("/account/keys/revoke", key=found[1])
    assert (await served.http.get("/v1/models", headers=bearer(fresh[1]))).status_code == 401
    assert "<td>revoked<td></tr>" in ada.page


async def test_a_session_is_new_at_log_in_and_dead_after_log_out(served: Served) -> None:
    ada = await first_admin(served)
    first = ada.cookie
    other = Browser(served)
    await other.get("/account")
    before = other.cookie
    await other.post("/account/login", email="ada@x.org", password=PASSWORD)
    assert other.cookie not in ("", before, first)
    held = other.cookie
    await other.post("/account/logout")
    assert "Log in" in other.page
    other.cookie = held
    await other.get("/account")
    assert "Ada" not in other.page
    await ada.get("/account")
    assert "Ada" in ada.page, "only the one that logged out is out"


async def test_a_session_is_replaced_when_somebody_logs_in_over_it(served: Served) -> None:
    ada = await first_admin(served)
    held = ada.cookie
    await ada.post("/account/login", email="ada@x.org", password=PASSWORD)
    assert ada.cookie != held
    old = Browser(served)
    old.cookie = held
    await old.get("/account")
    assert "Ada" not in old.page


async def test_a_new_password_logs_every_other_browser_out(served: Served) -> None:
    ada = await first_admin(served)
    other = Browser(served)
    await other.get("/account")
    await other.post("/account/login", email="ada@x.org", password=PASSWORD)
    assert "Ada" in other.page
    calm(served)
    await ada.post("/account/password", old="wrong horse battery", new="another long secret")
    assert ada.said == "The present password is wrong."
    calm(served)
    await ada.post("/account/password", old=PASSWORD, new="another long secret")
    assert "Ada" in ada.page
    await other.get("/account")
    assert "Ada" not in other.page
    calm(served)
    await other.post("/account/login", email="ada@x.org", password=PASSWORD)
    assert other.said == "Email or password is wrong."


async def test_a_made_user_sets_its_password_by_its_link(served: Served) -> None:
    bob = await someone(served, "bob")
    browser = Browser(served)
    await browser.get("/signup?" + bob.link.partition("?")[2])
    assert "bob@x.org" in browser.page
    assert 'name="email"' not in browser.page
    await browser.post("/signup", link=bob.link.rpartition("=")[2], password="short")
    assert "12 to 256" in browser.said
    await browser.post("/signup", link=bob.link.rpartition("=")[2], password=PASSWORD)
    assert browser.said == "Done. Log in with it."
    calm(served)
    await browser.post("/account/login", email="bob@x.org", password=PASSWORD)
    assert "bob (bob@x.org), member" in browser.page


async def test_an_invitation_for_one_address_is_filled_in_and_held_to_it(served: Served) -> None:
    link = (await made(served, "/v1/admin/invitations", {"email": "dee@x.org"}))["link"].rpartition("=")[2]
    browser = Browser(served)
    await browser.get(f"/signup?link={link}")
    assert 'value="dee@x.org"' in browser.page
    await browser.post("/signup", link=link, name="Eve", email="eve@x.org", password=PASSWORD)
    assert "another email" in browser.said
    assert 'name="token"' in browser.page, "the form is there again"


async def test_a_browser_session_manages_keys_over_the_api_too_with_its_token(served: Served) -> None:
    ada = await first_admin(served)
    reading = {"cookie": ada.cookie}
    me = await served.http.get("/v1/me", headers=reading)
    assert (me.json()["key_id"], me.json()["user"]["email"]) == (None, "ada@x.org")
    assert (await served.http.get("/v1/admin/users", headers=reading)).status_code == 200
    changing = reading | {"sec-fetch-site": "same-origin", "x-convene-token": ada.token}
    answer = await served.http.post("/v1/keys", json={"name": "k"}, headers=changing)
    assert answer.status_code == 200
    for lacking in ("sec-fetch-site", "x-convene-token"):
        headers = {name: value for name, value in changing.items() if name != lacking}
        assert (await served.http.post("/v1/keys", json={"name": "k"}, headers=headers)).status_code == 403


# What a cookie is not.


async def test_a_cookie_opens_no_model_and_a_key_is_no_cookie(served: Served) -> None:
    ada = await first_admin(served)
    session = ada.cookie.partition("=")[2]
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "hi"}]}
    for headers in ({"cookie": ada.cookie}, bearer(session), {"cookie": f"__Host-convene={served.key}"}):
        for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("POST", "/v1/embeddings")):
            answer = await served.http.request(method, path, json=body, headers=headers)
            assert answer.status_code == 401, (path, headers)
    for path in ("/v1/me", "/v1/keys", "/v1/admin/users"):
        for value in (served.key, f"Bearer {served.key}"):
            answer = await served.http.get(path, headers={"cookie": f"__Host-convene={value}"})
            assert answer.status_code == 401
    stranger = Browser(served)
    stranger.cookie = f"__Host-convene={served.key}"
    await stranger.get("/account")
    assert 'action="/account/login"' in stranger.page


async def test_a_wrong_key_is_not_saved_by_a_right_cookie(served: Served) -> None:
    ada = await first_admin(served)
    answer = await served.http.get("/v1/me", headers={"cookie": ada.cookie} | bearer("nonsense"))
    assert answer.status_code == 401


async def test_a_plain_cookie_counts_on_loopback_only(served: Served) -> None:
    ada = await signed_up(served, served.app.first.link or "", host="localhost:8000")
    assert ada.cookie.startswith("convene=convene_session_")
    assert "Ada" in ada.page
    elsewhere = Browser(served)
    elsewhere.cookie = ada.cookie
    await elsewhere.get("/account")
    assert "Ada" not in elsewhere.page


# Other sites.


def posts(served: Served) -> list[str]:
    return [route.path for route in served.app.accounts.forms.routes() if route.method == "POST"]


FOREIGN: Final[tuple[dict[str, str], ...]] = (
    {},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "cross-site", "origin": "https://convene.test"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "https://convene.test.evil.example"},
)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_no_other_site_changes_anything_even_with_the_right_token(
    served: Served, headers: dict[str, str]
) -> None:
    ada = await first_admin(served)
    key = await new_key(ada)
    await ada.get("/account")
    key_id = key.split("_")[1]
    token, cookie = ada.token, ada.cookie
    before = (await ask(served, "GET", "/v1/admin/keys")).json()
    assert len(posts(served)) == 7
    for path in posts(served):
        ada.headers, ada.cookie = headers, cookie
        answer = await ada.post(
            path, token=token, key=key_id, name="x", email="ada@x.org", password=PASSWORD, old=PASSWORD, new=PASSWORD
        )
        assert answer.status_code == 403, path
        assert "set-cookie" not in answer.headers
    assert (await ask(served, "GET", "/v1/admin/keys")).json() == before
    ada.cookie = cookie
    await ada.get("/account")
    assert "Ada" in ada.page, "still logged in, with the same password"


@pytest.mark.parametrize("token", ["", "0" * 64, "x", form_token_of("convene_session_" + "0" * 38)])
async def test_nothing_changes_without_the_token_of_the_cookie(served: Served, token: str) -> None:
    ada = await first_admin(served)
    for path in posts(served):
        answer = await ada.post(path, token=token, name="x", email="ada@x.org", password=PASSWORD)
        assert answer.status_code == 403, path


async def test_nobody_is_logged_in_without_a_page_of_ours_before(served: Served) -> None:
    await first_admin(served)
    fresh = Browser(served)
    answer = await fresh.post("/account/login", token="", email="ada@x.org", password=PASSWORD)
    assert answer.status_code == 403
    planted = Browser(served)
    planted.cookie = "__Host-convene=" + "a" * 48
    answer = await planted.post("/account/login", token="0" * 64, email="ada@x.org", password=PASSWORD)
    assert answer.status_code == 403


@pytest.mark.parametrize("route", ["/v1/keys", "/v1/admin/users", "/v1/admin/keys"])
async def test_no_other_site_uses_the_api_with_a_cookie(served: Served, route: str) -> None:
    ada = await first_admin(served)
    for headers in FOREIGN:
        sent = {"cookie": ada.cookie, "x-convene-token": ada.token} | headers
        answer = await served.http.post(route, json={"name": "x", "email": "evil@x.org"}, headers=sent)
        assert answer.status_code == 403


# Hints.


async def answers(served: Served, path: str, first: dict[str, str], second: dict[str, str]) -> list[tuple[Any, ...]]:
    found = []
    for fields in (first, second):
        calm(served)
        browser = Browser(served)
        browser.cookie = "__Host-convene=" + "a" * 48
        answer = await browser.post(path, token=form_token_of("a" * 48), **fields)
        headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
        found.append((answer.status_code, answer.text, headers))
    return found


async def test_a_log_in_tells_not_whether_the_email_has_an_account(served: Served) -> None:
    await first_admin(served)
    wrong = {"password": "wrong horse battery"}
    there, missing = await answers(
        served, "/account/login", {"email": "ada@x.org"} | wrong, {"email": "nobody@x.org"} | wrong
    )
    assert there == missing
    assert there[0] == 401


async def test_an_open_sign_up_tells_not_whether_the_email_has_an_account(serve: Serve) -> None:
    async with serve(signup="open") as served:
        await first_admin(served)
        common = {"name": "X", "password": PASSWORD}
        taken, fresh = await answers(
            served, "/signup", {"email": "ada@x.org"} | common, {"email": "new@x.org"} | common
        )
        assert taken == fresh
        assert taken[0] == 200
        users = (await ask(served, "GET", "/v1/admin/users")).json()["data"]
        assert sorted(one["email"] for one in users) == ["ada@x.org", "new@x.org"]
        assert [one["name"] for one in users if one["email"] == "ada@x.org"] == ["Ada"]


async def test_a_dead_link_a_strangers_and_none_look_the_same(served: Served) -> None:
    await first_admin(served)
    pages = set()
    for link in (served.app.first.link or "", "convene_link_" + "0" * 38, "x", ""):
        browser = Browser(served)
        answer = await browser.get(f"/signup?link={link}")
        pages.add((answer.status_code, answer.text))
    assert len(pages) == 1


async def test_tries_are_counted_and_told_when_to_come_back(served: Served) -> None:
    browser = Browser(served)
    await browser.get("/account")
    await browser.post("/account/login", email="a@x.org", password="x")
    answer = await browser.post("/account/login", email="b@x.org", password="x")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 2


@pytest.mark.parametrize("signup", ["invitation", "closed"])
async def test_without_a_link_nobody_signs_up_unless_it_is_open(serve: Serve, signup: str) -> None:
    async with serve(signup=signup) as served:
        browser = Browser(served)
        await browser.get("/signup")
        assert "<form" not in browser.page
        browser.cookie = "__Host-convene=" + "a" * 48
        answer = await browser.post(
            "/signup", token=form_token_of("a" * 48), name="X", email="x@x.org", password=PASSWORD
        )
        assert answer.status_code == 403
        assert (await ask(served, "GET", "/v1/admin/users")).json()["data"] == []


# Pages.


async def every_page(served: Served) -> list[httpx2.Response]:
    stranger = Browser(served)
    found = [await stranger.get("/account"), await stranger.get("/signup")]
    found.append(await stranger.get(f"/signup?link={served.app.first.link}"))
    ada = await first_admin(served)
    found.append(await ada.get("/account"))
    found.append(await ada.post("/account/keys", name="k"))
    found.append(await ada.post("/account/keys", name=""))
    return found


async def test_every_page_runs_nothing_loads_nothing_and_is_kept_nowhere(served: Served) -> None:
    for answer in await every_page(served):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "form-action 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert not re.search(r"<script|<img|<link|<iframe|\bon\w+=|src=|https?://|javascript:", answer.text)


async def test_whatever_people_call_themselves_and_their_keys_is_text(served: Served) -> None:
    evil = "\"'><script>alert(1)</script>&amp;"
    browser = Browser(served)
    link = served.app.first.link or ""
    await browser.get(f"/signup?link={link}")
    await browser.post("/signup", link=link, name=evil, email="ada@x.org", password=PASSWORD)
    calm(served)
    await browser.post("/account/login", email="ada@x.org", password=PASSWORD)
    await browser.post("/account/keys", name=evil)
    assert "<script" not in browser.page
    await browser.get("/account")
    assert "<script" not in browser.page
    assert browser.page.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;") == 2
    await browser.get("/signup?link=%22%3E%3Cscript%3E")
    assert "<script" not in browser.page


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"token=a&token=b", TYPE),
        (b"\xff=1", TYPE),
        (b"a=%ff", TYPE),
        (b"&".join(b"f%d=1" % number for number in range(40)), TYPE),
        (b'{"token": "x"}', "application/json"),
        (b"token=x", "text/plain"),
        (b"token=x", ""),
        (b"x" * 20_000, TYPE),
    ],
)
async def test_what_is_no_form_is_refused_in_words(served: Served, body: bytes, kind: str) -> None:
    headers = {"content-type": kind, "sec-fetch-site": "same-origin"}
    answer = await served.http.post("/account/login", content=body, headers=headers)
    assert answer.status_code in (400, 413)
    assert answer.headers["content-type"].startswith("text/html")


async def test_without_keys_there_is_no_form(serve: Serve) -> None:
    async with serve(auth="none") as served:
        for path in ("/account", "/signup"):
            assert (await served.http.get(path, headers={"host": "localhost"})).status_code == 404


async def test_somebody_elses_key_is_not_there_for_the_form_either(served: Served) -> None:
    bob = await someone(served, "bob")
    cy = await someone(served, "cy")
    browser = Browser(served)
    await browser.get("/signup?" + bob.link.partition("?")[2])
    await browser.post("/signup", link=bob.link.rpartition("=")[2], password=PASSWORD)
    calm(served)
    await browser.post("/account/login", email="bob@x.org", password=PASSWORD)
    for path in ("/account/keys/revoke", "/account/keys/rotate"):
        answer = await browser.post(path, key=cy.key_id)
        assert answer.status_code == 404
        assert cy.key_id in browser.said
    assert (await served.http.get("/v1/models", headers=bearer(cy.key))).status_code == 200


async def test_a_disabled_user_is_out_of_its_browser_at_once(served: Served) -> None:
    ada = await first_admin(served)
    bob = await someone(served, "bob", role="admin")
    me = (await ask(served, "GET", "/v1/admin/users")).json()["data"]
    [ada_id] = [one["id"] for one in me if one["email"] == "ada@x.org"]
    assert (await ask(served, "DELETE", f"/v1/admin/users/{ada_id}")).status_code == 200
    await ada.get("/account")
    assert 'action="/account/login"' in ada.page
    assert bob.id != ada_id


# Secrets.


async def test_no_secret_of_the_form_is_in_the_log_an_error_or_the_database(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    canary = "canary horse battery"
    async with serve() as served:
        link = served.app.first.link or ""
        browser = Browser(served)
        await browser.get(f"/signup?link={link}")
        await browser.post("/signup", link=link, name="Ada", email="ada@x.org", password=canary)
        calm(served)
        await browser.post("/account/login", email="ada@x.org", password=canary + "!")
        said = browser.page
        calm(served)
        await browser.post("/account/login", email="ada@x.org", password=canary)
        session = browser.cookie.partition("=")[2]
        key = await new_key(browser)
        wrong = await served.http.get("/v1/me", headers=bearer(key + "x"))
        reset = (await ask(served, "POST", f"/v1/admin/users/{await user_id(served)}/link")).json()["link"]
        config: Config = served.app._config
    secrets = [canary, link, session, key, reset.rpartition("=")[2], served.key]
    kept = b"".join(file.read_bytes() for file in config.data_dir.rglob("*") if file.is_file())
    logged = msgspec.json.encode(served.lines).decode() + caplog.text
    for secret in secrets:
        assert len(secret) >= 20
        assert secret.encode() not in kept
        assert secret not in logged
        assert secret not in said + wrong.text
    assert b"$argon2id$v=19$m=47104,t=1,p=1$" in kept


async def user_id(served: Served) -> str:
    found: str = (await ask(served, "GET", "/v1/admin/users")).json()["data"][0]["id"]
    return found
