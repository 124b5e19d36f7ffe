"""The tool `search_agents`: finds agents of the marketplace that can do what the model cannot (PICK-01)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.tools.agents_base import manifest_of
from convene.tools.base import ToolResult, ToolSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.tools.agents_base import AgentDesk, FoundAgent
    from convene.tools.base import ToolContext

FIND: Final = "search_agents"
LIMIT: Final = 5
LIMIT_MAX: Final = 20
DESCRIPTION_CHARS: Final = 300
SKILLS_MAX: Final = 8
NOTHING: Final = "No agent was found for this. Answer without one, or search with other words."

SPEC: Final = ToolSpec(
    name=FIND,
    description=(
        "Find AI agents of the marketplace that can do something you cannot do yourself: live data, bookings, "
        "images, services of others. Returns names and addresses to be asked with ask_agent."
    ),
    parameters={
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "minLength": 1,
                "maxLength": 400,
                "description": "What the agent should be able to do, in a few words",
            },
            "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "description": "Most agents returned"},
        },
        "required": ["query"],
        "additionalProperties": False,
    },
    kind="agent",
    labels=frozenset({"untrusted"}),
)


class FindAgents:
    """Implements `Tool`."""

    def __init__(self, desk: AgentDesk) -> None:
        """`desk` knows the agents."""
        self._desk = desk

    @property
    def spec(self) -> ToolSpec:
        """See `Tool.spec`."""
        return SPEC

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        """See `Tool.run`."""
        del context
        limit = arguments.get("limit", LIMIT)
        found = await self._desk.search(str(arguments["query"]), limit if isinstance(limit, int) else LIMIT)
        return ToolResult(text=_listed(found), data={"agents": [_item(agent) for agent in found]})


def _item(agent: FoundAgent) -> dict[str, object]:
    return manifest_of(agent) | {"reachable": agent.reachable}


def _listed(found: Sequence[FoundAgent]) -> str:
    if not found:
        return NOTHING
    return "\n".join(_words(number, agent) for number, agent in enumerate(found, 1))


def _words(number: int, agent: FoundAgent) -> str:
    lines = [f"{number}. {agent.name} - agent: {agent.address or agent.url}"]
    if agent.handle:
        lines[0] += f" (@{agent.handle})"
    if not agent.reachable:
        lines[0] += " - has not answered lately"
    told = " ".join((agent.description or agent.readme).split())[:DESCRIPTION_CHARS]
    if told:
        lines.append(f"   {told}")
    if agent.skills:
        lines.append(f"   Skills: {', '.join(agent.skills[:SKILLS_MAX])}")
    return "\n".join(lines)
