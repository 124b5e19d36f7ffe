"""The pages of the form as HTML: what is in them, and that whatever people write stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Final

import msgspec
import pytest

from convene.api import forms
from convene.serving.base_accounts import KeyRecord, Link, User

EVIL: Final = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;"
TOKEN: Final = "ab" * 32
ADA: Final = User(id="usr_1", name="Ada", email="ada@x.org", role="admin", created_at=1.0)
KEY: Final = KeyRecord(
    id="a" * 12, name="laptop", owner="usr_1", plan="", digest=b"", last4="wxyz", created_at=1.0, user_id="usr_1"
)
INVITATION: Final = Link(
    id="lnk_1", digest=b"", purpose="signup", created_by="usr_1", created_at=1.0, expires_at=9.0, email="dee@x.org"
)
RESET: Final = msgspec.structs.replace(INVITATION, purpose="password", user_id="usr_1", email="ada@x.org")


class Read(HTMLParser):
    """What a page consists of for a browser."""

    def __init__(self, text: bytes | str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.fields: list[dict[str, dict[str, str]]] = []
        self.words = ""
        self.feed(text.decode() if isinstance(text, bytes) else text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag == "form":
            self.forms.append(given)
            self.fields.append({})
        if tag == "input":
            self.fields[-1][given["name"]] = given

    def handle_data(self, data: str) -> None:
        self.words += data

    def form(self, action: str) -> dict[str, dict[str, str]]:
        """Return the fields of the form with that action."""
        return next(self.fields[place] for place, form in enumerate(self.forms) if form["action"] == action)


def every_page() -> dict[str, bytes]:
    """Return each page with something evil in every place that people fill."""
    evil_user = msgspec.structs.replace(ADA, name=EVIL, email=EVIL)
    evil_key = msgspec.structs.replace(KEY, name=EVIL, id=EVIL, last4=EVIL)
    evil_link = msgspec.structs.replace(INVITATION, email=EVIL)
    evil_reset = msgspec.structs.replace(RESET, email=EVIL)
    return {
        "login": forms.page(EVIL, forms.login_form(EVIL, may_sign_up=True), EVIL),
        "signup": forms.page(EVIL, forms.signup_form(EVIL, EVIL, evil_link), EVIL),
        "open signup": forms.page(EVIL, forms.signup_form(EVIL, "", None), EVIL),
        "password": forms.page(EVIL, forms.signup_form(EVIL, EVIL, evil_reset), EVIL),
        "account": forms.page(EVIL, forms.account_page(EVIL, evil_user, [evil_key], 2.0), EVIL),
        "new key": forms.page(EVIL, forms.new_key(EVIL, evil_key), EVIL),
    }


@pytest.mark.parametrize("name", every_page())
def test_whatever_people_write_is_text_and_nothing_else(name: str) -> None:
    page = every_page()[name]
    read = Read(page)
    assert not {"script", "img", "iframe", "object", "embed", "link", "svg", "base"} & set(read.tags)
    assert b"<script" not in page
    assert EVIL in read.words, "it is there, as text"
    for fields in read.fields:
        for field in fields.values():
            assert not [attribute for attribute in field if attribute.startswith("on")]


@pytest.mark.parametrize("name", every_page())
def test_every_form_posts_to_this_server_with_its_token(name: str) -> None:
    read = Read(every_page()[name])
    for form, fields in zip(read.forms, read.fields, strict=True):
        assert form["method"] == "post"
        assert re.fullmatch(r"/(signup|account/[a-z/]+)", form["action"])
        assert fields["token"]["type"] == "hidden"
        assert fields["token"]["value"] == EVIL


def test_the_policy_names_the_one_style_there_is_and_allows_no_other() -> None:
    policy = dict(forms.GUARDED)[b"content-security-policy"].decode()
    page = forms.page("x", "").decode()
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "style=" not in page
    assert policy.split("; ")[0] == "default-src 'none'"
    assert "unsafe" not in policy


def test_a_title_and_what_is_said_are_there_only_when_there_is_something_to_say() -> None:
    assert Read(forms.page("Log in", "")).words.count("Log in") == 2
    assert b'role="status"' not in forms.page("Log in", "")
    assert b'role="status">No.</p>' in forms.page("Log in", "", "No.")


def test_a_log_in_asks_for_email_and_password_and_lets_browsers_fill_them_in() -> None:
    fields = Read(forms.login_form(TOKEN, may_sign_up=False)).form("/account/login")
    assert {name: field["type"] for name, field in fields.items()} == {
        "token": "hidden",
        "email": "email",
        "password": "password",
    }
    assert fields["password"]["autocomplete"] == "current-password"
    assert "/signup" in forms.login_form(TOKEN, may_sign_up=True)
    assert "/signup" not in forms.login_form(TOKEN, may_sign_up=False)


def test_a_sign_up_carries_its_link_and_the_address_it_is_for() -> None:
    fields = Read(forms.signup_form(TOKEN, "TEXT", INVITATION)).form("/signup")
    assert fields["link"]["value"] == "TEXT"
    assert fields["email"]["value"] == "dee@x.org"
    assert fields["password"]["autocomplete"] == "new-password"
    anybodys = Read(forms.signup_form(TOKEN, "", None)).form("/signup")
    assert "value" not in anybodys["email"]
    assert anybodys["link"]["value"] == ""


def test_a_new_password_asks_for_nothing_but_the_password() -> None:
    text = forms.signup_form(TOKEN, "TEXT", RESET)
    assert set(Read(text).form("/signup")) == {"token", "link", "password"}
    assert "ada@x.org" in text
    assert "at least 12 characters" in text


def test_an_account_shows_each_key_with_what_can_be_done_with_it() -> None:
    revoked = msgspec.structs.replace(KEY, id="b" * 12, name="old", revoked_at=1.5)
    expired = msgspec.structs.replace(KEY, id="c" * 12, name="late", expires_at=1.5)
    read = Read(forms.account_page(TOKEN, ADA, [KEY, revoked, expired], 2.0))
    actions = [form["action"] for form in read.forms]
    assert actions.count("/account/keys/revoke") == 2
    assert actions.count("/account/keys/rotate") == 2
    assert {"/account/keys", "/account/password", "/account/logout"} <= set(actions)
    ids = [fields["key"]["value"] for fields in read.fields if "key" in fields]
    assert ids == ["a" * 12] * 2 + ["c" * 12] * 2
    for word in ("laptop", "...wxyz", "active", "revoked", "expired", "ada@x.org", "admin"):
        assert word in read.words


def test_an_account_without_keys_says_so() -> None:
    assert "no keys yet" in forms.account_page(TOKEN, ADA, [], 2.0)


def test_a_new_key_is_shown_whole_and_leads_back_to_where_it_is_not() -> None:
    text = forms.new_key("convene_text", KEY)
    assert "<code>convene_text</code>" in text
    assert 'href="/account"' in text
    assert "convene_text" not in forms.account_page(TOKEN, ADA, [KEY], 2.0)
