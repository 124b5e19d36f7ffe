"""`/metrics` of the whole application: what requests leave there, and who may read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from convene.api.docs import read_page

if TYPE_CHECKING:
    from api.conftest import Serve, Served

CHAT = "/v1/chat/completions"


async def metric(served: Served, sample: str) -> float:
    """Return one sample; 0 while there is none."""
    answer = await served.http.get("/metrics", headers=served.auth)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return next(
        (float(line.rpartition(" ")[2]) for line in answer.text.splitlines() if line.startswith(sample + " ")), 0
    )


@pytest.mark.req("OPS-10", "OPS-11")
async def test_requests_whole_and_streamed_are_counted_with_their_tokens(served: Served) -> None:
    whole = await served.chat()
    await served.frames(stream_options={"include_usage": True})
    usage = whole.json()["usage"]
    labels = f'route="{CHAT}",model="scripted-echo"'
    assert await metric(served, f'convene_requests_total{{{labels},status="200"}}') == 2
    assert await metric(served, f"convene_request_duration_seconds_count{{{labels}}}") == 2
    assert await metric(served, 'convene_time_to_first_token_seconds_count{model="scripted-echo"}') == 2
    assert await metric(served, 'convene_inter_token_seconds_count{model="scripted-echo"}') == 1
    for kind in ("prompt", "completion"):
        counted = await metric(served, f'convene_tokens_total{{kind="{kind}",model="scripted-echo"}}')
        assert counted == 2 * usage[f"{kind}_tokens"]
    assert await metric(served, "convene_requests_in_flight") == 1, "the one that asks"


@pytest.mark.req("OPS-10")
async def test_names_from_outside_never_become_labels(served: Served) -> None:
    await served.chat(model="made-up-name")
    await served.http.get("/made/up/path", headers=served.auth)
    await served.http.post(CHAT, content=b"{}", headers={"Authorization": "Bearer made-up-key"})
    text = (await served.http.get("/metrics")).text
    assert "made-up" not in text
    assert "made/up" not in text
    assert await metric(served, 'convene_requests_total{route="unmatched",model="",status="404"}') == 1
    assert await metric(served, f'convene_requests_total{{route="{CHAT}",model="",status="404"}}') == 1
    assert await metric(served, f'convene_requests_total{{route="{CHAT}",model="",status="401"}}') == 1


@pytest.mark.parametrize(
    ("host", "setting", "bare", "with_key"),
    [
        ("127.0.0.1", "auto", 200, 200),
        ("0.0.0.0", "auto", 401, 200),  # noqa: S104 - nothing listens
        ("0.0.0.0", "open", 200, 200),  # noqa: S104 - nothing listens
        ("127.0.0.1", "key", 401, 200),
        ("127.0.0.1", "off", 404, 404),
    ],
)
async def test_it_is_open_on_loopback_and_elsewhere_for_admins_unless_set_otherwise(
    serve: Serve, host: str, setting: str, bare: int, with_key: int
) -> None:
    async with serve(host=host, metrics=setting) as served:
        assert (await served.http.get("/metrics")).status_code == bare
        assert (await served.http.get("/metrics", headers=served.auth)).status_code == with_key, (
            "the first key is an admin's"
        )


@pytest.mark.req("OPS-12")
async def test_the_page_explains_every_metric_there_is_and_maps_vllms(served: Served) -> None:
    text = (await served.http.get("/metrics")).text
    page = read_page("metrics")
    names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert names
    assert [name for name in names if f"| `{name}` |" not in page] == []
    vllm = (
        "num_requests_running num_requests_waiting kv_cache_usage_perc prompt_tokens_total generation_tokens_total "
        "time_to_first_token_seconds e2e_request_latency_seconds request_success_total"
    )
    assert [name for name in vllm.split() if f"`vllm:{name}" not in page] == []
    mapped = set(re.findall(r"`(convene_\w+)", page.partition("## From vLLM")[2]))
    assert {name.removesuffix("_bucket") for name in mapped} <= set(names), "no name that is not there"
