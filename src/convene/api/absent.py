"""Paths that clients try and this server does not serve (yet): a clear OpenAI error instead of a riddle (API-06)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.errors import NotFound

if TYPE_CHECKING:
    from convene.api.call import Call

ABSENT: tuple[tuple[str, str, str], ...] = (
    ("POST", "/v1/audio/speech", "Speech synthesis"),
    ("POST", "/v1/audio/transcriptions", "Transcription"),
    ("POST", "/v1/audio/translations", "Audio translation"),
    ("POST", "/v1/completions", "The legacy completions endpoint"),
)


class Absent:
    """Answers 404 with the reason and the way out."""

    def __init__(self, what: str) -> None:
        self._what = what

    async def __call__(self, call: Call) -> None:
        """Refuse."""
        raise NotFound(
            f"{self._what} is not offered by this server: {call.path}. Chat is at /v1/chat/completions.",
            code="unknown_url",
        )


async def refuse_stored(call: Call) -> None:
    """Refuse the stored-completion paths: completions are accepted with `store`, but not kept (OAI-25)."""
    raise NotFound(f"This server keeps no completions: {call.scope['path'][:200]}.", code="not_found")
