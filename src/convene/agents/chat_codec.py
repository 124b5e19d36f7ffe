"""Messages of the Agent Chat Protocol 0.3.0 and its neighbours, as agents of `uagents` read and write them. Pure.

    write_chat, write_acknowledgement, write_rejection ──► Draft       always a body that the library reads (TRAP-01)
    read_message(schema digest, JSON) ──► ChatMessage | Acknowledgement | AgentError | ...

The class of a message follows from its schema digest alone (CALL-02). Digests are those of the library's classes,
titles and docstrings included, so they are written here as it computes them; tests/contract compares them, and reads
what is written here with the library's own parser: one malformed body makes an agent deaf for good.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from convene.agents import tool_codec
from convene.agents.envelope import Draft, canonical_uuid

if TYPE_CHECKING:
    from collections.abc import Sequence

CHAT_PROTOCOL: Final = "proto:30a801ed3a83f9a0ff0a9f1e6fe958cb91da1fc2218b153df7b6cbf87bd33d62"
PAYMENT_PROTOCOL: Final = "proto:8366fb54e20694cf49bae915893510a01782fc995b5d2bf7d7a5acfbc76dcb81"
PAYMENT_BUYER: Final = "proto:0a80568ab5e6efbe55d6e5cf44ce879c061830f58c446772487cf91620b67c02"
PAYMENT_SELLER: Final = "proto:74bbe17d083d81bf3afb28af299aa285d3bf800ac264775923cdd3cb7b47d069"
"""What sellers and buyers register: a protocol with roles has a digest for each (ENVL-08)."""

CHAT_MESSAGE: Final = "model:2601825997203ee07dbb9ff6e7c71ae7bdaf6a7c8b817361f2f88f4b29c68d0c"
ACKNOWLEDGEMENT: Final = "model:741eb75692abbeb43c131e364ad939af23f14e8288ba0ec3df130843ef79bd7f"
ERROR_MESSAGE: Final = "model:94cb082f79871c5e80a20637f935d233f0ce11a135d5a3a3c6071e81102a84d5"
REQUEST_PAYMENT: Final = "model:0589d17b29aa33aeab80e3d6c41a3df3b273a55bb4fad318dc9358d138fdedf1"
REJECT_PAYMENT: Final = "model:951db90daec62cd03010749539b1f48af7e4574548efb3e41b877cffd5af9e83"
CANCEL_PAYMENT: Final = "model:82e347ff471b02d7e507b07dbbd3074d8775017aff7da5fd319853de21679ecc"
COMPLETE_PAYMENT: Final = "model:989bbe39db5f7971d2c0ada99c783460743541525385e75c04618bd07a2f5fb8"
STRUCTURED_RESPONSE: Final = "model:8acfef06b9a68cc96897a2d0c0d1389ab921a1992c855548b9a926d8075cbe48"


CANCELS: Final = frozenset({"cancel", "cancelled", "abort"})
"""Answers to a card that take it back."""


class BadMessageError(Exception):
    """A message that its own schema does not allow. The text is for the log."""


class Text(msgspec.Struct, frozen=True):
    """Text, which may be markdown."""

    text: str


class Resource(msgspec.Struct, frozen=True):
    """One address of a resource; `metadata` often has `mime_type` and `role`."""

    uri: str
    metadata: dict[str, str] = {}


class Resources(msgspec.Struct, frozen=True):
    """A resource with what belongs to it; the first is the main one."""

    resource_id: str
    resources: tuple[Resource, ...]


class Meta(msgspec.Struct, frozen=True):
    """What is not text: figures, or a card (ACP-08)."""

    metadata: dict[str, str]


class StartSession(msgspec.Struct, frozen=True):
    """Some agents want it before the first message (ACP-07)."""


class EndSession(msgspec.Struct, frozen=True):
    """The answer is complete."""


class StartStream(msgspec.Struct, frozen=True):
    """More of the answer follows in further messages ..."""

    stream_id: str


class EndStream(msgspec.Struct, frozen=True):
    """... until here."""

    stream_id: str


Content = Text | Resources | Meta | StartSession | EndSession | StartStream | EndStream


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Something said. Content of a kind that nobody knows is left out."""

    msg_id: str
    content: tuple[Content, ...]


