"""LangChain's `ChatOpenAI` reads an answer that the server has searched for; prints as `openai_sdk.py` does."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import TYPE_CHECKING, Final

from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION: Final = "How high is the lighthouse of Vellmar, and when was it lit first?"
WANTED: Final = re.compile(r"The tower is 43 metres high \[\[1\]\]\(http[^)]+\) and .* \[\[2\]\]\(http[^)]+\)\.")


def model() -> ChatOpenAI:
    return ChatOpenAI(
        model="asi1",
        base_url=os.environ["CHECK_BASE_URL"],
        api_key=os.environ["CHECK_API_KEY"],
        max_retries=0,
        extra_body={"web_search": True},
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


CHECKS: Final[tuple[Callable[[], None], ...]] = (streams, streams_asynchronously, gets_a_whole_answer)


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
