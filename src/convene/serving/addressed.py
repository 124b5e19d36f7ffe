"""A message that is addressed to an agent: the agent's text is the answer, verbatim (decision 18).

One call of `ask_agent`, by the server itself and not by the model, and no round of the model. A handle that no agent
has is a word like any other: then the turn goes on as if nobody had been addressed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.events import TextDelta
from convene.messages import ToolCall
from convene.serving.addressing import Addressed, addressed

if TYPE_CHECKING:
    from convene.events import FinishReason
    from convene.serving.base import ChatRequest
    from convene.serving.base_agentic import AgenticRun, Driver, Ran

ASK: Final = "ask_agent"
REASON: Final = "The user addressed it."
CALL_ID: Final = "call_addressed_1"


class _Told(msgspec.Struct, frozen=True):
    """Of a result of `ask_agent` what the user reads."""

    answer: str = ""
    words: str = ""


class AddressedDriver:
    """Implements `Driver`; `other` drives what turns out not to be addressed to anybody."""

    def __init__(self, other: Driver) -> None:
        self._other = other

    async def drive(self, run: AgenticRun) -> FinishReason:
        """See `base_agentic.Driver`."""
        named = whom(run.job.request)
        if named is None or ASK not in run.all_tools:
            return await self._other.drive(run)
        arguments = {"agent": named.agent, "message": named.say, "reason": REASON}
        [ran] = await run.call([ToolCall(CALL_ID, ASK, msgspec.json.encode(arguments).decode())])
        if ran.result is None and not named.certain:
            return await self._other.drive(run)
        run.emit(TextDelta(words_of(ran)))
        return "stop"


def whom(request: ChatRequest) -> Addressed | None:
    """Return the agent that is to answer a request: the one that it is for, or the one that its text addresses."""
    messages = request.generation.messages
    if request.agentic.agent:
        return Addressed(request.agentic.agent, messages[-1].text(), certain=True)
    return addressed(messages)


def words_of(ran: Ran) -> str:
    """Return what the user reads of a call: the agent's own text, else why there is none."""
    if ran.result is None:
        return ran.text.removeprefix("The call failed: ").removesuffix(" You may call it again with other arguments.")
    told = msgspec.convert(ran.result.data, _Told)
    parts = [told.answer] if told.answer else []
    if told.words and (not told.answer or ran.status != "done"):
        parts.append(told.words)
    return "\n\n".join(parts) or "The agent ended the conversation without an answer."
