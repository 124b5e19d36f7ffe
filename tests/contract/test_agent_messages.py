"""What our codec writes, read by the library that agents are made of, and the other way round (TRAP-01, ENVL, ACP)."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uagents_core.contrib.protocols import chat as library
from uagents_core.contrib.protocols import payment
from uagents_core.contrib.protocols.chat import cards
from uagents_core.envelope import Envelope as LibraryEnvelope
from uagents_core.identity import Identity
from uagents_core.models import ErrorMessage, Model

from convene.agents import chat_codec as codec
from convene.agents import tool_codec
from convene.agents.envelope import BadEnvelopeError, Draft, Envelope, read_envelope, seal

if TYPE_CHECKING:
    from collections.abc import Sequence

AT = 1_800_000_000.25
OURS = Identity.from_seed("ours", 0)
THEIRS = Identity.from_seed("theirs", 0)

texts = st.text(st.characters(exclude_categories=()), max_size=60)
"""Whatever a Python string can hold, half characters included."""
ids = st.uuids(version=4).map(str)
metadata = st.dictionaries(texts, texts, max_size=3)
resources = st.builds(codec.Resource, texts, metadata)
contents = st.one_of(
    st.builds(codec.Text, texts),
    st.builds(codec.Resources, ids, st.lists(resources, min_size=1, max_size=3).map(tuple)),
    st.builds(codec.Meta, metadata),
    st.just(codec.StartSession()),
    st.just(codec.EndSession()),
    st.builds(codec.StartStream, ids),
    st.builds(codec.EndStream, ids),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
DIGESTS = (
    codec.CHAT_MESSAGE,
    codec.ACKNOWLEDGEMENT,
    codec.ERROR_MESSAGE,
    codec.REQUEST_PAYMENT,
    codec.CANCEL_PAYMENT,
    codec.COMPLETE_PAYMENT,
    codec.STRUCTURED_RESPONSE,
    tool_codec.LIST_TOOLS_RESPONSE,
    tool_codec.CALL_TOOL_RESPONSE,
    "model:other",
)


def sealed(draft: Draft, session: str) -> bytes:
    return seal(draft, OURS.address, THEIRS.address, session, OURS.sign_digest)


def read_by_library(body: bytes) -> LibraryEnvelope:
    """As `uagents/asgi.py` reads what is posted to an agent."""
    envelope = LibraryEnvelope.model_validate(json.loads(body.decode()))
    assert envelope.verify()
    return envelope


@pytest.mark.req("ENVL-03", "ENVL-08")
@pytest.mark.parametrize(
    ("digest", "model"),
    [
        (codec.CHAT_MESSAGE, library.ChatMessage),
        (codec.ACKNOWLEDGEMENT, library.ChatAcknowledgement),
        (codec.ERROR_MESSAGE, ErrorMessage),
        (codec.REQUEST_PAYMENT, payment.RequestPayment),
        (codec.REJECT_PAYMENT, payment.RejectPayment),
        (codec.CANCEL_PAYMENT, payment.CancelPayment),
        (codec.COMPLETE_PAYMENT, payment.CompletePayment),
    ],
)
def test_the_schema_digests_are_those_of_the_librarys_classes(digest: str, model: type[Model]) -> None:
    assert digest == Model.build_schema_digest(model)


@pytest.mark.req("ENVL-08")
def test_the_protocol_digests_are_the_librarys_for_the_whole_and_for_each_role() -> None:
    assert library.chat_protocol_spec.digest == codec.CHAT_PROTOCOL
    assert payment.payment_protocol_spec.digest == codec.PAYMENT_PROTOCOL
    roles = {role: payment.payment_protocol_spec.manifest(role)["metadata"]["digest"] for role in ("buyer", "seller")}
    assert roles == {"buyer": codec.PAYMENT_BUYER, "seller": codec.PAYMENT_SELLER}


@pytest.mark.req("TRAP-01", "ACP-02", "ENVL-01")
@settings(max_examples=150, deadline=None)
@given(said=st.lists(contents, max_size=5), msg_id=ids, session=ids)
def test_whatever_we_say_an_agent_verifies_reads_and_understands_alike(
    said: Sequence[codec.Content], msg_id: str, session: str
) -> None:
    envelope = read_by_library(sealed(codec.write_chat(said, msg_id=msg_id, at=AT), session))
    message = library.ChatMessage.parse_raw(envelope.decode_payload())
    assert str(envelope.session) == session
    assert envelope.schema_digest == codec.CHAT_MESSAGE
    assert str(message.msg_id) == msg_id
    assert message.timestamp.timestamp() == AT
    ours = codec.read_message(codec.CHAT_MESSAGE, message.json().encode())
    assert ours == codec.ChatMessage(msg_id=msg_id, content=tuple(cleaned(one) for one in said))


def cleaned(content: codec.Content) -> codec.Content:
    """Return content as it arrives: half characters are question marks."""
    match content:
        case codec.Text(text):
            return codec.Text(codec.clean(text))
        case codec.Meta(metadata):
            return codec.Meta({codec.clean(name): codec.clean(value) for name, value in metadata.items()})
        case codec.Resources(resource_id, found):
            clean = codec.clean
            kept = [codec.Resource(clean(r.uri), {clean(n): clean(v) for n, v in r.metadata.items()}) for r in found]
            return codec.Resources(resource_id, tuple(kept))
    return content


@pytest.mark.req("TRAP-01")
@given(msg_id=ids)
def test_an_acknowledgement_is_read_by_the_library(msg_id: str) -> None:
    draft = codec.write_acknowledgement(msg_id, at=AT)
    read = library.ChatAcknowledgement.parse_raw(draft.body)
    assert draft.schema_digest == codec.ACKNOWLEDGEMENT
    assert str(read.acknowledged_msg_id) == msg_id
    assert codec.read_message(codec.ACKNOWLEDGEMENT, read.json().encode()) == codec.Acknowledgement(msg_id)


@pytest.mark.req("TRAP-01")
@given(reason=texts)
def test_a_refused_payment_is_read_by_the_library(reason: str) -> None:
    draft = codec.write_rejection(reason)
    assert draft.schema_digest == codec.REJECT_PAYMENT
    assert payment.RejectPayment.parse_raw(draft.body).reason == codec.clean(reason)


def test_errors_and_requests_to_pay_of_the_library_are_understood() -> None:
    failed = ErrorMessage(error="no oven")
    assert codec.read_message(codec.ERROR_MESSAGE, failed.json().encode()) == codec.AgentError("no oven")
    asked = payment.RequestPayment(
        accepted_funds=[payment.Funds(amount="0.5", currency="FET")], recipient="x", deadline_seconds=60
    )
    read = codec.read_message(codec.REQUEST_PAYMENT, asked.json().encode())
    assert read == codec.PaymentAsked(funds=("0.5 FET",))
    over = payment.CompletePayment(transaction_id="t")
    assert codec.read_message(codec.COMPLETE_PAYMENT, over.json().encode()) == codec.PaymentNews()


@pytest.mark.req("ENVL-01", "ENVL-02")
@settings(max_examples=60, deadline=None)
@given(
    session=st.uuids(version=4),
    payload=st.none() | st.binary(max_size=40),
    expires=st.none() | st.integers(0, 2**63 - 1),
    nonce=st.none() | st.integers(0, 2**63 - 1),
    protocol=st.none() | st.text(max_size=9),
)
def test_an_envelope_of_the_librarys_is_read_and_its_signature_fits_our_digest(
    session: uuid.UUID, payload: bytes | None, expires: int | None, nonce: int | None, protocol: str | None
) -> None:
    theirs = LibraryEnvelope(
        version=1,
        sender=THEIRS.address,
        target=OURS.address,
        session=session,
        schema_digest=codec.CHAT_MESSAGE,
        protocol_digest=protocol,
        payload=None if payload is None else base64.b64encode(payload).decode(),
        expires=expires,
        nonce=nonce,
    )
    theirs.sign(THEIRS)
    ours = read_envelope(theirs.model_dump_json().encode())
    assert ours.session == str(session)
    assert ours.body() == (payload or b"")
    assert ours.signature is not None
    assert Identity.verify_digest(THEIRS.address, ours.digest(), ours.signature)


GOOD: dict[str, object] = {
    "version": 1,
    "sender": THEIRS.address,
    "target": OURS.address,
    "session": "56C9711A-d2a4-47a8-925c-6d5d07cd48bf",
    "schema_digest": codec.CHAT_MESSAGE,
}


@pytest.mark.req("ENVL-02")
def test_a_session_in_another_spelling_is_read_as_it_is_signed() -> None:
    assert read_envelope(msgspec.json.encode(GOOD)).session == "56c9711a-d2a4-47a8-925c-6d5d07cd48bf"


@pytest.mark.req("ENVL-02")
@pytest.mark.parametrize(
    "change",
    [
        {"session": "bcaaf1fa-7cb4-11f0-8de9-0242ac120002"},
        {"session": "886313e1-3b8a-5372-9b90-0c9aee199e5d"},
        {"session": "hello"},
        {"session": "5" * 10_000},
        {"session": None},
        {"sender": 5},
        {"sender": "a" * 10_000},
        {"signature": "s" * 10_000},
        {"expires": -1},
        {"nonce": 2**64},
        {"nonce": 10**400},
        {"nonce": True},
        {"version": "one"},
    ],
)
def test_what_is_no_envelope_is_refused_in_words(change: dict[str, object]) -> None:
    with pytest.raises(BadEnvelopeError, match="do not match"):
        read_envelope(json.dumps(GOOD | change).encode())


def test_a_payload_that_is_not_base64_is_refused_in_words() -> None:
    with pytest.raises(BadEnvelopeError, match="base64"):
        Envelope(**(GOOD | {"payload": "*"})).body()  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=80) | json_values.map(lambda found: json.dumps(found).encode()))
def test_hostile_bytes_are_refused_and_nothing_else_is_raised(body: bytes) -> None:
    with pytest.raises(BadEnvelopeError):
        read_envelope(body)


@settings(max_examples=300, deadline=None)
@given(
    digest=st.sampled_from(DIGESTS),
    body=st.binary(max_size=80)
    | json_values.map(lambda found: json.dumps(found).encode())
    | st.fixed_dictionaries(
        {},
        optional={
            "msg_id": json_values | ids,
            "content": json_values
            | st.lists(st.dictionaries(st.sampled_from(["type", "text", "resource"]), json_values)),
            "acknowledged_msg_id": json_values,
            "error": json_values,
            "accepted_funds": json_values,
        },
    ).map(lambda found: json.dumps(found).encode()),
)
def test_a_hostile_message_is_read_or_refused_and_nothing_else_is_raised(digest: str, body: bytes) -> None:
    with contextlib.suppress(codec.BadMessageError):
        codec.read_message(digest, body)


def test_nesting_without_end_is_refused() -> None:
    deep = b"[" * 100_000
    with pytest.raises(BadEnvelopeError):
        read_envelope(deep)
    with pytest.raises(codec.BadMessageError):
        codec.read_message(codec.CHAT_MESSAGE, b'{"msg_id":"x","content":' + deep)


@pytest.mark.req("ACP-02")
def test_content_of_an_unknown_kind_is_left_out_and_the_rest_is_heard() -> None:
    said = {"msg_id": str(uuid.UUID(int=1 << 78 | 4 << 76 | 1 << 63, version=4)), "content": [
        {"type": "hologram", "data": 1}, {"type": "text"}, {"type": "text", "text": "there"},
    ]}  # fmt: skip
    read = codec.read_message(codec.CHAT_MESSAGE, msgspec.json.encode(said))
    assert isinstance(read, codec.ChatMessage)
    assert read.content == (codec.Text("there"),)


@pytest.mark.req("ACP-09")
@pytest.mark.parametrize(
    ("said", "text", "selection", "cancelled"),
    [
        ("the blue one", "the blue one", None, False),
        ('{"size": 3, "gift": true, "name": "ü"}', None, {"size": 3, "gift": True, "name": "ü"}, False),
        ('{"nested": {"a": 1}}', '{"nested": {"a": 1}}', None, False),
        (" Cancel ", None, None, True),
    ],
)
@pytest.mark.parametrize("card_id", ["", "44444444-4444-4444-8444-444444444444"])
def test_an_answer_to_a_card_is_read_by_the_library(
    said: str,
    text: str | None,
    selection: dict[str, object] | None,
    cancelled: bool,  # noqa: FBT001 -- a column of the table
    card_id: str,
) -> None:
    answer = codec.card_answer(card_id, said)
    read = cards.extract_card_response(library.MetadataContent(metadata=answer.metadata))
    assert read is not None
    assert str(read.card_id or "") == card_id
    assert (read.text, read.selection, read.cancelled) == (text, selection, cancelled)
    assert "card_kind" not in answer.metadata


@pytest.mark.req("CALL-02")
def test_the_class_follows_from_the_schema_digest_alone() -> None:
    body = b'{"error": "x", "output": {"a": 1}, "msg_id": "no", "content": []}'
    assert codec.read_message(codec.ERROR_MESSAGE, body) == codec.AgentError("x")
    assert codec.read_message(codec.STRUCTURED_RESPONSE, body) == codec.Structured({"a": 1})
    assert codec.read_message("model:never seen", body) == codec.Unknown("model:never seen")
