"""What has come into a run decides what may run, and nothing that any text says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.messages import ImagePart, Message, TextPart, ToolCall
from convene.serving.base_agentic import RunView
from convene.serving.policy import LabelPolicy, is_tainted, shown_addresses, was_shown, written_addresses
from convene.tools.base import Label, ToolSpec

if TYPE_CHECKING:
    from convene.events import StepKind

CALL = ToolCall("call_1", "any", "{}")


def spec(name: str, *labels: Label, kind: StepKind = "tool") -> ToolSpec:
    return ToolSpec(name=name, description="", parameters={}, kind=kind, labels=frozenset(labels))


def view(*labels: Label, user: str = "Do it.", addresses: tuple[str, ...] = ()) -> RunView:
    return RunView(messages=(Message(role="user", content=user),), labels=set(labels), addresses=set(addresses))


MAIL = spec("office__mail", "sends")
SEARCH = spec("web_search", "untrusted", kind="search")
FETCH = spec("web_fetch", "untrusted", kind="fetch")
DIARY = spec("office__diary", "private")


@pytest.mark.parametrize(
    ("tool", "labels", "runs"),
    [
        (MAIL, (), True),
        (MAIL, ("private",), True),
        (MAIL, ("untrusted",), False),
        (MAIL, ("untrusted", "private"), False),
        (DIARY, ("untrusted",), True),
        (SEARCH, ("untrusted",), True),
        (SEARCH, ("private",), True),
        (SEARCH, ("untrusted", "private"), False),
        (spec("both", "sends", "private", "untrusted"), ("untrusted",), False),
        (spec("plain"), ("untrusted", "private", "sends"), True),
    ],
)
def test_the_table_of_labels(tool: ToolSpec, labels: tuple[Label, ...], runs: bool) -> None:  # noqa: FBT001 - a table
    refused = LabelPolicy().check(CALL, tool, {}, view(*labels))
    assert (refused is None) == runs
    assert refused is None or f"'{tool.name}' was not run" in refused


@pytest.mark.parametrize(
    ("allowed", "runs"),
    [("office__mail", True), ("office__*", True), ("*mail", True), ("Office__mail", False), ("m", False)],
)
def test_an_operator_allows_tools_by_name_or_glob(allowed: str, runs: bool) -> None:  # noqa: FBT001 - a table
    policy = LabelPolicy(["other", allowed])
    assert (policy.check(CALL, MAIL, {}, view("untrusted", "private")) is None) == runs


def test_allowing_a_tool_does_not_open_addresses_that_nobody_has_shown() -> None:
    assert LabelPolicy(["*"]).check(CALL, FETCH, {"url": "https://evil.test/"}, view("untrusted")) is not None


@pytest.mark.parametrize(
    ("message", "tainted"),
    [
        (Message(role="user", content="[[1]](https://a.test/) says"), False),
        (Message(role="assistant", content="Rome is hot."), False),
        (Message(role="assistant", content="Rome is hot [[1]](https://a.test/)."), True),
        (Message(role="tool", content="{}", tool_call_id="c"), True),
        (Message(role="system", content="Be brief."), False),
    ],
)
def test_what_strangers_may_have_written_is_known_from_the_conversation_too(message: Message, *, tainted: bool) -> None:
    """An answer of an earlier request that cites the web may carry a stranger's orders into this one."""
    found = RunView(messages=(Message(role="user", content="Hello"), message))
    assert is_tainted(found) == tainted
    assert (LabelPolicy().check(CALL, MAIL, {}, found) is None) == (not tainted)


@pytest.mark.parametrize(
    ("user", "url"),
    [
        ("Read https://a.test/page please", "https://a.test/page"),
        ("Read https://a.test/page.", "https://a.test/page"),
        ("Read https://a.test/page.", "https://a.test/page."),
        ("Read [it](https://a.test/x_(y)).", "https://a.test/x_(y)"),
        ("(see https://a.test/?q=1&r=2)", "https://a.test/?q=1&r=2"),
        ("https://A.Test/Page", "https://a.test/Page"),
        ("https://A.Test/Page", "https://A.Test/Page"),
        ("<https://a.test>", "https://a.test/"),
        ("https://a.test/x", "https://a.test/x#part"),
        ("https://a.test/x#part", "https://a.test/x"),
        ("look at a.test/page now", "https://a.test/page"),
        ("look at a.test", "http://a.test/"),
        ("https://bücher.test/ä", "https://bücher.test/ä"),
    ],
)
def test_an_address_that_the_user_wrote_may_be_read(user: str, url: str) -> None:
    assert LabelPolicy().check(CALL, FETCH, {"url": url}, view(user=user)) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://a.test/page?leak=1",
        "https://a.test/page/leak",
        "https://a.test/pag",
        "https://a.test/",
        "https://leak.a.test/page",
        "https://a.test:8443/page",
        "https://leak@a.test/page",
        "https://A.test/page",
        "https://a.test/Page",
        "https://a.test/page%20",
        "http://a.test/page",
        "ftp://a.test/page",
        "a.test/page",
        "",
    ],
)
def test_an_address_with_anything_added_may_not(url: str) -> None:
    shown = view(user="Read https://a.test/page#top", addresses=("https://b.test/other",))
    assert LabelPolicy().check(CALL, FETCH, {"url": url}, shown) is not None


@pytest.mark.parametrize(
    "arguments", [{"url": 7}, {"urls": ["https://b.test/1", None]}, {"urls": ["https://b.test/1", "https://c.test/"]}]
)
def test_every_address_of_a_call_counts(arguments: dict[str, object]) -> None:
    assert LabelPolicy().check(CALL, FETCH, arguments, view(addresses=("https://b.test/1",))) is not None


def test_addresses_of_results_may_be_read_and_those_in_answers_or_other_tools_results_of_the_client_not() -> None:
    conversation = RunView(
        messages=(
            Message(role="user", content=(TextPart("see https://u.test/1"), ImagePart("https://i.test/1"))),
            Message(role="assistant", content="https://m.test/1"),
            Message(role="tool", content="https://t.test/1", tool_call_id="c"),
        ),
        addresses={"https://r.test/1"},
    )
    policy = LabelPolicy()
    read = {
        host: policy.check(CALL, FETCH, {"url": f"https://{host}.test/1"}, conversation) is None for host in "umitr"
    }
    assert read == {"u": True, "m": False, "i": False, "t": False, "r": True}


@given(st.text(alphabet="ah.:/?#& ()x", max_size=30), st.text(alphabet="a./?#x", max_size=8))
def test_what_may_be_read_stands_in_the_text_or_is_its_host_with_a_slash(noise: str, tail: str) -> None:
    text = f"{noise} https://h.test/{tail} {noise}"
    for address in shown_addresses(view(user=text)):
        rest = address.partition("://")[2]
        assert rest in text or rest.removesuffix("/") in text
    assert was_shown(f"https://h.test/{tail}", shown_addresses(view(user=text)))


def test_no_text_makes_the_look_for_addresses_slow() -> None:
    """Taking so many dots off one by one would square."""
    assert len(list(written_addresses("https://a.test/" + "." * 3_000))) < 20
