"""The pages of the form as HTML: sign up, log in, keys. Pure: values in, bytes out; everything is escaped.

No script, nothing loaded from anywhere, one style whose hash the content security policy names.
"""

from __future__ import annotations

import base64
import hashlib
import html
from typing import TYPE_CHECKING, Final

from convene.api.accounts_wire import key_of
from convene.serving.base_accounts import PASSWORD_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.api.problems import Header
    from convene.serving.base_accounts import KeyRecord, Link, User

STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}"
    "form{margin:1rem 0}label{display:block;margin:.5rem 0}"
    "input{display:block;width:100%;max-width:24rem;padding:.4rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ccc}"
    "td form{display:inline;margin:0}.said{border-left:4px solid #888;padding:.3rem .8rem}code{word-break:break-all}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}a{color:#9cf}}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
GUARDED: Final[tuple[Header, ...]] = (
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'".encode(),
    ),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Not no-referrer: browsers then send `Origin: null` with a form, and its origin could not be checked.
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


def page(title: str, body: str, said: str = "") -> bytes:
    """Return a whole page. `title` and `said` are text, `body` is HTML."""
    note = f'<p class="said" role="status">{_text(said)}</p>' if said else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{_text(title)} - Convene</title><style>{STYLE}</style><h1>{_text(title)}</h1>{note}{body}</html>"
    ).encode()


def login_form(token: str, *, may_sign_up: bool) -> str:
    """Return the form to log in with."""
    inner = _input("email", "Email", "email", "username") + _input(
        "password", "Password", "password", "current-password"
    )
    sign_up = '<p><a href="/signup">Make an account</a></p>' if may_sign_up else ""
    return _form("/account/login", token, inner, "Log in") + sign_up


def signup_form(token: str, link_text: str, link: Link | None) -> str:
    """Return the form to sign up with, or to set a password where the link is for that."""
    inner = f'<input type="hidden" name="link" value="{_text(link_text)}">'
    new = f"Password, at least {PASSWORD_MIN} characters"
    if link is not None and link.purpose == "password":
        inner += _fixed("Email", link.email) + _input("password", new, "password", "new-password")
        return _form("/signup", token, inner, "Set password")
    email = link.email if link is not None else ""
    inner += _input("name", "Name", "text", "name")
    inner += _input("email", "Email", "email", "username", value=email)
    inner += _input("password", new, "password", "new-password")
    return _form("/signup", token, inner, "Make account")


def account_page(token: str, user: User, keys: Sequence[KeyRecord], now: float) -> str:
    """Return a user's keys, and the forms to make one, to change the password and to log out."""
    rows = "".join(_row(token, record, now) for record in keys)
    table = f"<table><tr><th>Name<th>Key<th>State<th></tr>{rows}</table>" if keys else "<p>You have no keys yet.</p>"
    make = _form("/account/keys", token, _input("name", "Name of the new key", "text", "off"), "Make a key")
    old = _input("old", "Present password", "password", "current-password")
    new = _input("new", f"New password, at least {PASSWORD_MIN} characters", "password", "new-password")
    return (
        f"<p>{_text(user.name)} ({_text(user.email)}), {_text(user.role)}</p><h2>Keys</h2>{table}{make}"
        f"<h2>Password</h2>{_form('/account/password', token, old + new, 'Change password')}"
        f"{_form('/account/logout', token, '', 'Log out')}"
    )


def new_key(text: str, record: KeyRecord) -> str:
    """Return a key that was just made, shown this once."""
    return (
        f"<p>The key {_text(record.name)} is shown only now:</p><p><code>{_text(text)}</code></p>"
        f'<p><a href="/account">Back to your keys</a></p>'
    )


def _row(token: str, record: KeyRecord, now: float) -> str:
    state = key_of(record, now).state
    hidden = f'<input type="hidden" name="key" value="{_text(record.id)}">'
    acts = "" if state == "revoked" else _form("/account/keys/rotate", token, hidden, "New secret")
    acts += "" if state == "revoked" else _form("/account/keys/revoke", token, hidden, "Revoke")
    return f"<tr><td>{_text(record.name)}<td>...{_text(record.last4)}<td>{state}<td>{acts}</tr>"


def _form(action: str, token: str, inner: str, button: str) -> str:
    hidden = f'<input type="hidden" name="token" value="{_text(token)}">'
    return f'<form method="post" action="{action}">{hidden}{inner}<button>{_text(button)}</button></form>'


def _input(name: str, label: str, kind: str, autocomplete: str, value: str = "") -> str:
    filled = f' value="{_text(value)}"' if value else ""
    attributes = f'name="{name}" type="{kind}" autocomplete="{autocomplete}" required{filled}'
    return f"<label>{_text(label)}<input {attributes}></label>"


def _fixed(label: str, value: str) -> str:
    return f"<p>{_text(label)}: {_text(value)}</p>"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
