"""The route table: spellings of a path, parameters that take the rest, and 404 against 405."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.api.problems import MethodNotAllowed
from convene.api.routes import Route, Router
from convene.errors import NotFound

if TYPE_CHECKING:
    from convene.api.call import Call


async def endpoint(call: Call) -> None:
    """Do nothing."""
    del call


def route(method: str, path: str) -> Route:
    """Return a route."""
    return Route(method=method, path=path, endpoint=endpoint, summary="x")


ROUTER = Router(
    [
        route("GET", "/"),
        route("GET", "/v1/models"),
        route("GET", "/v1/models/{model}"),
        route("DELETE", "/v1/models/{model}"),
        route("POST", "/v1/chat/completions"),
        route("GET", "/health"),
    ]
)


@pytest.mark.req("OAI-31", "OAI-61")
@pytest.mark.parametrize(
    ("method", "path", "found", "params"),
    [
        ("GET", "/v1/models", "/v1/models", {}),
        ("GET", "/models", "/v1/models", {}),
        ("HEAD", "/v1/models", "/v1/models", {}),
        ("GET", "/v1/models/", "/v1/models", {}),
        ("GET", "//v1///models//", "/v1/models", {}),
        ("GET", "//", "/", {}),
        ("HEAD", "/", "/", {}),
        ("GET", "/v1/models/a", "/v1/models/{model}", {"model": "a"}),
        ("GET", "/v1/models/org/name:7b", "/v1/models/{model}", {"model": "org/name:7b"}),
        ("GET", "/models/org/name", "/v1/models/{model}", {"model": "org/name"}),
        ("DELETE", "/v1//models/a/", "/v1/models/{model}", {"model": "a"}),
        ("POST", "/chat/completions", "/v1/chat/completions", {}),
    ],
)
def test_a_path_is_found_in_each_of_its_spellings(method: str, path: str, found: str, params: dict[str, str]) -> None:
    route_found, route_params = ROUTER.find(method, path)
    assert (route_found.path, route_params) == (found, params)
    assert route_found.method == ("GET" if method == "HEAD" else method)


@pytest.mark.req("ERR-02", "ERRSHAPE-05")
@pytest.mark.parametrize("path", ["", "/v", "/v1", "/v2/models", "/v1/model", "/v1/healthy", "/V1/models", "/v1/chat"])
def test_an_unknown_path_is_unknown(path: str) -> None:
    with pytest.raises(NotFound) as caught:
        ROUTER.find("GET", path)
    assert caught.value.code == "unknown_url"


@pytest.mark.req("ERRSHAPE-02")
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/models", ("GET", "HEAD")),
        ("PUT", "/models/a/b", ("DELETE", "GET", "HEAD")),
        ("GET", "/v1/chat/completions", ("POST",)),
        ("HEAD", "/v1//chat/completions/", ("POST",)),
        ("get", "/v1/models", ("GET", "HEAD")),
    ],
)
def test_a_wrong_method_names_the_right_ones(method: str, path: str, allow: tuple[str, ...]) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        ROUTER.find(method, path)
    assert caught.value.allow == allow


def test_a_route_needs_a_key_unless_it_says_otherwise() -> None:
    assert not any(found.open for found in ROUTER.routes)


# Parameters in the middle of a path.

NESTED = Router(
    [
        route("POST", "/v1/keys"),
        route("DELETE", "/v1/keys/{key}"),
        route("POST", "/v1/keys/{key}/rotate"),
        route("GET", "/v1/teams/{team}/members"),
        route("DELETE", "/v1/teams/{team}/members/{user}"),
        route("PATCH", "/v1/teams/{team}"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "found", "params"),
    [
        ("POST", "/v1/keys/k1/rotate", "/v1/keys/{key}/rotate", {"key": "k1"}),
        ("POST", "/keys/k1/rotate/", "/v1/keys/{key}/rotate", {"key": "k1"}),
        ("POST", "//v1//keys//k1//rotate", "/v1/keys/{key}/rotate", {"key": "k1"}),
        ("POST", "/v1/keys/rotate/rotate", "/v1/keys/{key}/rotate", {"key": "rotate"}),
        ("DELETE", "/v1/keys/k1", "/v1/keys/{key}", {"key": "k1"}),
        ("DELETE", "/v1/keys/a/b", "/v1/keys/{key}", {"key": "a/b"}),
        ("GET", "/v1/teams/t1/members", "/v1/teams/{team}/members", {"team": "t1"}),
        ("HEAD", "/v1/teams/t1/members", "/v1/teams/{team}/members", {"team": "t1"}),
        ("DELETE", "/v1/teams/t1/members/u1", "/v1/teams/{team}/members/{user}", {"team": "t1", "user": "u1"}),
        ("DELETE", "/v1/teams/t1/members/u/1", "/v1/teams/{team}/members/{user}", {"team": "t1", "user": "u/1"}),
        ("PATCH", "/v1/teams/t1", "/v1/teams/{team}", {"team": "t1"}),
        ("POST", "/v1/keys/a.b+c\n/rotate", "/v1/keys/{key}/rotate", {"key": "a.b+c\n"}),
    ],
)
def test_a_parameter_in_the_middle_takes_one_segment_and_wins_over_one_that_takes_the_rest(
    method: str, path: str, found: str, params: dict[str, str]
) -> None:
    route_found, route_params = NESTED.find(method, path)
    assert (route_found.path, route_params) == (found, params)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/keys/k1/rotate", ("POST",)),
        ("DELETE", "/v1/keys/k1/rotate", ("POST",)),
        ("GET", "/v1/keys/k1", ("DELETE",)),
        ("GET", "/v1/keys", ("POST",)),
        ("POST", "/v1/teams/t1/members", ("GET", "HEAD")),
        ("GET", "/v1/teams/t1/members/u1", ("DELETE",)),
    ],
)
def test_a_wrong_method_on_a_nested_path_names_those_of_that_path_alone(
    method: str, path: str, allow: tuple[str, ...]
) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        NESTED.find(method, path)
    assert caught.value.allow == allow


@pytest.mark.parametrize(
    "path", ["/v1/keys//rotate", "/v1/keys/a/b/rotate", "/v1/teams//members/", "/v1/teams/members"]
)
def test_an_empty_or_doubled_segment_is_no_parameter(path: str) -> None:
    with pytest.raises((NotFound, MethodNotAllowed)):
        NESTED.find("POST", path)
