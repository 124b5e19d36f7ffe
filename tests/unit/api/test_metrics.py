"""Metrics: what is counted under which labels, and that the text is Prometheus'."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.api.metrics import CONTENT_TYPE, SPANS_S, TOKEN_SPANS_S, Metrics, MetricsPage
from convene.errors import Forbidden
from convene.limits.limit import MINUTE_US, Limit, Refusal, Unit
from convene.serving.base import Outcome, Principal, Standing
from convene.usage import Usage
from unit.api.asgi_doubles import Connection

if TYPE_CHECKING:
    from typing import Literal

CHAT = "/v1/chat/completions"
Samples = dict[str, float]

_SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (\S+)')


def read(text: bytes) -> tuple[Samples, dict[str, str]]:
    """Return samples by name and labels, and types by family. Fails where the text is not the exposition format."""
    samples: Samples = {}
    types: dict[str, str] = {}
    family = ""
    assert text.endswith(b"\n")
    for line in text.decode().splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert family not in types, "a family comes once"
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family
            types[name] = kind
            continue
        found = _SAMPLE.fullmatch(line)
        assert found is not None, line
        suffixes = ("_bucket", "_sum", "_count") if types[family] == "histogram" else ("",)
        assert found[1] in {family + suffix for suffix in suffixes}, line
        key = found[1] + (found[2] or "")
        assert key not in samples, "one sample a set of labels"
        samples[key] = float(found[3])
    return samples, types


def note(
    metrics: Metrics,
    path: str = CHAT,
    status: int = 200,
    outcome: Outcome | None = None,
    duration_s: float = 0.2,
    *,
    streamed: bool = False,
) -> None:
    """Note one request that has ended."""
    call = Connection(path=path).call()
    call.status, call.outcome, call.streamed = status, outcome, streamed
    metrics.note(call, duration_s)


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of a server with two routes."""
    made = Metrics(info={"version": "1.2"}, queue_depth=lambda: 3)
    made.attach([CHAT, "/v1/models"], lambda: 5)
    return made


@pytest.mark.req("OPS-10")
def test_every_name_has_the_prefix_counters_end_in_total_and_spans_are_seconds(metrics: Metrics) -> None:
    note(metrics, outcome=Outcome(model="m", usage=Usage(1, 2), first_event_ms=1))
    samples, types = read(metrics.render())
    assert all(name.startswith("convene_") for name in types)
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in types.items())
    assert all(name.endswith("_seconds") for name, kind in types.items() if kind == "histogram")
    assert not [key for key in samples if re.search(r'(key|user|owner|team|session)="', key)]


@pytest.mark.req("OPS-11")
def test_the_set_of_the_conventions_is_there_before_anything_happened(metrics: Metrics) -> None:
    samples, types = read(metrics.render())
    assert types == {
        "convene_build_info": "gauge",
        "convene_requests_total": "counter",
        "convene_requests_in_flight": "gauge",
        "convene_queue_depth": "gauge",
        "convene_request_duration_seconds": "histogram",
        "convene_time_to_first_token_seconds": "histogram",
        "convene_inter_token_seconds": "histogram",
        "convene_tokens_total": "counter",
        "convene_tool_calls_total": "counter",
        "convene_agent_calls_total": "counter",
        "convene_limit_refusals_total": "counter",
    }
    assert samples["convene_queue_depth"] == 3
    assert samples["convene_requests_in_flight"] == 5
    assert samples['convene_build_info{version="1.2"}'] == 1


@pytest.mark.req("OPS-11")
def test_requests_are_counted_by_route_model_and_status(metrics: Metrics) -> None:
    for status in (200, 200, 499):
        note(metrics, status=status, outcome=Outcome(model="m"))
    note(metrics, path="/v1/models")
    samples, _ = read(metrics.render())
    assert samples[f'convene_requests_total{{route="{CHAT}",model="m",status="200"}}'] == 2
    assert samples[f'convene_requests_total{{route="{CHAT}",model="m",status="499"}}'] == 1
    assert samples['convene_requests_total{route="/v1/models",model="",status="200"}'] == 1


def test_paths_that_are_no_routes_are_one_label(metrics: Metrics) -> None:
    for number in range(1000):
        note(metrics, path=f"/scan/{number}", status=404)
    samples, _ = read(metrics.render())
    assert samples['convene_requests_total{route="unmatched",model="",status="404"}'] == 1000
    assert len([key for key in samples if key.startswith("convene_requests_total")]) == 1


@pytest.mark.req("OPS-11")
def test_durations_and_first_tokens_fall_into_cumulated_buckets(metrics: Metrics) -> None:
    for status, duration_s in ((200, 0.005), (200, 0.2), (500, 1000.0)):
        note(metrics, status=status, outcome=Outcome(model="m", first_event_ms=duration_s * 500), duration_s=duration_s)
    samples, _ = read(metrics.render())
    labels = f'route="{CHAT}",model="m"'
    found = [samples[f'convene_request_duration_seconds_bucket{{{labels},le="{bound}"}}'] for bound in SPANS_S]
    assert found == [1.0] * 5 + [2.0] * 10
    assert samples[f'convene_request_duration_seconds_bucket{{{labels},le="+Inf"}}'] == 3
    assert samples[f"convene_request_duration_seconds_count{{{labels}}}"] == 3
    assert samples[f"convene_request_duration_seconds_sum{{{labels}}}"] == pytest.approx(1000.205)
    assert samples['convene_time_to_first_token_seconds_bucket{model="m",le="0.1"}'] == 2
    assert samples['convene_time_to_first_token_seconds_sum{model="m"}'] == pytest.approx(500.1025)


