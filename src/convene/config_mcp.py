"""The settings of MCP servers whose tools the server itself may call. Read through `config.py`."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec

from convene.config_values import About, Secret

_NAME: Final = re.compile(r"(?!.*__)[A-Za-z0-9]([A-Za-z0-9_-]{0,30}[A-Za-z0-9])?")
"""Such a name and `__` before a tool's own name cannot mean two tools."""


class Mcp(msgspec.Struct, frozen=True, kw_only=True):
    """`[mcp.NAME]`: one MCP server, over streamable HTTP."""

    url: Annotated[str, About("Its endpoint, as https://host/mcp")] = ""
    enabled: Annotated[bool, About("Use it")] = True
    api_key: Annotated[Secret, About("Key sent as Authorization: Bearer")] = Secret()
    headers: Annotated[dict[str, Secret], About("Further headers sent to it")] = msgspec.field(default_factory=dict)
    tools: Annotated[tuple[str, ...], About("Its tools that may be called, with * and ?; empty: all")] = ()
    labels: Annotated[
        tuple[Literal["private", "untrusted", "sends"], ...] | None,
        About("What its tools are: private, untrusted, sends; unset: untrusted, and sends unless it says they do not"),
    ] = None
    timeout_s: Annotated[float, About("Longest call of a tool", "s", at_least=0.1)] = 60.0
    connect_s: Annotated[float, About("Wait for a connection", "s", at_least=0.01)] = 5.0
    refresh_s: Annotated[float, About("Look up its tools again after so long", "s", at_least=1)] = 60.0
    answer_bytes_max: Annotated[int, About("Largest answer", "bytes", at_least=1024)] = 1_048_576
    proxy: Annotated[Secret, About("HTTP proxy on the way, as http://host:port")] = Secret()
    ca_file: Annotated[str, About("Certificates to trust instead of the system's", is_path=True)] = ""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Whatever of it must never be shown."""
        return (self.api_key, self.proxy, *self.headers.values())


def mcp_fault(name: str) -> str:
    """Return what is wrong with the name of a server, empty if nothing is."""
    return "" if _NAME.fullmatch(name) else "needs a name of at most 32 letters, digits, - and _, no two _ in a row"
