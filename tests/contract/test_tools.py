"""What every tool owes to the seam (`tools/base.py`), whatever it does."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, get_args

import jsonschema_rs
import msgspec
import pytest

from contract.tools_offered import TOOLS, Offered
from convene.errors import Retry
from convene.events import StepKind
from convene.tools.base import Label, ToolContext, ToolResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def opened(name: str) -> AsyncIterator[Offered]:
    offered = TOOLS[name]()
    try:
        yield offered
    finally:
        await offered.close()


def context(said: list[str] | None = None) -> ToolContext:
    progress = said.append if said is not None else lambda _: None
    return ToolContext(owner="o", run_id="run_1", call_id="call_1", idempotency_key="run_1:s1:0", progress=progress)


pytestmark = pytest.mark.parametrize("name", TOOLS)


async def test_its_name_kind_labels_and_time_are_of_the_seam(name: str) -> None:
    async with opened(name) as offered:
        spec = offered.tool.spec
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", spec.name)
        assert spec.kind in get_args(StepKind)
        assert spec.labels <= set(get_args(Label))
        assert spec.timeout_s > 0
        assert spec.description.strip()
        assert spec.source


async def test_its_parameters_are_a_closed_schema_of_an_object_in_which_everything_is_explained(name: str) -> None:
    async with opened(name) as offered:
        spec = offered.tool.spec
        jsonschema_rs.meta.validate(spec.parameters)
        assert spec.parameters["type"] == "object"
        assert spec.parameters["additionalProperties"] is False
        properties = spec.parameters["properties"]
        assert isinstance(properties, dict)
        assert set(spec.parameters["required"]) <= set(properties)  # type: ignore[call-overload]
        assert all(one.get("description") for one in properties.values())
        assert jsonschema_rs.is_valid(spec.parameters, dict(offered.good))
        assert msgspec.json.decode(msgspec.json.encode(spec.parameters)) == spec.parameters


async def test_what_it_finds_can_be_written_to_a_journal_and_read_back(name: str) -> None:
    async with opened(name) as offered:
        result = await offered.tool.run(offered.good, context())
        assert result.text
        assert msgspec.json.decode(msgspec.json.encode(result), type=ToolResult) == result


async def test_addresses_that_it_shows_stand_in_its_text_word_for_word(name: str) -> None:
    async with opened(name) as offered:
        result = await offered.tool.run(offered.good, context())
        assert all(link in result.text for link in result.links)


async def test_it_says_in_a_few_words_what_it_does(name: str) -> None:
    async with opened(name) as offered:
        said: list[str] = []
        await offered.tool.run(offered.good, context(said))
        assert said
        assert all(0 < len(words) <= 120 for words in said)


async def test_arguments_of_the_wrong_shape_are_a_retry_that_says_so(name: str) -> None:
    async with opened(name) as offered:
        required = offered.tool.spec.parameters["required"]
        assert isinstance(required, list)
        wrong: list[dict[str, object]] = [{}, dict.fromkeys(required), {field: [[]] for field in required}]
        for arguments in wrong:
            with pytest.raises(Retry) as caught:
                await offered.tool.run(arguments, context())
            assert caught.value.message


async def test_cancelled_it_stops_at_once_and_can_be_called_again(name: str) -> None:
    async with opened(name) as offered:
        offered.hang()
        for _ in range(3):
            task = asyncio.ensure_future(offered.tool.run(offered.good, context()))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5.0)


async def test_many_turns_may_call_it_at_the_same_time(name: str) -> None:
    async with opened(name) as offered:
        results = await asyncio.gather(*(offered.tool.run(offered.good, context()) for _ in range(8)))
        assert len({result.text for result in results}) == 1
