"""The tool `generate_image`: a picture inside an answer, as a link that the answer shows.

What draws is handed in by `app.py`: the same use case as behind the routes of pictures, so that limits, books and
prices are the same. The link is this server's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import BadRequest, ConveneError, Failed, Retry
from convene.tools.base import Shows, ToolContext, ToolResult, ToolSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMPT_CHARS: Final = 4_000
ALT_CHARS: Final = 120


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that was drawn and kept."""

    link: str
    model: str
    width: int
    height: int
    format: str
    seed: int | None = None


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a model wants drawn."""

    prompt: str
    size: str = "auto"


Draw = Callable[[Wish, ToolContext], Awaitable[Drawing]]
"""Draws for the context's key, and tells `context.progress` how far it is. Raises `ConveneError`."""


class GenerateImage:
    """A `Tool`."""

    def __init__(self, draw: Draw, sizes: Sequence[str], longest_s: float) -> None:
        """`sizes` may be asked for beside `auto`; `longest_s`: what one picture may take."""
        self._draw = draw
        self.spec = ToolSpec(
            name="generate_image",
            description="Draws a picture from a description: an illustration, a logo, a scene, as the user wants it.",
            parameters={
                "type": "object",
                "properties": {
                    "prompt": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": PROMPT_CHARS,
                        "description": "What the picture shows, in detail.",
                    },
                    "size": {
                        "type": "string",
                        "enum": ["auto", *sizes],
                        "description": "Width and height in pixels; auto unless the user wants another.",
                    },
                },
                "required": ["prompt"],
                "additionalProperties": False,
            },
            kind="tool",
            timeout_s=longest_s,
        )

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        """Draw (`tools.base.Tool`)."""
        wish = Wish(prompt=str(arguments["prompt"]), size=str(arguments.get("size", "auto")))
        context.progress("Drawing")
        try:
            drawn = await self._draw(wish, context)
        except BadRequest as fault:
            raise Retry(fault.message, detail=fault.detail) from fault
        except ConveneError as fault:
            raise Failed(fault.message, detail=fault.detail) from fault
        shown = f"![{_alt(wish.prompt)}]({drawn.link})"
        return ToolResult(
            text=f"Here is the picture. This line shows it to the user; write it as it is:\n{shown}",
            data=msgspec.to_builtins(drawn),
            links=(drawn.link,),
            shows=(Shows(shown, drawn.link),),
        )


def _alt(prompt: str) -> str:
    """Return a description of the picture that cannot end the brackets it stands in."""
    words = " ".join("".join(" " if letter in "[]()<>!\\`" else letter for letter in prompt).split())
    return words[:ALT_CHARS]