class Acknowledgement(msgspec.Struct, frozen=True):
    """A message has arrived."""

    msg_id: str


class AgentError(msgspec.Struct, frozen=True):
    """The agent says that it failed (ACP-12)."""

    error: str


class PaymentAsked(msgspec.Struct, frozen=True, kw_only=True):
    """The agent wants to be paid before it goes on."""

    funds: tuple[str, ...]
    """As `0.5 FET`."""
    description: str = ""


class PaymentNews(msgspec.Struct, frozen=True):
    """A payment was cancelled or completed, of which we know nothing: nothing here ever pays."""


class Structured(msgspec.Struct, frozen=True):
    """An answer as JSON (ACP-13)."""

    output: object


class Unknown(msgspec.Struct, frozen=True):
    """A message of another protocol (ACP-15)."""

    schema_digest: str


Heard = (
    ChatMessage
    | Acknowledgement
    | AgentError
    | PaymentAsked
    | PaymentNews
    | Structured
    | tool_codec.ToolsListed
    | tool_codec.ToolGave
    | Unknown
)


class _WireResource(msgspec.Struct):
    uri: str
    metadata: dict[str, str]


class _WireContent(msgspec.Struct):
    type: str
    text: str | None = None
    resource_id: str | None = None
    resource: _WireResource | list[_WireResource] | None = None
    metadata: dict[str, str] | None = None
    stream_id: str | None = None


class _WireChat(msgspec.Struct):
    msg_id: str
    content: list[_WireContent]


class _WireAcknowledgement(msgspec.Struct):
    acknowledged_msg_id: str


class _WireFunds(msgspec.Struct):
    amount: str
    currency: str


class _WirePayment(msgspec.Struct):
    accepted_funds: list[_WireFunds]
    description: str | None = None


_decode_chat = msgspec.json.Decoder(_WireChat).decode
_decode_acknowledgement = msgspec.json.Decoder(_WireAcknowledgement).decode
_decode_error = msgspec.json.Decoder(AgentError).decode
_decode_payment = msgspec.json.Decoder(_WirePayment).decode
_decode_structured = msgspec.json.Decoder(Structured).decode
_encode = msgspec.json.Encoder().encode


