"""Why a talk with an agent ends without an answer, as an exception inside this room. Words are fit for users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from convene.agents.base import Heard

if TYPE_CHECKING:
    from convene.agents.base import Conversation

Reason = Literal["unreachable", "timed_out", "refused", "unreadable", "agent_error", "lost", "store", "busy"]

NO_ADDRESS: Final = "The agent has no address."
LOOP: Final = "This agent has asked this question itself; it is not asked back."
STORE: Final = "The agent cannot be asked now: what it answers could not be kept."


class TalkFault(Exception):
    """The talk cannot go on; the text is for users."""

    def __init__(self, words: str, reason: Reason, *, sent: bool = True) -> None:
        """`sent`: whether anything can have reached the agent."""
        super().__init__(words)
        self.words = words
        self.reason: Reason = reason
        self.sent = sent

    def heard(self) -> Heard:
        """Return it as what ends a talk."""
        return error(self.words, self.reason)


def error(words: str, reason: str) -> Heard:
    """Return what ends a talk badly."""
    return Heard(kind="error", text=words, metadata={"reason": reason})


def why_not(address: str, conversation: Conversation) -> str:
    """Return why the agent at an address is not asked in a conversation, in words for users; empty: it is asked."""
    if not address:
        return NO_ADDRESS
    return LOOP if address in (conversation.caller, *conversation.hops) else ""
