"""`/v1/usage`, `/v1/limits` and their admin forms in the whole application, driven by HTTP and the official client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from convene.serving.keyring import KeyRing
from ledger_double import entry

if TYPE_CHECKING:
    from api.conftest import Serve, Served

ADMIN_PATHS = ("/v1/admin/usage", "/v1/admin/usage/requests", "/v1/admin/usage/requests/e1")


async def get(served: Served, path: str, key: str | None = None) -> Any:  # noqa: ANN401 - JSON
    """Return an answer's JSON, which must be a 200."""
    answer = await served.http.get(path, headers={"Authorization": f"Bearer {key or served.key}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def another_key(served: Served, **fields: Any) -> tuple[str, str]:  # noqa: ANN401 - arguments of create
    """Return the text and the id of one more key, no admin's."""
    ring = served.app.front.gatekeeper
    assert isinstance(ring, KeyRing)
    text, record = await ring.create("another", **fields)
    return text, record.id


async def enter(served: Served, *numbers: int, **fields: object) -> None:
    """Write entries into the books."""
    for number in numbers:
        await served.app.ledger.finish(entry(number, **fields))


@pytest.mark.req("USAGE-02")
async def test_a_key_reads_what_it_used_and_nothing_of_others(served: Served) -> None:
    text, key_id = await another_key(served)
    await enter(served, 1, 2, key_id=key_id)
    await enter(served, 3, key_id="foreign")
    total = await get(served, "/v1/usage", text)
    assert (total["key"], total["total_tokens"], total["requests"]) == (key_id, 30, 2)
    assert all(isinstance(value, int) for name, value in total.items() if name.endswith("_tokens"))
    pages = await get(served, "/v1/usage/requests", text)
    assert [row["id"] for row in pages["data"]] == ["e2", "e1"]
    assert (await get(served, "/v1/usage/requests/req_1", text))["id"] == "e1"
    for path in ("/v1/usage/requests/e3", "/v1/usage/requests/nothing"):
        answer = await served.http.get(path, headers={"Authorization": f"Bearer {text}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.req("USAGE-02")
async def test_the_operator_reads_everybodys_and_nobody_else_does(served: Served) -> None:
    text, key_id = await another_key(served)
    await enter(served, 1, key_id=key_id)
    await enter(served, 2, key_id="foreign", user_id="u1")
    assert (await get(served, "/v1/admin/usage"))["requests"] == 2
    assert (await get(served, "/v1/admin/usage?user=u1"))["requests"] == 1
    by_key = await get(served, "/v1/admin/usage?group_by=key")
    assert {row["group"]["key"]: row["requests"] for row in by_key["data"]} == {key_id: 1, "foreign": 1}
    assert len((await get(served, "/v1/admin/usage/requests"))["data"]) == 2
    assert (await get(served, "/v1/admin/usage/requests/e2"))["key"] == "foreign"
    for path in ADMIN_PATHS:
        refused = await served.http.get(path, headers={"Authorization": f"Bearer {text}"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
        assert (await served.http.get(path)).status_code == 401


async def test_groups_and_entries_page_to_their_end(served: Served) -> None:
    text, key_id = await another_key(served)
    await enter(served, *(number * 3600 for number in range(10)), key_id=key_id)
    hours: list[str] = []
    after = ""
    while True:
        page = await get(served, f"/v1/usage?group_by=hour,model&limit=3{after}", text)
        hours += [row["group"]["hour"] for row in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['next_after']}"
    assert hours == [f"2026-11-26T{hour:02}" for hour in range(10)]
    ids: list[str] = []
    after = ""
    while True:
        page = await get(served, f"/v1/usage/requests?limit=4{after}", text)
        ids += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert ids == [f"e{hour * 3600}" for hour in reversed(range(10))]


@pytest.mark.req("ERRSHAPE-06")
@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/usage?group_by=century", "group_by"),
        ("/v1/usage?since=yesterday", "since"),
        ("/v1/usage?group_by=day&limit=5000", "limit"),
        ("/v1/usage?scope=all", "scope"),
        ("/v1/usage?group_by=day&after=xx", "after"),
        ("/v1/usage?group_by=day&after=WyJub3QgYSBkYXkiXQ", "after"),
        ("/v1/usage/requests?after=nothing", "after"),
        ("/v1/usage/requests/x?scope=world", "scope"),
        ("/v1/limits?model=a&model=b", "model"),
    ],
)
async def test_a_bad_parameter_is_a_400_in_the_one_shape(served: Served, path: str, param: str) -> None:
    answer = await served.http.get(path, headers=served.auth)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_limits_of_a_model_that_is_not_there_are_a_404(served: Served) -> None:
    answer = await served.http.get("/v1/limits?model=nothing", headers=served.auth)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_limits_name_the_key_and_its_plan(served: Served) -> None:
    found = await get(served, "/v1/limits")
    assert (found["object"], found["plan"], found["model"], found["currency"]) == ("list", "owner", None, "USD")


async def test_the_paths_work_without_v1_too(served: Served) -> None:
    assert (await get(served, "/usage"))["requests"] == 0
    assert (await get(served, "/admin/usage"))["requests"] == 0
    assert (await get(served, "/limits"))["object"] == "list"


async def test_without_keys_everybody_on_this_machine_is_the_operator(serve: Serve) -> None:
    async with serve(auth="none") as served:
        for path in ("/v1/usage", "/v1/admin/usage", "/v1/limits"):
            answer = await served.http.get(path, headers={"Host": "localhost"})
            assert answer.status_code == 200, answer.text
