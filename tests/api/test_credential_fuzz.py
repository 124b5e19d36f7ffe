"""Mutated credentials, paths and methods: none of them passes (E3). A few thousand here, 500,000 by `make soak`.

Every request goes straight into the application. Its allow-list is plain: the open routes, and what shows the very
text of a live key in the one header that counts. Everything else must be refused, whatever it looks like.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from convene.clock import SystemClock
from convene.serving.keyring import form_key
from convene.serving.tokens import form_token

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from api.conftest import Served

    Pair = tuple[bytes, bytes]
    Mutation = Callable[[random.Random, str], list[Pair]]

TRIES: Final = int(os.environ.get("CONVENE_SOAK_CREDENTIALS", "4000"))
SEED: Final = int(os.environ.get("CONVENE_SOAK_SEED", "20261126"))
SHUT: Final = (401, 403, 404, 405)
LETTERS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_- \t\x00\x7f\xe9"
PATHS: Final = (
    *(("GET", path) for path in ("/v1/models", "/v1/me", "/v1/keys", "/v1/admin/users", "/v1/admin/keys")),
    *(("POST", path) for path in ("/v1/keys", "/v1/admin/users", "/v1/admin/invitations", "/v1/embeddings")),
    ("POST", "/v1/chat/completions"),
    ("DELETE", "/v1/keys/000000000000"),
    ("PATCH", "/v1/admin/users/usr_1"),
)


def bearer(text: str) -> Pair:
    return b"authorization", b"Bearer " + text.encode("latin-1", "replace")


def one_letter(lots: random.Random, key: str) -> list[Pair]:
    place = lots.randrange(len(key))
    return [bearer(key[:place] + lots.choice(LETTERS) + key[place + 1 :])]


def cut(lots: random.Random, key: str) -> list[Pair]:
    return [bearer(key[: lots.randrange(len(key))] if lots.random() < 0.5 else key[lots.randrange(1, len(key)) :])]


def longer(lots: random.Random, key: str) -> list[Pair]:
    more = lots.choice(LETTERS.replace(" ", "").replace("\t", "")) * lots.randrange(1, 5)
    return [bearer(lots.choice((key + more, more + key, key + key)))]


def swapped(lots: random.Random, key: str) -> list[Pair]:
    first, second = lots.sample(range(len(key)), 2)
    letters = list(key)
    letters[first], letters[second] = letters[second], letters[first]
    return [bearer("".join(letters))]


def other_case(lots: random.Random, key: str) -> list[Pair]:
    return [bearer(lots.choice((key.upper(), key.lower(), key.swapcase(), key.title())))]


def well_formed(lots: random.Random, key: str) -> list[Pair]:
    key_id = key.split("_")[1] if lots.random() < 0.5 else "".join(lots.choices(LETTERS[:62], k=12))
    return [bearer(form_key(key_id, SystemClock()))]


def other_scheme(lots: random.Random, key: str) -> list[Pair]:
    scheme = lots.choice(("Basic", "Token", "Digest", "Bearer:", "Bear er", "Bearer=", "", "Key", "bearerx"))
    return [(b"authorization", f"{scheme} {key}".strip().encode())]


def other_header(lots: random.Random, key: str) -> list[Pair]:
    names = (
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"proxy-authorization",
        b"x-authorization",
        b"x-forwarded-authorization",
        b"authorization ",
        b"authorizatio\xf1",
        b"ocp-apim-subscription-key",
        b"x-convene-token",
    )
    return [(lots.choice(names), lots.choice((key, f"Bearer {key}")).encode())]


def as_cookie(lots: random.Random, key: str) -> list[Pair]:
    name = lots.choice(("__Host-convene", "convene", "session", "authorization", "key"))
    value = lots.choice((key, f"Bearer {key}", form_token("session", SystemClock()), "a" * 48, ""))
    return [(b"cookie", f"{name}={value}".encode())]


def right_then_wrong(lots: random.Random, key: str) -> list[Pair]:
    wrong = lots.choice((b"", b"Bearer", b"Bearer ", b"Bearer x", b"Basic eDp5"))
    return [bearer(key), (b"authorization", wrong)]


def a_link_or_session(lots: random.Random, _: str) -> list[Pair]:
    return [bearer(form_token(lots.choice(("link", "session")), SystemClock()))]


def nothing(lots: random.Random, _: str) -> list[Pair]:
    return [(b"authorization", lots.choice((b"", b" ", b"null", b"undefined", b"Bearer null", b"Bearer undefined")))]


MUTATIONS: Final[tuple[Mutation, ...]] = (
    *(one_letter, cut, longer, swapped, other_case, well_formed),
    *(other_scheme, other_header, as_cookie, right_then_wrong, a_link_or_session, nothing),
)


def other_path(lots: random.Random, path: str) -> str:
    """Return a path that a careless router may take for another one, or the same."""
    forms: tuple[Callable[[], str], ...] = (
        lambda: path,
        lambda: path.replace("/", "//"),
        lambda: path + "/",
        lambda: path.removeprefix("/v1"),
        lambda: "/health/.." + path,
        lambda: "/docs/../" + path.lstrip("/"),
        lambda: path + "/../../health",
        lambda: path + ";/health",
        lambda: path + "?/docs",
        lambda: path + "\x00/health",
        path.upper,
        lambda: "/./" + path.lstrip("/"),
        lambda: "/v1" + path,
        lambda: path + "/%2e%2e/health",
    )
    return lots.choice(forms)()


async def status_of(served: Served, method: str, path: str, headers: list[Pair]) -> int:
    """Return the status of one request that goes straight into the application."""
    statuses: list[int] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": headers,
        "client": ("192.0.2.1", 1),
    }
    await served.app.front(scope, receive, send)
    return statuses[0]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.__name__)
async def test_no_mutated_credential_passes(served: Served, mutation: Mutation) -> None:
    lots = random.Random(f"{SEED} {mutation.__name__}")  # noqa: S311 -- repeatable on purpose
    hosts = (b"convene.test", b"localhost", b"127.0.0.1", b"evil.example", b"localhost@convene.test", b"")
    for _ in range(max(1, TRIES // len(MUTATIONS))):
        method, path = lots.choice(PATHS)
        headers = mutation(lots, served.key)
        if any(
            value == b"Bearer " + served.key.encode() for _, value in headers[-1:] if headers[-1][0] == b"authorization"
        ):
            continue  # the mutation has changed nothing
        asked = other_path(lots, path)
        status = await status_of(served, method, asked, [(b"host", lots.choice(hosts)), *headers])
        assert status in SHUT, (SEED, method, asked, headers, status)


async def test_no_method_opens_a_shut_path(served: Served) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "", "X"):
        for _, path in PATHS:
            assert await status_of(served, method, path, []) in SHUT, (method, path)


async def test_the_key_itself_passes_in_every_spelling_that_means_the_same(served: Served) -> None:
    for scheme in (b"Bearer ", b"bearer ", b"BEARER  ", b" Bearer "):
        headers = [(b"authorization", scheme + served.key.encode())]
        for path in ("/v1/models", "/models", "//v1//models/", "/v1/me"):
            assert await status_of(served, "GET", path, headers) == 200, (scheme, path)


async def test_a_members_key_opens_no_admins_route_on_any_spelling(served: Served) -> None:
    text, _ = await served.app.accounts.ring.create("plain")
    lots = random.Random(SEED)  # noqa: S311 -- repeatable on purpose
    admins = [(method, path) for method, path in PATHS if "/admin/" in path]
    for _ in range(max(1, TRIES // 4)):
        method, path = lots.choice(admins)
        asked = other_path(lots, path)
        assert await status_of(served, method, asked, [bearer(text)]) in (403, 404, 405), (method, asked)
