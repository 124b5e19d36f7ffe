"""How a model that can call tools is asked and told, inside the loop; `tool_talk.py` has the way for those that cannot.

The client's `tool_choice` binds the client's functions alone (decision 2): `none` takes them away and leaves the
server's, a named one is asked for by itself, `required` asks for any call, so that the turn ends with one of the
client's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from convene.messages import ToolChoice
from convene.serving.conversation import functions_of, quote_result, result_message, said_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.messages import FunctionTool, Message, ToolCall
    from convene.providers.base import Generation
    from convene.serving.base_agentic import AgenticRun, Ran, Round, Shown

REFUSED: str = "Not run: this turn has no tool calls left. Answer with what is there."


class Speech(Protocol):
    """How the loop talks with one kind of model."""

    async def ask(self, *, closing: bool) -> Round:
        """Ask for the next round; `closing`: without tools. Raises as `AgenticRun.ask` does."""
        ...

    def tell(self, said: Round, ran: Sequence[Ran], refused: Sequence[ToolCall], client: Sequence[ToolCall]) -> None:
        """Add a round and what has come of its calls to the conversation."""
        ...


class NativeSpeech:
    """Calls and results in the form that models with tools know."""

    def __init__(self, run: AgenticRun) -> None:
        self._run = run
        generation = run.job.request.generation
        self.client: tuple[FunctionTool, ...] = () if generation.tool_choice.mode == "none" else generation.tools
        self._choice = generation.tool_choice
        self._functions = functions_of(run.tools.values())
        agents = any(tool.spec.kind == "agent" for tool in run.tools.values())
        holds = agents and run.job.request.agentic.session_id is not None
        self._shown: Shown = "held" if holds else "content"

    async def ask(self, *, closing: bool) -> Round:
        """See `Speech.ask`."""
        return await self._run.ask(self._with_tools(closing=closing), shown=self._shown, last=closing)

    def tell(self, said: Round, ran: Sequence[Ran], refused: Sequence[ToolCall], client: Sequence[ToolCall]) -> None:
        """See `Speech.tell`."""
        run = self._run
        calls = (*(one.call for one in ran), *refused, *client)
        messages: list[Message] = [said_message(said, calls)]
        for one in ran:
            tool = run.all_tools.get(one.call.name)
            spec = None if tool is None else tool.spec
            messages.append(result_message(one.call, quote_result(one.call.name, one.text, spec, one.judged)))
        messages += [result_message(call, REFUSED) for call in refused]
        run.add(*messages)

    def _with_tools(self, *, closing: bool) -> Generation:
        generation, choice = self._run.generation(), self._choice
        forced = bool(self.client) and choice.mode in {"required", "named"}
        if closing or (forced and choice.mode == "named"):
            if not forced:
                return generation
            return msgspec.structs.replace(generation, tools=self.client, tool_choice=choice)
        tools = (*self.client, *self._functions)
        if not tools:
            return generation
        if not self.client:
            choice = ToolChoice()
        elif choice.allowed is not None:
            names = tuple(function.name for function in self._functions)
            choice = msgspec.structs.replace(choice, allowed=(*choice.allowed, *names))
        return msgspec.structs.replace(generation, tools=tools, tool_choice=choice)
