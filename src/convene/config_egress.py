"""The settings of the guarded way to addresses that strangers named, and of reading pages. Read through `config.py`."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec

from convene.config_values import About, Secret


class EgressSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[egress]`: where web pages and agents of strangers may be fetched from, and what one answer may cost."""

    allow: Annotated[tuple[str, ...], About("Private networks that may be reached, as 10.1.0.0/16")] = ()
    deny: Annotated[
        tuple[str, ...], About("Networks that may not, whatever allow says; name your own public ones")
    ] = ()
    ports: Annotated[
        tuple[int, ...], About("Ports beside 80 and 443; networks of allow are free", at_least=1, at_most=65535)
    ] = ()
    proxy: Annotated[Secret, About("HTTP proxy for all of it, as http://host:port; it looks names up")] = Secret()
    ca_file: Annotated[str, About("Certificates to trust beside the system's", is_path=True)] = ""
    user_agent: Annotated[str, About("Name it goes by")] = "Convene"
    redirects_max: Annotated[int, About("Most redirects followed", at_least=0, at_most=3)] = 3
    body_bytes_max: Annotated[int, About("Largest answer, unpacked", "bytes", at_least=1024)] = 10_485_760
    connect_s: Annotated[float, About("Wait for a lookup, and for a connection", "s", at_least=0.01)] = 5.0
    first_byte_s: Annotated[float, About("Longest silence before and inside an answer", "s", at_least=0.01)] = 15.0
    total_s: Annotated[float, About("Longest whole fetch, redirects included", "s", at_least=0.01)] = 30.0
    open_max: Annotated[int, About("Most fetches at the same time", at_least=1)] = 64
    open_per_host_max: Annotated[int, About("Most fetches from one host at the same time", at_least=1)] = 6


class PageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[pages]`: the tool that reads web pages for models, by way of `[egress]`."""

    enabled: Annotated[bool, About("Let models read web pages")] = True
    chars: Annotated[int, About("Text of one call, unless the model says", "characters", at_least=200)] = 20_000
    read_s: Annotated[float, About("Longest reading of a page once it is here", "s", at_least=0.1)] = 10.0
    processes: Annotated[int, About("Processes that read pages, started when needed", at_least=1, at_most=64)] = 2


def fault_of(settings: EgressSettings) -> tuple[str, str]:
    """Return the setting that cannot be used and why; two empty texts if all can."""
    for name, texts in (("allow", settings.allow), ("deny", settings.deny)):
        for text in texts:
            try:
                ipaddress.ip_network(text)
            except ValueError:
                return name, f"has {text!r}, which is no network such as 10.1.0.0/16 (no bits set after the prefix)"
    if not settings.user_agent.isascii() or not settings.user_agent.isprintable():
        return "user_agent", "must be printable ASCII"
    return "", ""
