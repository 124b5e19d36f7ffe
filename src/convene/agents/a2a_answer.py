"""What of an A2A agent's events is told, and when its answer is complete (A2A-04, -05, -07). Pure.

    Task | Message | StatusUpdate | ArtifactUpdate ──► Telling.hear ──► Heard*

A task may be heard of in pieces, then again in whole, when a stream broke and it is asked for: what was told once is
not told again. Text of artifacts is the answer; a closing message is it where no artifact has text; what an agent says
while it works is progress. A message that is no task's is a whole answer. Events of another task than the one that
began are refused: no agent may answer one question with another's task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.agents import a2a_codec as codec
from convene.agents.base import Attachment, Heard
from convene.agents.faults import TalkFault, error

if TYPE_CHECKING:
    from collections.abc import Iterator

PARAGRAPH: Final = "\n\n"
PROGRESS_MAX: Final = 100
"""Times that an agent's progress is shown."""
ARTIFACTS_MAX: Final = 1_000

FOREIGN: Final = "The agent answered with a task that is not the one it had begun."
TOO_MANY: Final = "The agent's answer has more than {limit} parts; it was cut off."
NO_WORDS: Final = {
    "input_required": "The agent needs more from you and does not say what.",
    "auth_required": "The agent wants a sign-in before it goes on and does not say where.",
    "failed": "The agent says that it failed, and not why.",
    "canceled": "The agent says that the task was cancelled.",
    "rejected": "The agent does not take this task, and does not say why.",
}


class Telling:
    """One answer while it comes in."""

    def __init__(self) -> None:
        self.over = False
        self.task_id = ""
        self.context_id = ""
        self.waits = False
        """The task waits for the user, who goes on with it in the next message."""
        self._alive = False
        self._spoke = False
        self._told: dict[str, str] = {}
        """Text of each artifact that was told."""
        self._shown: set[str] = set()
        self._data: list[str] = []
        self._progress = ""
        self._progress_left = PROGRESS_MAX

    def taken(self) -> list[Heard]:
        """Note that the agent has the question."""
        if self._alive:
            return []
        self._alive = True
        return [Heard(kind="acknowledged")]

    def hear(self, event: codec.Event) -> list[Heard]:
        """Take an event in and return what to pass on. Raises `TalkFault` for one of another task."""
        if self.over:
            return []
        return [*self.taken(), *self._hear(event)]

    def _hear(self, event: codec.Event) -> Iterator[Heard]:
        match event:
            case codec.Message():
                if event.task_id and self.task_id not in ("", event.task_id):
                    raise TalkFault(FOREIGN, "unreadable")
                self.context_id = event.context_id or self.context_id
                yield from self._say(event.parts)
                yield from self._end()
            case codec.Task():
                self._belongs(event.id, event.context_id)
                for artifact in event.artifacts:
                    yield from self._artifact(artifact, append=False)
                yield from self._status(event.status, event.history)
            case codec.ArtifactUpdate():
                self._belongs(event.task_id, event.context_id)
                yield from self._artifact(event.artifact, append=event.append)
            case codec.StatusUpdate():
                self._belongs(event.task_id, event.context_id)
                yield from self._status(event.status, ())

    def _belongs(self, task_id: str, context_id: str) -> None:
        if self.task_id not in ("", task_id):
            raise TalkFault(FOREIGN, "unreadable")
        self.task_id = task_id
        self.context_id = context_id or self.context_id

    def _artifact(self, artifact: codec.Artifact, *, append: bool) -> Iterator[Heard]:
        text = text_of(artifact.parts)
        told = self._told.get(artifact.id)
        if told is None and len(self._told) >= ARTIFACTS_MAX:
            raise TalkFault(TOO_MANY.format(limit=ARTIFACTS_MAX), "unreadable")
        if told is None:
            self._told[artifact.id] = text
            yield from self._text(text, begins=True)
        elif append:
            self._told[artifact.id] = told + text
            yield from self._text(text, begins=False)
        elif text.startswith(told):
            self._told[artifact.id] = text
            yield from self._text(text[len(told) :], begins=not told)
        else:
            # What was told cannot be taken back: the new text follows it.
            self._told[artifact.id] = text
            yield from self._text(text, begins=True)
        yield from self._attach(artifact.parts)

    def _status(self, status: codec.Status, history: tuple[codec.Message, ...]) -> Iterator[Heard]:
        said = "" if status.message is None else text_of(status.message.parts).strip()
        parts = () if status.message is None else status.message.parts
        match status.state:
            case "completed":
                if not self._spoke:
                    yield from self._say(parts or _last_words(history))
                elif parts:
                    yield from self._attach(parts)
                yield from self._end()
            case "input_required" | "auth_required" as state:
                yield from self._attach(parts)
                self.over = self.waits = True
                words = said or text_of(_last_words(history)).strip() or NO_WORDS[state]
                yield Heard(kind="needs_input", text=words, metadata={"state": state})
            case "failed" | "canceled" | "rejected" as state:
                self.over = True
                yield error(said or NO_WORDS[state], "refused" if state == "rejected" else "agent_error")
            case _:
                if said and said != self._progress and self._progress_left:
                    self._progress_left -= 1
                    yield Heard(kind="progress", text=said)
                self._progress = said or self._progress

    def _say(self, parts: tuple[codec.Part, ...]) -> Iterator[Heard]:
        yield from self._text(text_of(parts), begins=True)
        yield from self._attach(parts)

    def _text(self, text: str, *, begins: bool) -> Iterator[Heard]:
        if not text:
            return
        joined = begins and self._spoke
        self._spoke = True
        yield Heard(kind="text", text=f"{PARAGRAPH}{text}" if joined else text)

    def _attach(self, parts: tuple[codec.Part, ...]) -> Iterator[Heard]:
        """Tell files, each once; values are kept until it is known whether there are words beside them."""
        files = [one for one in parts if isinstance(one, codec.FilePart) and one.uri not in self._shown]
        for one in parts:
            if isinstance(one, codec.DataPart) and one.json not in self._data:
                self._data.append(one.json)
        if len(self._shown) + len(self._data) > ARTIFACTS_MAX:
            raise TalkFault(TOO_MANY.format(limit=ARTIFACTS_MAX), "unreadable")
        if files:
            self._shown.update(one.uri for one in files)
            found = tuple(Attachment(uri=one.uri, media_type=one.media_type, role=one.name) for one in files)
            yield Heard(kind="resource", attachments=found)

    def _end(self) -> Iterator[Heard]:
        """End it; values are told as text, for they are the answer or belong to it."""
        for json in self._data:
            yield from self._text(json if not self._spoke else f"```json\n{json}\n```", begins=True)
        if not self._spoke and not self._shown and self._progress:
            yield from self._text(self._progress, begins=True)
        self.over = True
        yield Heard(kind="end")


def text_of(parts: tuple[codec.Part, ...]) -> str:
    """Return the text of some parts, one after another: agents cut one text into parts as they write it."""
    return "".join(one.text for one in parts if isinstance(one, codec.TextPart))


def _last_words(history: tuple[codec.Message, ...]) -> tuple[codec.Part, ...]:
    """Return what the agent said last, if that was after the user: some agents answer there alone."""
    return history[-1].parts if history and history[-1].is_agents else ()
