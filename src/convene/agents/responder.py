"""Answers chat messages of agents that ask us, in sessions that they have begun (ACP-01, -03, -05).

    inbox ──► take: is it a question? may it be asked? ──► noted (`questions.py`) ──► 200, acknowledged by the inbox
                                                              └──► a task: Replies ──► text ──► chat messages ──► closed
    start ──► what was open when this server, or another, ended

One question at a time in a conversation, since an answer names none. A crash repeats nothing that was sent, except for
one moment: between sending an answer and writing that down nobody can know whether it arrived; then it is sent again,
under the same id. Whether agents are in a circle is for `agent_hops.py`; where they drop its list, `Budget` ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from convene.agents import chat_codec as codec
from convene.agents.base import Verdict
from convene.agents.inbox import hops_of
from convene.agents.letters import uuid_of
from convene.agents.one_at_a_time import OneAtATime
from convene.agents.questions import HELD_S, Question
from convene.errors import ConveneError, StoreFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine

    from convene.agents.courier import Courier
    from convene.agents.envelope import Envelope
    from convene.agents.questions import Questions
    from convene.clock import Clock

    Deliver = Callable[[tuple[codec.Content, ...], int], Awaitable[bool]]

log = logging.getLogger("convene.agents")

TEXT_MAX: Final = 100_000
"""Characters of a question."""
OPEN_MAX: Final = 1_000
"""Questions that are worked on or wait here; above it agents are asked to come again."""
AT_ONCE: Final = 64
TALKS_MAX: Final = 10_000
"""Conversations whose pace is known; of more the one that was silent longest is forgotten."""
MINUTE_S: Final = 60.0
PIECE_CHARS: Final = 400
PIECE_S: Final = 0.5
"""A streamed answer goes out in pieces of so many characters, or as much as has come in so long."""
LATE_S: Final = 900.0
"""A question that was open so long ago when a server takes it up is answered no more."""
PAUSES_S: Final = (0.5, 2.0, 8.0)
"""Before each further try to deliver what certainly has not arrived."""

PARAGRAPH: Final = "\n\n"
"""Between what was said and why it ended there."""
NOTHING: Final = "There is nothing to say to that."
FAILED: Final = "The question could not be answered for an internal reason."
TOO_LONG: Final = f"The message is too long: at most {TEXT_MAX} characters are read."
NOT_LISTED: Final = "This agent answers only agents that its operator has listed."
TOO_MANY: Final = (
    "This conversation has had {most} messages within a minute, which is the most that is answered. The next ones are "
    "taken in silence until a minute has passed."
)
BUSY: Final = Verdict(503, "too many questions wait to be answered; send it again later")


class Reply(Protocol):
    """An accepted question."""

    @property
    def run_id(self) -> str:
        """By which it is found after a crash."""
        ...

    def texts(self) -> AsyncGenerator[str]:
        """Yield the answer piece by piece. Raises `ConveneError`, whose message is fit for the agent."""
        ...


class Replies(Protocol):
    """Finds answers; filled by `app_answering.py`."""

    async def begin(self, question: Question) -> Reply:
        """Accept a question. Raises `ConveneError`, whose message is fit for the agent."""
        ...

    async def go_on(self, question: Question) -> Reply | None:
        """Return the answer under way of a question with a run; None: the run has never begun."""
        ...


class ResponderTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How agents are answered."""

    allow: frozenset[str] = frozenset()
    """The only ones, if there are any."""
    stream: bool = False
    per_minute: int = 10
    shared: bool = False
    """Other processes answer too, so what is open may be theirs."""
    per_sender: int = 1_000
    """Messages of one sender in a minute that are taken in at all; more are asked to come again."""
    together: int = 10_000
    """The same for all senders together: an address costs nothing, and each message costs a write."""


