"""The wire shapes of the server's own tools."""

from __future__ import annotations

from typing import Literal

import msgspec

from convene.api.shapes import JsonObject
from convene.events import StepKind


class ServerTool(msgspec.Struct):
    """A tool that the server itself may call during an answer."""

    name: str
    description: str
    parameters: JsonObject
    kind: StepKind
    labels: list[Literal["private", "untrusted", "sends"]]
    source: str
    available: bool
    object: Literal["tool"] = "tool"


class ToolNotice(msgspec.Struct):
    """Something to know of tools that cannot be had now."""

    code: str
    message: str


class ToolList(msgspec.Struct):
    """All tools, by name."""

    data: list[ServerTool]
    notices: list[ToolNotice]
    object: Literal["list"] = "list"
