"""LangChain's `ChatOpenAI` reads turns in which the server itself does something; prints as `openai_sdk.py` does."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import TYPE_CHECKING, Final

from langchain_core.messages import HumanMessage, ToolMessage  # type: ignore[import-not-found]
from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION: Final = "How high is the lighthouse of Vellmar, and when was it lit first?"
WANTED: Final = re.compile(r"The tower is 43 metres high \[\[1\]\]\(http[^)]+\) and .* \[\[2\]\]\(http[^)]+\)\.")


MIXED: Final = "High water is at 14:20; the wall is red [[1]]"


def paint_wall(colour: str) -> str:
    """Paints a wall."""
    return f"It is {colour}."


def model(name: str = "asi1", **extra: object) -> ChatOpenAI:
    return ChatOpenAI(
        model=name,
        base_url=os.environ["CHECK_BASE_URL"],
        api_key=os.environ["CHECK_API_KEY"],
        max_retries=0,
        extra_body={"web_search": True} | extra,
    )


def streams() -> None:
    text = "".join(str(chunk.content) for chunk in model().stream(QUESTION))
    assert WANTED.fullmatch(text), text


def streams_asynchronously() -> None:
    async def gather() -> str:
        return "".join([str(chunk.content) async for chunk in model().astream(QUESTION)])

    text = asyncio.run(gather())
    assert WANTED.fullmatch(text), text


def gets_a_whole_answer() -> None:
    reply = model().invoke(QUESTION)
    assert WANTED.fullmatch(str(reply.content)), reply


def streams_a_plan() -> None:
    text = "".join(str(chunk.content) for chunk in model("asi1-ultra", planner_mode=True).stream(QUESTION))
    assert text.startswith("High water is at 14:20 [[1]]"), text


def streams_a_lesson() -> None:
    text = "".join(str(chunk.content) for chunk in model(study_mode=True).stream(QUESTION))
    assert WANTED.fullmatch(text), text


def mixes_tools_of_both_sides_and_gives_the_message_back() -> None:
    bound = model("asi1-mini").bind_tools([paint_wall])
    said = bound.invoke(QUESTION)
    [call] = said.tool_calls
    assert (call["name"], call["args"]) == ("paint_wall", {"colour": "red"}), call
    result = ToolMessage(paint_wall(**call["args"]), tool_call_id=call["id"])
    again = bound.invoke([HumanMessage(QUESTION), said, result])
    assert str(again.content).startswith(MIXED), again


def streams_a_mixed_turn_and_gives_the_message_back() -> None:
    bound = model("asi1-mini").bind_tools([paint_wall])
    said = None
    for chunk in bound.stream(QUESTION):
        said = chunk if said is None else said + chunk
    assert said is not None
    [call] = said.tool_calls
    result = ToolMessage(paint_wall(**call["args"]), tool_call_id=call["id"])
    text = "".join(str(chunk.content) for chunk in bound.stream([HumanMessage(QUESTION), said, result]))
    assert text.startswith(MIXED), text


CHECKS: Final[tuple[Callable[[], None], ...]] = (
    streams,
    streams_asynchronously,
    gets_a_whole_answer,
    streams_a_plan,
    streams_a_lesson,
    mixes_tools_of_both_sides_and_gives_the_message_back,
    streams_a_mixed_turn_and_gives_the_message_back,
)


def main() -> int:
    """Run all checks; the exit code says whether one failed."""
    failed = 0
    for check in CHECKS:
        try:
            check()
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is what the check found
            failed += 1
            print(f"failed {check.__name__}: {' '.join(str(fault).split())[:300]}")  # noqa: T201 - a program's answer
        else:
            print(f"ok {check.__name__}")  # noqa: T201 - the same
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
