"""`/signup` and `/account`: a minimal form to sign up by link, log in, and make, rotate and revoke one's keys (KEY-01).

Pages need no key; what they may do follows from the browser's session. Every change is a POST that must come from a
page of this server with the token of its cookie, the log-in included, so that no other site can log a browser in as
somebody else. A link in the address is only looked at; the POST uses it up. The full console comes later on this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from convene.api import forms
from convene.api.browser import cookie_of, drop_cookie, form_token_of, set_cookie
from convene.api.problems import headers_of, status_of
from convene.api.query import Query
from convene.api.routes import Route
from convene.errors import BadRequest, ConveneError, Unauthorized
from convene.serving.base_accounts import KeyDraft, Visitor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.api.browser import Browsers
    from convene.api.call import Call
    from convene.api.problems import Header
    from convene.serving.base_accounts import Doors, KeyDesk

HTML: Final = b"text/html; charset=utf-8"
BODY_MAX: Final = 16_384
FIELDS_MAX: Final = 16
DONE: Final = "Done. If this address had no account yet, it has one now: log in with the password you chose."
"""What every sign-up is told, so that nobody learns which emails have accounts."""

Fields = dict[str, str]


class Forms:
    """The pages and what their buttons do."""

    def __init__(
        self, doors: Doors, desk: KeyDesk, browsers: Browsers, new_cookie: Callable[[], str], now: Callable[[], float]
    ) -> None:
        """`new_cookie` makes a random text that is no session: what a form's token belongs to before the log-in."""
        self._doors = doors
        self._desk = desk
        self._browsers = browsers
        self._new_cookie = new_cookie
        self._now = now

    def routes(self) -> tuple[Route, ...]:
        """Return the routes; they are no part of the API description."""
        rows = (
            ("GET", "/signup", self.show_signup),
            ("POST", "/signup", self.sign_up),
            ("GET", "/account", self.show_account),
            ("POST", "/account/login", self.log_in),
            ("POST", "/account/logout", self.log_out),
            ("POST", "/account/password", self.change_password),
            ("POST", "/account/keys", self.make_key),
            ("POST", "/account/keys/rotate", self.rotate_key),
            ("POST", "/account/keys/revoke", self.revoke_key),
        )
        return tuple(
            Route(method=method, path=path, endpoint=endpoint, summary="Form", open=True, tag="Form", described=False)
            for method, path, endpoint in rows
        )

    async def show_signup(self, call: Call) -> None:
        """Show the form that a link opens, or why there is none."""
        text = Query.of(call).text("link") or ""
        await self._show_signup(call, text)

    async def sign_up(self, call: Call) -> None:
        """Make the account, or set the password, that a link is for."""

        async def act(fields: Fields) -> None:
            text = fields.get("link", "")
            link = await self._doors.look_at(text)
            address = address_of(call)
            if link is not None and link.purpose == "password":
                await self._doors.set_password(text, fields.get("password", ""), address)
            else:
                name, email, password = (fields.get(field, "") for field in ("name", "email", "password"))
                await self._doors.sign_up(text, name, email, password, address)
            await self._show_login(call, DONE if link is None or link.purpose == "signup" else "Done. Log in with it.")

        async def again(fields: Fields, fault: ConveneError) -> None:
            await self._show_signup(call, fields.get("link", ""), fault)

        await self._change(call, act, again)

    async def show_account(self, call: Call) -> None:
        """Show the keys of who is logged in, else the form to log in."""
        visitor = await self._browsers.visitor(call)
        if visitor is None:
            await self._show_login(call)
        else:
            await self._show_keys(call, visitor)

    async def log_in(self, call: Call) -> None:
        """Open a session. Its text is new, whatever cookie came with the form."""

        async def act(fields: Fields) -> None:
            held = cookie_of(call)
            session = await self._doors.log_in(fields.get("email", ""), fields.get("password", ""), address_of(call))
            if held is not None:
                await self._doors.log_out(held)
            await _go(call, set_cookie(call, session))

        async def again(_: Fields, fault: ConveneError) -> None:
            await self._show_login(call, fault.message, fault)

        await self._change(call, act, again)

    async def log_out(self, call: Call) -> None:
        """End the session."""

        async def act(_: Fields) -> None:
            await self._doors.log_out(cookie_of(call) or "")
            await _go(call, drop_cookie(call))

        await self._change(call, act, self._refuse(call))

    async def change_password(self, call: Call) -> None:
        """Change the password; every other browser is logged out."""

        async def act(fields: Fields) -> None:
            visitor = await self._visitor(call)
            session = await self._doors.change_password(
                visitor, fields.get("old", ""), fields.get("new", ""), address_of(call)
            )
            await _go(call, set_cookie(call, session))

        await self._change(call, act, self._refuse(call))

    async def make_key(self, call: Call) -> None:
        """Make a key and show it, once."""

        async def act(fields: Fields) -> None:
            visitor = await self._visitor(call)
            text, record = await self._desk.create(visitor.principal, KeyDraft(name=fields.get("name", "")))
            await _show(call, forms.page("Your new key", forms.new_key(text, record)))

        await self._change(call, act, self._refuse(call))

    async def rotate_key(self, call: Call) -> None:
        """Give a key another secret and show it, once."""

        async def act(fields: Fields) -> None:
            visitor = await self._visitor(call)
            text, record = await self._desk.rotate(visitor.principal, fields.get("key", ""))
            await _show(call, forms.page("Your new key", forms.new_key(text, record)))

        await self._change(call, act, self._refuse(call))

    async def revoke_key(self, call: Call) -> None:
        """End a key."""

        async def act(fields: Fields) -> None:
            visitor = await self._visitor(call)
            await self._desk.revoke(visitor.principal, fields.get("key", ""))
            await _go(call)

        await self._change(call, act, self._refuse(call))

    async def _change(
        self,
        call: Call,
        act: Callable[[Fields], Awaitable[None]],
        again: Callable[[Fields, ConveneError], Awaitable[None]],
    ) -> None:
        """Read a form, refuse what is not from a page of ours, do what it says, or show it again with the reason."""
        fields: Fields = {}
        try:
            fields = await _read(call)
            self._browsers.check_change(call, fields.get("token", ""))
            await act(fields)
        except ConveneError as fault:
            if call.status:  # the page was half sent
                raise
            await again(fields, fault)

    def _refuse(self, call: Call) -> Callable[[Fields, ConveneError], Awaitable[None]]:
        async def refuse(_: Fields, fault: ConveneError) -> None:
            visitor = await self._browsers.visitor(call)
            if visitor is None:
                await self._show_login(call, fault.message, fault)
            else:
                await self._show_keys(call, visitor, fault)

        return refuse

    async def _visitor(self, call: Call) -> Visitor:
        visitor = await self._browsers.visitor(call)
        if visitor is None:
            raise Unauthorized("Your session has ended. Log in again.")
        return visitor

    async def _show_keys(self, call: Call, visitor: Visitor, fault: ConveneError | None = None) -> None:
        keys = await self._desk.mine(visitor.principal)
        body = forms.account_page(form_token_of(visitor.session), visitor.user, keys, self._now())
        await _show(call, forms.page("Your account", body, fault.message if fault else ""), fault)

    async def _show_login(self, call: Call, said: str = "", fault: ConveneError | None = None) -> None:
        token, headers = self._token(call)
        body = forms.login_form(token, may_sign_up=self._doors.is_open)
        await _show(call, forms.page("Log in", body, said), fault, headers)

    async def _show_signup(self, call: Call, text: str, fault: ConveneError | None = None) -> None:
        link = await self._doors.look_at(text)
        said = fault.message if fault else ""
        if link is None and not (self._doors.is_open and not text):
            said = said or "To make an account you need an invitation link that was not used yet. Ask for one."
            await _show(call, forms.page("Sign up", '<p><a href="/account">Log in</a></p>', said), fault)
            return
        token, headers = self._token(call)
        title = "Set your password" if link is not None and link.purpose == "password" else "Sign up"
        await _show(call, forms.page(title, forms.signup_form(token, text, link), said), fault, headers)

    def _token(self, call: Call) -> tuple[str, list[Header]]:
        """Return the token for a form before the log-in, and the cookie it belongs to if that is new."""
        held = cookie_of(call)
        if held is not None:
            return form_token_of(held), []
        cookie = self._new_cookie()
        return form_token_of(cookie), [set_cookie(call, cookie)]


def address_of(call: Call) -> str:
    """Return the client's address; a proxy in front is one client (see the page on security)."""
    client = call.scope.get("client")
    return str(client[0]) if client else ""


async def _read(call: Call) -> Fields:
    """Return a form's fields, each once. Raises `BadRequest`, `TooLarge`."""
    call.body_bytes_max = min(call.body_bytes_max, BODY_MAX)
    kind = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise BadRequest("This is a form: send application/x-www-form-urlencoded.")
    try:
        text = (await call.body()).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError:
        raise BadRequest("The form is not percent-encoded UTF-8.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadRequest("A field of the form came twice.")
    return fields


async def _show(
    call: Call, body: bytes, fault: ConveneError | None = None, headers: list[Header] | None = None
) -> None:
    status = 200 if fault is None else status_of(fault)
    wait = [] if fault is None or fault.retry_after_s is None else headers_of(fault)
    await call.reply(status, body, HTML, [*forms.GUARDED, *wait, *(headers or ())])


async def _go(call: Call, *headers: Header) -> None:
    """Lead the browser to its account with a GET, so that reloading repeats nothing."""
    await call.reply(303, b"", HTML, [(b"location", b"/account"), *forms.GUARDED, *headers])
