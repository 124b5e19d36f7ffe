"""When an agent's answer is complete, which its protocol does not say (END-01 to 06, decisions 3 and 24). Pure.

    message of the agent's ──► hear ──► what to pass on        an end mark, or the end of a stream, ends it at once
    time passes            ──► wake ──► the end, or a fault    2 s of silence after an answer; 60 s without a sign of
                                                               life; 240 s in all

Nothing here waits or reads a clock: `chat_protocol.py` asks `wake_at` and comes back then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.agents import chat_codec as codec
from convene.agents.base import Attachment, Heard

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRESS: Final = frozenset(
    {
        "agent is working on your request",
        "working on your request",
        "working on it",
        "processing your request",
        "please wait",
    }
)
"""Phrases that are no answer, in small letters without the punctuation at their end (END-05): what A2A agents behind
agentverse-sdk say first, and its like."""
PARAGRAPH: Final = "\n\n"
"""Between two messages of one answer, unless a stream says that they are pieces of one text."""
CARD_VERSION: Final = "card_protocol_version"
WANTS_CARD: Final = "requires_card_interaction"

NO_SIGN: Final = "The agent did not react within {seconds:g} seconds; it may be down."
NO_ANSWER: Final = "The agent took the question and did not answer within {seconds:g} seconds."
UNREADABLE: Final = "The agent's answer does not have the form that its protocol demands; it could not be read."
PAYMENT: Final = "The agent asks to be paid ({funds}) before it goes on. This server pays nothing, and told it so."


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long an agent is listened to, in seconds."""

    first_s: float = 60.0
    """To the first sign of life; an acknowledgement is one."""
    total_s: float = 240.0
    quiet_s: float = 2.0
    """Silence after an answer that says nothing of its end."""


class Unreadable(msgspec.Struct, frozen=True):
    """A message that its own schema does not allow."""


Said = codec.Heard | Unreadable


class Listening:
    """One answer while it comes in. Times are seconds of one clock."""

    def __init__(self, patience: Patience, msg_id: str, sent_at: float) -> None:
        """`msg_id` is that of the question, which went out at `sent_at`."""
        self.over = False
        self.answered = False
        """Whether anything was heard that is an answer."""
        self._patience = patience
        self._msg_id = msg_id
        self._sent_at = sent_at
        self._alive = False
        self._spoke_at: float | None = None
        """When it last said something after which silence means the end."""
        self._streams: set[str] = set()
        self._metadata: dict[str, str] = {}

    def hear(self, said: Said, now: float) -> list[Heard]:
        """Take a message in and return what to pass on."""
        return [] if self.over else list(self._hear(said, now))

    def _hear(self, said: Said, now: float) -> Iterator[Heard]:
        match said:
            case codec.Acknowledgement(msg_id):
                if msg_id == self._msg_id and not self._alive:
                    self._alive = True
                    yield Heard(kind="acknowledged")
            case codec.ChatMessage(content=content):
                self._alive = True
                yield from self._hear_content(content, now)
            case codec.Structured():
                yield from self._say(text_of(said))
                yield from self._end()
            case codec.AgentError(error):
                yield self._fail(error or "The agent says that it failed, and not why.", "agent_error")
            case codec.PaymentAsked(funds=funds, description=description):
                self.over = True
                words = PAYMENT.format(funds=" or ".join(funds) or "an amount that it does not name")
                yield Heard(kind="payment", text=f"{words} {description}".strip())
            case Unreadable():
                yield self._fail(UNREADABLE, "unreadable")

    def wake_at(self) -> float:
        """Return when `wake` has something to say, if nothing is heard before."""
        ends = [self._sent_at + self._patience.total_s]
        if not self._alive:
            ends.append(self._sent_at + self._patience.first_s)
        if self._spoke_at is not None and not self._streams:
            ends.append(self._spoke_at + self._patience.quiet_s)
        return min(ends)

    def wake(self, now: float) -> list[Heard]:
        """Return what follows from nothing having been heard until now."""
        if self.over or now < self.wake_at():
            return []
        patience = self._patience
        if self._spoke_at is not None and not self._streams and now >= self._spoke_at + patience.quiet_s:
            return self._end()
        if not self._alive:
            return [self._fail(NO_SIGN.format(seconds=patience.first_s), "timed_out")]
        if self.answered:
            self._metadata["cut"] = "true"
            return self._end()
        return [self._fail(NO_ANSWER.format(seconds=patience.total_s), "timed_out")]

    def _hear_content(self, content: tuple[codec.Content, ...], now: float) -> Iterator[Heard]:
        open_before, opening = bool(self._streams), True
        for one in content:
            match one:
                case codec.Text(text):
                    yield from self._say(text, opening=opening)
                    opening = False
                case codec.Resources(resources=resources):
                    self.answered = True
                    yield Heard(kind="resource", attachments=tuple(map(_attachment, resources)))
                case codec.Meta(metadata) if is_card(metadata):
                    self.over = True
                    yield Heard(kind="needs_input", text=_card_words(metadata), metadata=metadata)
                    return
                case codec.Meta(metadata):
                    self._metadata |= metadata
                case _:
                    self._note_stream(one)
        ended = codec.EndSession() in content
        if self.answered or ended:
            # An end mark alone may belong to the answer before, whose silence was taken for its end.
            self._spoke_at = now
        if self.answered and (ended or (_closes(content, open_before=open_before) and not self._streams)):
            yield from self._end()

    def _note_stream(self, content: codec.Content) -> None:
        if isinstance(content, codec.StartStream):
            self._streams.add(content.stream_id)
        elif isinstance(content, codec.EndStream):
            self._streams.discard(content.stream_id)

    def _say(self, text: str, *, opening: bool = True) -> Iterator[Heard]:
        if not text.strip() and not self._streams:
            return
        if is_progress(text) and not self._streams:
            yield Heard(kind="progress", text=text.strip())
            return
        joined = opening and self.answered and not self._streams
        self.answered = True
        yield Heard(kind="text", text=f"{PARAGRAPH}{text}" if joined else text)

    def _end(self) -> list[Heard]:
        self.over = True
        return [Heard(kind="end", metadata=self._metadata)]

    def _fail(self, words: str, reason: str) -> Heard:
        self.over = True
        return Heard(kind="error", text=words, metadata={"reason": reason})