class Budget:
    """How many messages of a conversation are answered in a minute, whoever sends them and whatever they say.

    Two programs that answer each other's answers are ended by it: what is not answered brings no further message.
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._most = per_minute
        self._clock = clock
        self._talks: OrderedDict[str, deque[float]] = OrderedDict()

    def admit(self, talk: str) -> bool | None:
        """Count a message. True: it is answered; False: it is told that it is not; None: it is not even told."""
        now = self._clock.monotonic()
        times = self._talks.setdefault(talk, deque())
        self._talks.move_to_end(talk)
        if len(self._talks) > TALKS_MAX:
            self._talks.popitem(last=False)
        while times and now - times[0] >= MINUTE_S:
            times.popleft()
        if len(times) > self._most:
            return None
        times.append(now)
        return len(times) <= self._most


class Pace:
    """How many messages are taken in within a minute of the clock, from each and from all."""

    def __init__(self, per_sender: int, together: int, clock: Clock) -> None:
        self._per_sender = per_sender
        self._together = together
        self._clock = clock
        self._minute = -1
        self._counts: dict[str, int] = {}
        self._all = 0

    def admit(self, sender: str) -> bool:
        """Count a message, and say whether it is taken in."""
        minute = int(self._clock.monotonic() // MINUTE_S)
        if minute != self._minute:
            self._minute, self._counts, self._all = minute, {}, 0
        if self._all >= self._together or self._counts.get(sender, 0) >= self._per_sender:
            return False
        self._all += 1
        self._counts[sender] = self._counts.get(sender, 0) + 1
        return True


class Responder:
    """Answers. Belongs to one event loop."""

    def __init__(
        self,
        courier: Courier,
        questions: Questions,
        replies: Replies,
        clock: Clock,
        secret: bytes,
        terms: ResponderTerms = ResponderTerms(),  # noqa: B008 -- frozen
    ) -> None:
        """`secret` is what ids of messages are computed with; the same in every process and after a restart."""
        self._courier = courier
        self._questions = questions
        self._replies = replies
        self._clock = clock
        self._secret = secret
        self._terms = terms
        self._budget = Budget(terms.per_minute, clock)
        self._pace = Pace(terms.per_sender, terms.together, clock)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._talks = OneAtATime()
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking: set[str] = set()

    async def take(self, envelope: Envelope, said: codec.ChatMessage) -> Verdict:
        """Take in a message of a session that is none of ours, from a sender that is proved. Raises `StoreFault`."""
        question = Question(
            sender=envelope.sender,
            session=envelope.session,
            msg_id=said.msg_id,
            text="\n".join(one.text for one in said.content if isinstance(one, codec.Text)),
            hops=hops_of(said),
            asked=envelope.target,
            at=self._clock.now(),
        )
        if not question.text.strip() or question.key in self._taking:
            return Verdict()
        if len(self._tasks) >= OPEN_MAX or not self._pace.admit(question.sender):
            return BUSY
        self._taking.add(question.key)
        try:
            await self._take(question, ends=any(isinstance(one, codec.EndSession) for one in said.content))
        finally:
            self._taking.discard(question.key)
        return Verdict()

    async def _take(self, question: Question, *, ends: bool) -> None:
        is_first = await self._questions.begins(question.talk)
        if ends and not is_first:
            return  # it closes the conversation, and wants nothing more
        words = self._refusal(question)
        if words is None:
            log.warning("%s writes too often in one conversation; it is answered no more for now", question.sender)
            return
        held = await self._questions.add(msgspec.structs.replace(question, text=question.text[:TEXT_MAX]))
        if held is not None:
            self._work(self._say_no(held, words) if words else self._answer(held))

    def _refusal(self, question: Question) -> str | None:
        """Return why a question is not answered, in words for the agent; empty: it is; None: nothing is said at all."""
        admitted = self._budget.admit(question.talk)
        if admitted is None:
            return None
        if self._terms.allow and question.sender not in self._terms.allow:
            return NOT_LISTED
        if not admitted:
            return TOO_MANY.format(most=self._terms.per_minute)
        return TOO_LONG if len(question.text) > TEXT_MAX else ""

    async def watch(self) -> None:
        """Answer what others have left, at once and, where there are others, again and again, until cancelled."""
        while True:
            try:
                for question in await self._questions.left(alone=not self._terms.shared):
                    self._work(self._answer(question))
            except StoreFault as fault:
                log.warning("questions of agents could not be looked for: %s", fault.detail or fault.message)
                await asyncio.sleep(HELD_S / 3)
                continue
            if not self._terms.shared:
                return
            await asyncio.sleep(HELD_S / 3)

    async def aclose(self) -> None:
        """Leave what is under way to the next start."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _work(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="answer to an agent")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _say_no(self, question: Question, words: str) -> None:
        try:
            await self._deliver(question, (codec.Text(words), codec.EndSession()), 0)
            await self._questions.close(question)
        except StoreFault as fault:
            log.warning("a question is not closed: %s", fault.detail or fault.message)

    async def _answer(self, question: Question) -> None:
        """Answer one question, whatever happens on the way."""
        try:
            async with self._talks.alone(question.talk), self._slots, self._held(question):
                if self._clock.now() - question.at > LATE_S:
                    log.warning("a question of %s is too old to be answered", question.sender)
                elif question.reply:
                    await self._send_whole(question, question.reply)
                else:
                    await self._find(question)
                await self._questions.close(question)
        except StoreFault as fault:
            log.warning("a question of %s is left open: %s", question.sender, fault.detail or fault.message)
        except Exception:  # whatever it is, the others go on
            log.exception("a question of %s is not answered", question.sender)

    async def _find(self, question: Question) -> None:
        """Have a question answered, and send that."""
        sending = self._sending(question) if self._terms.stream else None
        texts: list[str] = []
        async with aclosing(self._texts(question)) as pieces:
            async for piece in pieces:
                texts.append(piece)
                if sending is not None:
                    await sending.add(piece)
        whole = "".join(texts)
        words = whole if whole.strip() else NOTHING
        await self._questions.keep(msgspec.structs.replace(question, reply=words))
        if sending is not None and sending.begun:
            await sending.end(words)
        else:
            await self._send_whole(question, words)

    async def _texts(self, question: Question) -> AsyncGenerator[str]:
        """Yield the answer to a question; what goes wrong becomes words. Raises `StoreFault`."""
        gap = ""
        try:
            reply = await self._replies.go_on(question) if question.run_id else None
            if reply is None:
                reply = await self._replies.begin(question)
            await self._questions.keep(msgspec.structs.replace(question, run_id=reply.run_id))
            async with aclosing(reply.texts()) as pieces:
                async for piece in pieces:
                    gap = PARAGRAPH
                    yield piece
        except StoreFault:
            raise
        except ConveneError as fault:
            log.info("a question of %s ended in a fault: %s %s", question.sender, fault.message, fault.detail)
            yield gap + fault.message
        except Exception:  # whatever it is, the agent is told that there is no answer, and the log why
            log.exception("a question of %s could not be answered", question.sender)
            yield gap + FAILED

    def _sending(self, question: Question) -> _Sending:
        stream_id = uuid_of(self._secret, "stream", question.key)
        return _Sending(partial(self._deliver, question), self._clock.monotonic, stream_id)

    async def _send_whole(self, question: Question, words: str) -> None:
        await self._deliver(question, (codec.Text(words), codec.EndSession()), 0)

    async def _deliver(self, question: Question, content: tuple[codec.Content, ...], number: int) -> bool:
        """Send the message of that number of an answer; again only where it certainly has not arrived (CALL-06).

        Returns whether it may have arrived.
        """
        msg_id = uuid_of(self._secret, "reply", question.key, str(number))
        draft = codec.write_chat(content, msg_id=msg_id, at=self._clock.now())
        for pause_s in (*PAUSES_S, None):
            delivery = await self._courier.send(draft, question.sender, question.session, sender=question.asked)
            if delivery.outcome == "delivered":
                return True
            if delivery.outcome != "unreachable" or pause_s is None:
                break
            await asyncio.sleep(pause_s)
        log.warning("%s could not be given its answer: %s", question.sender, delivery.words)
        return delivery.outcome != "unreachable"

    @asynccontextmanager
    async def _held(self, question: Question) -> AsyncIterator[None]:
        """Let other processes know that a question is worked on."""
        if not self._terms.shared:
            yield
            return
        task = asyncio.get_running_loop().create_task(self._hold(question), name="hold")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _hold(self, question: Question) -> None:
        while True:
            await asyncio.sleep(HELD_S / 3)
            try:
                await self._questions.hold(question)
            except StoreFault as fault:
                log.warning("a question may be answered twice: %s", fault.detail or fault.message)


