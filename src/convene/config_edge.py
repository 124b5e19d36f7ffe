"""The settings of the listening side: what one client may take of it. Read through `config.py`."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec

from convene.config_values import About


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """`[edge]`: what the listening side bears (reliability 2 and 3: every wait and every size has a limit)."""

    body_bytes_max: Annotated[int, About("Largest request body", "bytes", at_least=1024)] = 33_554_432
    header_bytes_max: Annotated[int, About("Largest request head", "bytes", at_least=1024)] = 65_536
    headers_max: Annotated[int, About("Most header fields in one request", at_least=10)] = 100
    connections_max: Annotated[int, About("Most open client connections", at_least=1)] = 10_000
    connections_per_address_max: Annotated[int, About("Most open connections of one address", at_least=1)] = 1_000
    first_byte_s: Annotated[float, About("Wait for the first byte of a new connection", "s", at_least=0.1)] = 5.0
    header_s: Annotated[float, About("Wait for a whole request head", "s", at_least=0.1)] = 10.0
    body_total_s: Annotated[float, About("Wait for a whole request body", "s", at_least=0.1)] = 120.0
    write_stall_s: Annotated[float, About("Drop a client that reads nothing for so long", "s", at_least=0.1)] = 30.0
    keep_alive_s: Annotated[float, About("Keep an idle connection open", "s", at_least=0)] = 30.0
    grace_s: Annotated[float, About("Time for running answers at shutdown", "s", at_least=0)] = 30.0
    ping_s: Annotated[float, About("Silence after which a stream gets a keep-alive comment", "s", at_least=0.1)] = 12.0
    first_event_s: Annotated[float, About("Wait for the first event before headers leave", "s", at_least=0)] = 10.0


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine only: 127.0.0.0/8, ::1 or localhost."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