@pytest.mark.req("OPS-11")
def test_tokens_are_counted_by_kind_and_the_time_between_them_only_of_streams(metrics: Metrics) -> None:
    usage = Usage(prompt_tokens=100, completion_tokens=11, reasoning_tokens=4, cached_tokens=60)
    note(metrics, outcome=Outcome(model="m", usage=usage, first_event_ms=100), duration_s=0.3, streamed=True)
    note(metrics, outcome=Outcome(model="m", usage=usage, first_event_ms=100), duration_s=0.3)
    samples, _ = read(metrics.render())
    tokens = {kind: samples[f'convene_tokens_total{{kind="{kind}",model="m"}}'] for kind in ("prompt", "cached")}
    assert tokens == {"prompt": 200, "cached": 120}
    assert samples['convene_tokens_total{kind="completion",model="m"}'] == 22
    assert samples['convene_tokens_total{kind="reasoning",model="m"}'] == 8
    assert samples['convene_inter_token_seconds_count{model="m"}'] == 1
    assert samples['convene_inter_token_seconds_sum{model="m"}'] == pytest.approx(0.02)


@pytest.mark.parametrize("usage", [None, Usage(5, 1), Usage(5, 0)])
def test_a_stream_of_less_than_two_tokens_has_no_time_between_them(metrics: Metrics, usage: Usage | None) -> None:
    note(metrics, outcome=Outcome(model="m", usage=usage, first_event_ms=100), streamed=True)
    samples, _ = read(metrics.render())
    assert samples['convene_inter_token_seconds_count{model="m"}'] == 0


def test_tools_and_agents_are_counted(metrics: Metrics) -> None:
    tools = (("search", "done"), ("search", "failed"), ("search", "done"))
    note(metrics, outcome=Outcome(model="m", tools=tools, agent_calls=2))
    samples, _ = read(metrics.render())
    assert samples['convene_tool_calls_total{tool="search",status="done",model="m"}'] == 2
    assert samples['convene_tool_calls_total{tool="search",status="failed",model="m"}'] == 1
    assert samples['convene_agent_calls_total{model="m"}'] == 2


def test_refusals_are_counted_by_scope_and_limit_never_by_subject(metrics: Metrics) -> None:
    for subject in ("k1", "k2"):
        limit = Limit.rate(Unit.TOKENS, 9, MINUTE_US, scope="key", subject=subject, name="tokens per minute")
        refusal = Refusal(limit, "wait", 1, 0, (0,))
        note(metrics, status=429, outcome=Outcome(model="m", standing=Standing((limit,), (0,), 0, refusal)))
    note(metrics, outcome=Outcome(model="m", standing=Standing((limit,), (0,), 0)))
    samples, _ = read(metrics.render())
    assert samples['convene_limit_refusals_total{scope="key",limit="tokens per minute"}'] == 2
    assert len([key for key in samples if key.startswith("convene_limit")]) == 1


@given(st.text(max_size=30))
def test_whatever_a_model_is_called_the_text_parses(name: str) -> None:
    metrics = Metrics(info={})
    metrics.attach([CHAT], lambda: 0)
    assume_line = name.replace("\r", "").replace("\x85", "")
    note(metrics, outcome=Outcome(model="".join(assume_line.splitlines())))
    samples, _ = read(metrics.render())
    assert sum(value for key, value in samples.items() if key.startswith("convene_requests_total")) == 1


def test_names_with_quotes_backslashes_and_line_ends_are_escaped(metrics: Metrics) -> None:
    note(metrics, outcome=Outcome(model='a"b\\c\nd'))
    assert rb'model="a\"b\\c\nd",status' in metrics.render()


@given(st.lists(st.floats(0, 1000), max_size=30))
def test_buckets_never_fall_and_end_at_the_count(durations: list[float]) -> None:
    metrics = Metrics(info={})
    metrics.attach([CHAT], lambda: 0)
    for duration_s in durations:
        note(metrics, duration_s=duration_s)
    samples, _ = read(metrics.render())
    prefix = f'convene_request_duration_seconds_bucket{{route="{CHAT}",model="",le='
    counts = [value for key, value in samples.items() if key.startswith(prefix)]
    assert counts == sorted(counts)
    assert sum(counts[-1:]) == len(durations)
    for bound, count in zip(SPANS_S, counts, strict=False):
        assert count == sum(duration_s <= bound for duration_s in durations)


def test_the_bounds_rise() -> None:
    for bounds in (SPANS_S, TOKEN_SPANS_S):
        assert list(bounds) == sorted(set(bounds))
        assert math.isfinite(bounds[-1])


async def show(access: Literal["open", "key", "off"], principal: Principal | None) -> Connection:
    """Ask for the page."""
    [route] = MetricsPage(Metrics(info={}), access).routes()
    connection = Connection(method="GET", path="/metrics")
    call = connection.call()
    call.principal = principal
    await route.endpoint(call)
    return connection


async def test_the_page_is_open_for_admins_or_not_there() -> None:
    admin = Principal(key_id="k", owner="k", scopes=("api", "admin"))
    opened = await show("open", None)
    assert opened.headers[b"content-type"] == CONTENT_TYPE
    assert read(opened.body)
    assert (await show("key", admin)).status == 200
    with pytest.raises(Forbidden):
        await show("key", Principal(key_id="k", owner="k", scopes=("api",)))
    assert MetricsPage(Metrics(info={}), "off").routes() == ()
    assert [route.open for route in MetricsPage(Metrics(info={}), "key").routes()] == [False]
    assert [route.open for route in MetricsPage(Metrics(info={}), "open").routes()] == [True]
