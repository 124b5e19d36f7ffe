"""Tools for tests of agentic turns: they do as they are told and remember what they were asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.tools.base import Label, ToolContext, ToolResult, ToolSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from convene.events import Noticed, StepKind
    from convene.tools.base import Tool

CITY: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 1}},
    "required": ["city"],
    "additionalProperties": False,
}


async def say_sunny(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
    """Return the weather, which is always the same."""
    del context
    return ToolResult(text=f"It is sunny in {arguments['city']}.", data={"sky": "sunny"})


class PlayedTool:
    """A tool whose work is a function of the test's."""

    def __init__(
        self,
        name: str = "weather",
        do: Callable[[Mapping[str, object], ToolContext], Awaitable[ToolResult]] = say_sunny,
        *,
        kind: StepKind = "tool",
        labels: frozenset[Label] = frozenset(),
        parameters: dict[str, object] = CITY,
        timeout_s: float = 30.0,
        source: str = "convene",
    ) -> None:
        self.spec = ToolSpec(
            name=name,
            description=f"Returns what {name} is about.",
            parameters=parameters,
            kind=kind,
            labels=labels,
            timeout_s=timeout_s,
            source=source,
        )
        self.asked: list[dict[str, object]] = []
        self.contexts: list[ToolContext] = []
        self._do = do

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        self.asked.append(dict(arguments))
        self.contexts.append(context)
        return await self._do(arguments, context)


class Box:
    """A `Toolbox` of these tools."""

    def __init__(self, *tools: Tool, notices: Sequence[Noticed] = ()) -> None:
        self._tools = tools
        self._notices = notices

    def tools(self) -> Sequence[Tool]:
        return self._tools

    def notices(self) -> Sequence[Noticed]:
        return self._notices