def _closes(content: tuple[codec.Content, ...], *, open_before: bool) -> bool:
    """Whether a message ends a stream that was begun, by itself or before it."""
    kinds = {type(one) for one in content}
    return codec.EndStream in kinds and (open_before or codec.StartStream in kinds)


def is_progress(text: str) -> bool:
    """Whether a text only says that work goes on."""
    return text.strip().rstrip(".…! ").lower() in PROGRESS


def is_card(metadata: dict[str, str]) -> bool:
    """Whether metadata is a card that the user is to answer (ACP-08); an answer to one has no kind."""
    return metadata.get(CARD_VERSION) == "1" and "card_kind" in metadata and metadata.get(WANTS_CARD) == "true"


def is_answer(said: Said) -> bool:
    """Whether a message that came late is worth telling: it has text or a resource."""
    if isinstance(said, codec.Structured):
        return True
    if not isinstance(said, codec.ChatMessage):
        return False
    return any(
        isinstance(one, codec.Resources)
        or (isinstance(one, codec.Text) and bool(one.text.strip()) and not is_progress(one.text))
        for one in said.content
    )


def text_of(said: Said) -> str:
    """Return the text of a message, its parts one below the other."""
    if isinstance(said, codec.Structured):
        return msgspec.json.encode(said.output).decode()
    if not isinstance(said, codec.ChatMessage):
        return ""
    return "\n".join(one.text for one in said.content if isinstance(one, codec.Text))


def attachments_of(said: Said) -> tuple[Attachment, ...]:
    """Return the resources of a message."""
    content = said.content if isinstance(said, codec.ChatMessage) else ()
    return tuple(_attachment(r) for one in content if isinstance(one, codec.Resources) for r in one.resources)


def _attachment(resource: codec.Resource) -> Attachment:
    found = resource.metadata
    return Attachment(uri=resource.uri, media_type=found.get("mime_type", ""), role=found.get("role", ""))


def _card_words(metadata: dict[str, str]) -> str:
    return f"The agent shows a card ({metadata['card_kind']}) and waits for a choice."
