"""From `[mcp.NAME]` to how a server is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.app_mcp import client_options, open_servers, settings_of
from convene.config import ConfigError, Mcp, Secret
from convene.http.client import HttpClient
from fakes import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from convene.http.client import ClientOptions

URL = "https://docs.test/mcp"


def test_every_setting_reaches_its_place() -> None:
    settings = settings_of(
        "docs",
        Mcp(
            url=URL,
            api_key=Secret("k"),
            headers={"x-team": Secret("blue")},
            tools=("a*",),
            labels=("private",),
            timeout_s=7,
            connect_s=2,
            refresh_s=30,
            answer_bytes_max=2000,
        ),
    )
    endpoint, terms = settings.endpoint, settings.terms
    assert (endpoint.url, endpoint.connect_s, endpoint.bytes_max) == (URL, 2, 2000)
    assert endpoint.headers == (("authorization", "Bearer k"), ("x-team", "blue"))
    assert (terms.server, terms.allow, terms.timeout_s) == ("docs", ("a*",), 7)
    assert terms.labels == frozenset({"private"})
    assert (settings.name, settings.refresh_s) == ("docs", 30)


def test_labels_that_are_unset_are_left_to_the_server() -> None:
    assert settings_of("docs", Mcp(url=URL)).terms.labels is None
    assert settings_of("docs", Mcp(url=URL, labels=())).terms.labels == frozenset()


def test_a_header_for_the_key_of_ones_own_comes_instead_of_ours() -> None:
    server = Mcp(url=URL, api_key=Secret("k"), headers={"Authorization": Secret("Basic abc")})
    assert settings_of("docs", server).endpoint.headers == (("Authorization", "Basic abc"),)


def test_the_proxy_and_the_certificates_are_the_servers_own(tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.write_text("")
    options = client_options("docs", Mcp(url=URL, proxy=Secret("http://p:3128"), ca_file=str(authorities)))
    assert (options.http_proxy, options.https_proxy) == ("http://p:3128", "http://p:3128")
    assert options.ca_file == str(authorities)
    with pytest.raises(ConfigError, match=r"mcp\.docs\.ca_file: there is no file"):
        client_options("docs", Mcp(url=URL, ca_file=str(tmp_path / "none.pem")))


def test_only_servers_that_are_switched_on_are_kept_each_with_a_client_of_its_own() -> None:
    made: list[ClientOptions] = []

    def connect(options: ClientOptions) -> HttpClient:
        made.append(options)
        return HttpClient(options)

    servers = {"a": Mcp(url=URL), "b": Mcp(url=URL, enabled=False), "c": Mcp(url=URL)}
    box = open_servers(servers, FakeClock(), connect)
    assert [server.name for server in box.servers] == ["a", "c"]
    assert len(made) == 2