def read_message(schema_digest: str, body: bytes) -> Heard:
    """Read a message. Raises `BadMessageError` for one that its schema does not allow, whatever the bytes are."""
    try:
        match schema_digest:
            case _ if schema_digest == CHAT_MESSAGE:
                return _chat_of(_decode_chat(body))
            case _ if schema_digest == ACKNOWLEDGEMENT:
                return Acknowledgement(_uuid(_decode_acknowledgement(body).acknowledged_msg_id))
            case _ if schema_digest == ERROR_MESSAGE:
                return _decode_error(body)
            case _ if schema_digest == REQUEST_PAYMENT:
                asked = _decode_payment(body)
                funds = tuple(f"{one.amount} {one.currency}" for one in asked.accepted_funds)
                return PaymentAsked(funds=funds, description=asked.description or "")
            case _ if schema_digest in {CANCEL_PAYMENT, COMPLETE_PAYMENT}:
                return PaymentNews()
            case _ if schema_digest == STRUCTURED_RESPONSE:
                return _decode_structured(body)
            case _:
                return tool_codec.read(schema_digest, body) or Unknown(schema_digest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise BadMessageError(f"{schema_digest[:20]}: {fault}") from None


def chats(protocols: Sequence[str]) -> bool:
    """Whether an agent of these protocols chats; one of which none is known is taken for one that does."""
    return not protocols or any(one.removeprefix("proto:") == CHAT_PROTOCOL.removeprefix("proto:") for one in protocols)


def write_chat(content: Sequence[Content], *, msg_id: str, at: float) -> Draft:
    """Return something to say; `at` is Unix time, ids are version 4 UUIDs."""
    said = {"timestamp": _stamp(at), "msg_id": msg_id, "content": [_wire_of(one) for one in content]}
    return Draft(schema_digest=CHAT_MESSAGE, protocol_digest=CHAT_PROTOCOL, body=_encode(said))


def write_acknowledgement(msg_id: str, *, at: float) -> Draft:
    """Return that a message has arrived."""
    said = {"timestamp": _stamp(at), "acknowledged_msg_id": msg_id, "metadata": None}
    return Draft(schema_digest=ACKNOWLEDGEMENT, protocol_digest=CHAT_PROTOCOL, body=_encode(said))


def write_rejection(reason: str) -> Draft:
    """Return that nothing is paid (ACP-11)."""
    body = _encode({"reason": clean(reason)})
    return Draft(schema_digest=REJECT_PAYMENT, protocol_digest=PAYMENT_PROTOCOL, body=body)


def card_answer(card_id: str, said: str) -> Meta:
    """Return what the user says to a card: a selection if it is a JSON object of plain values, else text (ACP-09)."""
    found = {"card_protocol_version": "1"} | ({"card_id": card_id} if card_id else {})
    if said.strip().casefold() in CANCELS:
        return Meta(found | {"cancelled": "true"})
    try:
        selection = msgspec.json.decode(clean(said), type=dict[str, str | bool | int | float])
    except (msgspec.MsgspecError, RecursionError):
        return Meta(found | {"text": said})
    return Meta(found | {"selection": _encode(selection).decode()})


def clean(text: str) -> str:
    """Return a text that can be written: half a character, which Python lets stand alone, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _wire_of(content: Content) -> dict[str, object]:
    match content:
        case Text(text):
            return {"type": "text", "text": clean(text)}
        case Resources(resource_id, resources):
            wires = [{"uri": clean(one.uri), "metadata": _clean_all(one.metadata)} for one in resources]
            return {"type": "resource", "resource_id": resource_id, "resource": wires[0] if len(wires) == 1 else wires}
        case Meta(metadata):
            return {"type": "metadata", "metadata": _clean_all(metadata)}
        case StartSession():
            return {"type": "start-session"}
        case EndSession():
            return {"type": "end-session"}
        case StartStream(stream_id):
            return {"type": "start-stream", "stream_id": stream_id}
        case EndStream(stream_id):
            return {"type": "end-stream", "stream_id": stream_id}


def _chat_of(wire: _WireChat) -> ChatMessage:
    content = (_content_of(one) for one in wire.content)
    return ChatMessage(msg_id=_uuid(wire.msg_id), content=tuple(one for one in content if one is not None))


def _content_of(wire: _WireContent) -> Content | None:
    match wire.type:
        case "text" if wire.text is not None:
            return Text(wire.text)
        case "resource" if wire.resource is not None:
            wires = wire.resource if isinstance(wire.resource, list) else [wire.resource]
            return Resources(wire.resource_id or "", tuple(Resource(one.uri, one.metadata) for one in wires))
        case "metadata" if wire.metadata is not None:
            return Meta(wire.metadata)
        case "start-session":
            return StartSession()
        case "end-session":
            return EndSession()
        case "start-stream":
            return StartStream(wire.stream_id or "")
        case "end-stream":
            return EndStream(wire.stream_id or "")
        case _:
            return None


def _uuid(text: str) -> str:
    found = canonical_uuid(text)
    if found is None:
        raise BadMessageError("an id of a message is no UUID of version 4")
    return found


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _clean_all(metadata: dict[str, str]) -> dict[str, str]:
    return {clean(name): clean(value) for name, value in metadata.items()}
