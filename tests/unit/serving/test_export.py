"""Entries as lines of CSV and of JSON."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.serving.export import HEAD, csv_lines, json_lines
from convene.store.base_ledger import Entry
from ledger_samples import entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def given_entries(*entries: Entry) -> AsyncIterator[Entry]:
    for one in entries:
        yield one


async def as_csv(*entries: Entry) -> list[dict[str, str]]:
    text = "".join([line async for line in csv_lines(given_entries(*entries))])
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def test_nothing_is_a_head_alone_in_csv_and_nothing_in_json() -> None:
    assert [line async for line in csv_lines(given_entries())] == [",".join(HEAD) + "\r\n"]
    assert [line async for line in json_lines(given_entries())] == []


async def test_a_line_of_csv_has_every_field_in_its_column() -> None:
    one = entry(1, stream=True, estimated=False, ttft_us=None, session_id='two\nlines, "quoted"', cost_micros=-5)
    [row] = await as_csv(one)
    assert list(row) == list(Entry.__struct_fields__)
    for name, cell in row.items():
        value = getattr(one, name)
        assert cell == ("" if value is None else str(int(value)) if isinstance(value, bool) else str(value))


async def test_a_line_of_json_is_the_entry_and_no_more_than_a_line() -> None:
    several = [entry(1, session_id="a\nb"), entry(2, ttft_us=5, request_id="ü\u2028")]
    lines = [line async for line in json_lines(given_entries(*several))]
    assert [msgspec.json.decode(line, type=Entry) for line in lines] == several
    assert all(line.count("\n") == 1 and line.endswith("}\n") for line in lines)
    assert set(msgspec.json.decode(lines[0])) == set(Entry.__struct_fields__)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x","y")'])
async def test_a_text_that_a_spreadsheet_would_run_is_text(text: str) -> None:
    [row] = await as_csv(entry(1, request_id=text))
    assert row["request_id"] == f"'{text}"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
async def test_any_text_comes_back_from_csv(text: str) -> None:
    [row] = await as_csv(entry(1, agent_address=text))
    assert row["agent_address"].removeprefix("'") == text.removeprefix("'")


async def test_lines_come_one_by_one_as_entries_do() -> None:
    taken: list[int] = []

    async def watched() -> AsyncIterator[Entry]:
        for number in range(100):
            taken.append(number)
            yield entry(number)

    for lines, before in ((csv_lines(watched()), 2), (json_lines(watched()), 3)):
        taken.clear()
        for _ in range(3):
            await anext(lines)
        assert len(taken) == before
        await lines.aclose()  # type: ignore[attr-defined]