class _Sending:
    """A streamed answer on its way: pieces go out as they come, in order, and never faster than they are taken.

    When one certainly has not arrived, nothing more is tried until the end, which brings all that is left.
    """

    def __init__(self, deliver: Deliver, monotonic: Callable[[], float], stream_id: str) -> None:
        self.begun = False
        self._deliver = deliver
        self._monotonic = monotonic
        self._stream_id = stream_id
        self._waiting: list[str] = []
        self._sent_chars = 0
        self._is_away = False
        self._number = 0
        self._last_at = monotonic()

    async def add(self, piece: str) -> None:
        """Take a piece, and send what has come if it is enough or time."""
        self._waiting.append(piece)
        if self._is_away:
            return
        is_time = self._monotonic() - self._last_at >= PIECE_S
        if not is_time and sum(map(len, self._waiting)) < PIECE_CHARS:
            return
        text, self._waiting = "".join(self._waiting), []
        opening: tuple[codec.Content, ...] = () if self.begun else (codec.StartStream(self._stream_id),)
        self._number += 1
        if await self._deliver((*opening, codec.Text(text)), self._number):
            self.begun = True
            self._sent_chars += len(text)
        else:
            self._is_away = True
        self._last_at = self._monotonic()

    async def end(self, words: str) -> None:
        """Send the rest of the whole answer and end the stream."""
        rest = words[self._sent_chars :]
        closing: tuple[codec.Content, ...] = (codec.EndStream(self._stream_id), codec.EndSession())
        await self._deliver((codec.Text(rest), *closing) if rest else closing, self._number + 1)
