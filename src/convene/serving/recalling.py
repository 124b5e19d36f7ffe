"""What a session remembers of earlier turns, put back into the conversation as data (SESSION-02).

    when a turn begins   recall(memory, owner, session) ──► texts in the job, so that a repeated run reads the same
    before the driver    Recalling ──► one quoted message in front of the last question; the labels of what it quotes

Clients send the messages again each time, but never what the server's tools returned: without this a second question
about a page that was read would have to search for it anew. Newest first, within a share of the window. What strangers
wrote is left out where the model has a tool that can send: remembering would take that tool away for good.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import StoreFault
from convene.messages import Message
from convene.serving.conversation import quote_result
from convene.serving.remembering import RESULT, Remembered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convene.serving.base_agentic import AgenticRun
    from convene.serving.base_sessions import Memory
    from convene.tools.base import Label

log = logging.getLogger("convene.recalling")

RESULTS_MAX: Final = 8
CHARS_MAX: Final = 8_000
WINDOW_SHARE: Final = 0.15
"""Of the window, for all of it: it must not crowd out what the turn itself finds."""
CHARS_PER_TOKEN: Final = 3
LEAST: Final = 80
"""Characters; less of a result says nothing."""
_HEAD: Final = "From earlier in this conversation, for you to use if it helps:"
_NOTED: Final = "Noted."
_GONE: Final[frozenset[Label]] = frozenset({"private", "untrusted"})
"""The labels of what a tool returned that is not there any more: the worst is thought of it."""
_read = msgspec.json.Decoder(Remembered).decode


async def recall(memory: Memory, owner: str, session_id: str) -> tuple[str, ...]:
    """Return results that a session remembers, newest first, as JSON; nothing if the store cannot say."""
    try:
        notes = await memory.recall(owner, session_id)
    except StoreFault as fault:
        log.warning("what a session remembers cannot be read: %s", fault.detail or fault.message)
        return ()
    results = [body.decode() for name, body in notes.items() if name.startswith(RESULT)]
    found: list[str] = []
    left = CHARS_MAX
    for body in reversed(results[-RESULTS_MAX:]):
        left -= len(body)
        if left < 0:
            break
        found.append(body)
    return tuple(found)


class Recalling:
    """Implements `Preparation`."""

    async def prepare(self, run: AgenticRun) -> None:
        """Quote what the job has brought along, within its share of the window."""
        quoted = list(_quotes(run, run.job.remembered))
        if not quoted:
            return
        at = max((index for index, message in enumerate(run.messages) if message.role == "user"), default=-1)
        if at < 0:
            return
        data = Message(role="user", content="\n\n".join([_HEAD, *quoted]))
        run.messages = [*run.messages[:at], data, Message(role="assistant", content=_NOTED), *run.messages[at:]]


def _quotes(run: AgenticRun, remembered: Iterable[str]) -> Iterable[str]:
    """Yield results as the model reads them, and let their labels count for the policy."""
    window = run.capabilities.context_window
    left = CHARS_MAX if window is None else min(CHARS_MAX, int(window * WINDOW_SHARE) * CHARS_PER_TOKEN)
    sends = any("sends" in tool.spec.labels and tool.spec.kind != "fetch" for tool in run.tools.values())
    for body in remembered:
        try:
            one = _read(body)
        except msgspec.DecodeError:  # written by another version: what cannot be read is not remembered
            continue
        tool = run.all_tools.get(one.tool_name)
        spec = None if tool is None else tool.spec
        labels = _GONE if spec is None else spec.labels
        if one.cut or left < LEAST or (sends and "untrusted" in labels):
            continue
        text = _words(one)[:left]
        left -= len(text)
        run.view.labels |= labels
        yield quote_result(one.tool_name, text, spec)


def _words(one: Remembered) -> str:
    arguments = msgspec.json.encode(one.args).decode()
    result = one.result if isinstance(one.result, str) else msgspec.json.encode(one.result).decode()
    return f"Called with {arguments}, it returned: {result}"
