"""Tools for a model that cannot call any: it is asked for its next move as constrained JSON (part of the loop).

    {"action": "call", "tool": "web_search", "arguments": {...}}   ──► the server runs it and quotes the result
    {"action": "answer", "tool": "", "arguments": {}}              ──► a plain round writes the answer, as it comes

The move is never shown. One call a round. Needs a model that binds its output to a JSON schema; what the schema cannot
say (the arguments of each tool) is checked when the call runs, like every model's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.messages import Message, ResponseFormat, ToolCall
from convene.serving.conversation import instructed, quote_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.serving.base_agentic import AgenticRun, Ran, Round

MOVE_TOKENS: Final = 1_024
"""Most tokens of one move."""
_NOW_ANSWER: Final = "Now answer my request."


class Move(msgspec.Struct, frozen=True):
    """What the model wants to do next."""

    action: Literal["call", "answer"]
    tool: str = ""
    arguments: dict[str, object] = {}


class ToolTalk:
    """The `Speech` of a model without tools."""

    def __init__(self, run: AgenticRun) -> None:
        self._run = run
        self._manual = write_manual(run)
        self._format = ResponseFormat("json_schema", "move", move_schema(sorted(run.tools)))
        self._moves = 0

    async def ask(self, *, closing: bool) -> Round:
        """Ask for a move and, if it is an answer, for the answer; see `Speech.ask`."""
        run = self._run
        if not closing:
            said = await self._ask_move()
            if said.calls:
                return said
        messages = [*run.messages, *([Message(role="user", content=_NOW_ANSWER)] if run.added else [])]
        return await run.ask(run.generation(messages), last=True)

    def tell(self, said: Round, ran: Sequence[Ran], refused: Sequence[ToolCall], client: Sequence[ToolCall]) -> None:
        """See `Speech.tell`; such a model has no functions of the client's."""
        del client
        run = self._run
        words = [
            quote_result(
                one.call.name,
                one.text,
                None if (tool := run.all_tools.get(one.call.name)) is None else tool.spec,
                one.judged,
            )
            for one in ran
        ]
        words += [f"{call.name} was not run: no tool calls are left." for call in refused]
        run.add(Message(role="assistant", content=said.text), Message(role="user", content="\n\n".join(words)))

    async def _ask_move(self) -> Round:
        run = self._run
        generation = run.generation(instructed(run.messages, self._manual))
        sampling = msgspec.structs.replace(
            generation.sampling, temperature=0.0, max_tokens=MOVE_TOKENS, stop=(), logprobs=False, top_logprobs=None
        )
        asked = msgspec.structs.replace(generation, response_format=self._format, sampling=sampling)
        said = await run.ask(asked, shown="hidden", summary="Choosing the next step")
        move = read_move(said.text)
        if move is None or move.action == "answer":
            return said
        self._moves += 1
        call = ToolCall(f"call_move_{self._moves}", move.tool, msgspec.json.encode(move.arguments).decode())
        return msgspec.structs.replace(said, calls=(call,))


def read_move(text: str) -> Move | None:
    """Return the move that a model has written; None for what is none, which counts as wanting to answer."""
    try:
        return msgspec.json.decode(text, type=Move)
    except (msgspec.DecodeError, RecursionError):
        return None


def move_schema(names: list[str]) -> dict[str, object]:
    """Return the schema of a move with these tools."""
    return {
        "type": "object",
        "properties": {
            "action": {"type": "string", "enum": ["call", "answer"]},
            "tool": {"type": "string", "enum": ["", *names]},
            "arguments": {"type": "object"},
        },
        "required": ["action", "tool", "arguments"],
        "additionalProperties": False,
    }


def write_manual(run: AgenticRun) -> str:
    """Return what the model is told of the tools and of how to call one."""
    lines = [
        "You can use tools. Write JSON and nothing else: your next step.",
        '{"action": "call", "tool": NAME, "arguments": {...}} runs a tool; you will be shown what it returns.',
        '{"action": "answer", "tool": "", "arguments": {}} means that you know enough to answer.',
        "The tools, with the JSON schemas of their arguments:",
    ]
    for name, tool in sorted(run.tools.items()):
        schema = msgspec.json.encode(tool.spec.parameters).decode()
        lines.append(f"- {name}: {tool.spec.description} {schema}")
    return "\n".join(lines)
