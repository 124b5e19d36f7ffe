"""How agents and protocols are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uagents_core.identity import parse_identifier

from convene.registry.base_names import HANDLE, Identifier, bare, kind_of, read_identifier, with_prefix
from convene.store.base_market import AgentRow, Endpoint
from signed_agents import CHAT, SignedAgent

ADDRESS = SignedAgent().address


@pytest.mark.req("ID-06")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ADDRESS, Identifier("agent", "", ADDRESS)),
        (f"agent://{ADDRESS}", Identifier("agent", "", ADDRESS)),
        (f"test-agent://{ADDRESS}", Identifier("test-agent", "", ADDRESS)),
        (f"agent://name/{ADDRESS}", Identifier("agent", "name", ADDRESS)),
        (f"name.agent/{ADDRESS}", Identifier("agent", "name.agent", ADDRESS)),
        ("weather", Identifier("agent", "weather", "")),
        ("agent://weather.agent", Identifier("agent", "weather.agent", "")),
        ("", Identifier("agent", "", "")),
    ],
)
def test_a_name_has_prefix_name_and_address(text: str, expected: Identifier) -> None:
    assert read_identifier(text) == expected


@pytest.mark.parametrize("text", [ADDRESS, f"agent://{ADDRESS}", f"test-agent://{ADDRESS}", f"agent://x/{ADDRESS}"])
def test_names_are_read_as_the_library_reads_them(text: str) -> None:
    prefix, name, address = parse_identifier(text)
    assert read_identifier(text) == Identifier(prefix or "agent", name, address)


@pytest.mark.parametrize("text", ["fetch://x", "://x", "http://a.test", f"user://{ADDRESS}", "a://b://c"])
def test_a_prefix_that_nobody_knows_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        read_identifier(text)


@given(st.text())
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    try:
        found = read_identifier(text)
    except ValueError:
        return
    assert found.prefix in {"agent", "test-agent"}
    assert found.address in {"", ADDRESS} or len(found.address) == 65


@pytest.mark.req("ENVL-09")
def test_digests_come_in_both_forms() -> None:
    assert with_prefix(bare(CHAT)) == with_prefix(CHAT) == CHAT
    assert bare(bare(CHAT)) == CHAT.removeprefix("proto:")


@pytest.mark.parametrize(
    ("handle", "good"),
    [
        ("a", True),
        ("a-b_c.9", True),
        ("x" * 40, True),
        ("x" * 41, False),
        ("", False),
        ("-a", False),
        ("a.", False),
        ("A", False),
        ("a b", False),
        ("ä", False),
        ("a\n", False),
    ],
)
def test_handles_are_words_of_plain_letters(handle: str, good: bool) -> None:  # noqa: FBT001 -- a table's column
    assert (HANDLE.fullmatch(handle) is not None) is good


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v2/agents/mailbox/submit", "mailbox"),
        ("/v1/submit", "mailbox"),
        ("/v2/agents/proxy/submit", "proxy"),
        ("/v1/proxy/submit", "proxy"),
        ("/submit", "custom"),
        ("/v2/agents/mailbox/submit/x", "custom"),
    ],
)
def test_an_endpoint_says_how_an_agent_is_reached(path: str, kind: str) -> None:
    assert kind_of(AgentRow(id="x", endpoints=(Endpoint(f"http://h.test{path}"),))) == kind


def test_other_protocols_are_kinds_of_their_own() -> None:
    assert kind_of(AgentRow(id="x", protocol="a2a")) == "a2a"
    assert kind_of(AgentRow(id="x", protocol="mcp")) == "mcp"
    assert kind_of(AgentRow(id="x")) == "custom"
