"""`convene serve` with one tool more: `effect`, which changes something outside, at the double of `run_kill.py`.

CONVENE_CONFIG=convene.toml python tests/process/run_server.py http://127.0.0.1:4711
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import msgspec

from convene import app_serve
from convene.app import App
from convene.config import load_here
from convene.http.base import Request
from convene.http.client import HttpClient
from convene.tools.base import ToolContext, ToolResult, ToolSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.events import Noticed

PARAMETERS: Final[dict[str, object]] = {
    "type": "object",
    "properties": {"run": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["run", "n"],
    "additionalProperties": False,
}


class Effect:
    """The tool."""

    spec = ToolSpec(name="effect", description="Changes something outside.", parameters=PARAMETERS)

    def __init__(self, url: str) -> None:
        self._url = f"{url}/effect"
        self._client = HttpClient()

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        """Ask the double, under the key of the step."""
        headers = (("content-type", "application/json"), ("idempotency-key", context.idempotency_key))
        response = await self._client.send(Request("POST", self._url, headers, msgspec.json.encode(arguments)))
        try:
            body = await response.read(65_536)
        finally:
            response.close()
        return ToolResult(text=body.decode(), data=msgspec.json.decode(body))


class Box:
    """What the server offers beside its own."""

    def __init__(self, url: str) -> None:
        self._tools = (Effect(url),)

    def tools(self) -> Sequence[Effect]:
        """Return the tool."""
        return self._tools

    def notices(self) -> Sequence[Noticed]:
        """Return nothing."""
        return ()


class AppWithEffect(App):
    """The application with that tool."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs, tools=Box(sys.argv[1]))  # type: ignore[arg-type]  # handed on as they come


if __name__ == "__main__":
    vars(app_serve)["App"] = AppWithEffect  # the very program, with one tool more
    sys.exit(app_serve.serve(load_here({})))
