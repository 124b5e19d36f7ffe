"""Every bound of the listening edge, each with its unit and its reason.

Here: values only. Not here: who enforces them (`server_protocol.py` per connection, `server_guard.py` for the whole
edge). `config.py` overrides single fields; tests make the times small instead of waiting.
"""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bounds of one `Server`. Times are seconds, sizes are bytes; the defaults are the guard of reliability 3.1."""

    first_byte_s: float = 5.0
    """From connect to the first byte: a browser's spare connection is used within that, an idle attacker is not."""

    header_s: float = 10.0
    """For a whole request head, from connect or from the first byte of a later request: a head is one round trip, and
    goal C3 wants a header drip gone within 15 s."""

    body_bytes_per_s: int = KIB
    """The slowest body taken: a modem has five times as much, a drip (one byte per 3 s) a thousandth."""

    body_window_s: float = 10.0
    """The span over which the body's rate is measured: outlasts a lost packet, ends a drip within 15 s (C3)."""

    body_total_s: float = 300.0
    """For a whole body: `body_bytes_max` at 1 Mbit/s takes 268 s."""

    write_stall_s: float = 30.0
    """How long a reader may take nearly nothing (less than `write_bytes_per_s`) of what waits for it (C4: 30 s)."""

    write_bytes_per_s: int = 256
    """The slowest reader served while data waits: one short token frame per second."""

    keep_alive_s: float = 30.0
    """Idle time between two requests of one connection: longer than a chat user's think time costs memory for nothing,
    and common clients drop idle connections after 5 s themselves."""

    linger_s: float = 2.0
    """How long unread input is thrown away after a refusal, so that the client can read the answer before a reset."""

    headers_max: int = 100
    """Header fields per request: SDKs send about 20; 20,000 must not be parsed (reliability 3.1)."""

    header_bytes_max: int = 64 * KIB
    """The request head: OSDK-10 asks for blocks up to 64 KiB."""

    target_bytes_max: int = 16 * KIB
    """The request target: longest real ones are search queries of a few KiB; beyond is 414."""

    body_bytes_max: int = 32 * MIB
    """A body: two 10 MiB pictures in base64 fit. Routes may allow less."""

    body_held_bytes: int = 64 * KIB
    """Body bytes kept for an application that does not read; above it the socket is not read."""

    pipelined_max: int = 16
    """Requests parsed ahead on one connection; the connection closes after them (RFC 9112 9.3.2 lets it)."""

    pipelined_bytes: int = 64 * KIB
    """Unparsed bytes kept behind a request in flight; above it the socket is not read."""

    write_held_bytes: int = 64 * KIB
    """Response bytes waiting in the process before `send` waits too (C4: 64 KiB per stalled reader)."""

    connections_max: int = 10_000
    """All connections: about 20 KiB each with socket, parser and task, so 200 MiB at worst."""

    connections_per_address_max: int = 1_000
    """From one IPv4 address or one IPv6 /64: a busy proxy or a campus stays below, one attacker cannot take all."""

    backlog: int = 1_024
    """Connections the kernel keeps before `accept`; a burst of one tick at 2,000/s."""

    grace_s: float = 30.0
    """How long running requests may last after a drain began (C6, decisions: a rolling update waits 30 s)."""

    cancel_s: float = 2.0
    """After the grace: time for cancelled requests to send their error frame and settle."""

    unheard_s: float = 0.25
    """At the end of a drain: time for connections that have not asked yet to ask and be told 503; a local round trip
    with a busy processor in it. Speculative connections of browsers never ask, so it is short."""

    tick_s: float = 0.5
    """The one timer that looks at all connections: no time-out is later than two ticks, none has its own timer."""

    keepalive_idle_s: int = 15
    """Silence before TCP probes a peer (`SO_KEEPALIVE`), so a half-open peer is noticed."""

    unacknowledged_s: int = 30
    """`TCP_USER_TIMEOUT`: sent bytes without acknowledgement end the connection."""

    cancel_on_disconnect: bool = True
    """Cancel the request's task when its client leaves, so that the upstream call dies within 100 ms (C1)."""
