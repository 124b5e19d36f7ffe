"""Why a talk with an agent ends without an answer, as an exception inside this room. Words are fit for users."""

from __future__ import annotations

from typing import Literal

from convene.agents.base import Heard

Reason = Literal["unreachable", "timed_out", "refused", "unreadable", "agent_error", "lost", "store", "busy"]


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
