"""Study mode: a tutor (CHAT-22). The stage of the lesson is decided in code, its words stand in `prompts/study.md`.

    messages, what the session keeps ──► lessons.py: stage and level ──► a step that shows them and the prompt's version
                                                                   └──► system text: always + stage + level

The step is in the journal, so a run that is repeated after a crash tells the model the same.
"""

from __future__ import annotations

import importlib.resources
import logging
import re
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

import convene
from convene.errors import StoreFault
from convene.serving.base_steps import StepPlan
from convene.serving.lessons import Pace, Standing, follow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.serving.base_agentic import AgenticRun

log = logging.getLogger("convene.study")

NOTE: Final = "study:standing"
"""What a session calls its place in the lesson."""
_FRONT: Final = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_READ: Final = msgspec.json.Decoder(Standing).decode


class Notes(Protocol):
    """What study mode needs of sessions; see `base_sessions.Memory`."""

    async def remember(self, owner: str, session_id: str, notes: Mapping[str, bytes]) -> None:
        """Keep notes in a session."""
        ...

    async def recall(self, owner: str, session_id: str, names: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return notes of a session."""
        ...


class Manual(msgspec.Struct, frozen=True):
    """The prompt file, read."""

    version: str
    pace: Pace
    parts: dict[str, str]

    def words(self, standing: Standing) -> str:
        """Return what the model is told at this place of a lesson."""
        return "\n\n".join(self.parts[name] for name in ("always", standing.stage, f"level: {standing.level}"))


def read_manual(text: str) -> Manual:
    """Return a prompt file read: a head of `name: value` lines, then parts under second-level headings.

    Raises `ValueError` for one that lacks its head or a part.
    """
    front = _FRONT.match(text)
    if front is None:
        raise ValueError("a prompt file begins with a head between two lines of ---")
    head = dict(line.split(": ", 1) for line in front[1].splitlines())
    parts = {
        name.strip(): body.strip()
        for name, _, body in (part.partition("\n") for part in text[front.end() :].split("\n## ")[1:])
    }
    wanted = ["always", "diagnose", "guide", "check", "tell"]
    wanted += [f"level: {level}" for level in ("unknown", "beginner", "intermediate", "advanced")]
    if missing := [name for name in wanted if not parts.get(name)]:
        raise ValueError(f"a prompt file for study mode needs the part {missing[0]!r}")
    pace = Pace(guide_turns=int(head["guide_turns"]), insist_turns=int(head["insist_turns"]))
    return Manual(head["version"], pace, parts)


class Study:
    """Implements `Preparation`."""

    def __init__(self, notes: Notes | None = None) -> None:
        """`notes`: where places in lessons are kept for sessions; None: nowhere."""
        self._notes = notes
        self._manual: Manual | None = None

    async def prepare(self, run: AgenticRun) -> None:
        """See `Preparation.prepare`."""
        if not run.job.request.agentic.study_mode:
            return
        manual = self._read()
        standing = follow(run.job.request.generation.messages, manual.pace, await self._recall(run))
        if standing is None:
            standing = Standing()
        step = await run.open_step(
            StepPlan(
                kind="judge",
                name="study",
                input=b'{"mode":"study"}',
                summary=f"Study mode: {standing.stage}",
                detail={
                    "mode": "study",
                    "version": manual.version,
                    "stage": standing.stage,
                    "level": standing.level,
                },
            )
        )
        if step.recorded is None:
            await self._remember(run, standing)
            await run.close_step(step, "done", msgspec.json.encode(standing), summary=f"Study mode: {standing.stage}")
        else:
            standing = _READ(step.recorded.output)
        run.instruct(manual.words(standing))

    def _read(self) -> Manual:
        """Read the file when it is first needed: importing a module does nothing."""
        if self._manual is None:
            file = importlib.resources.files(convene) / "serving" / "prompts" / "study.md"
            self._manual = read_manual(file.read_text(encoding="utf-8"))
        return self._manual

    async def _recall(self, run: AgenticRun) -> Standing | None:
        session = run.job.request.agentic.session_id
        if self._notes is None or session is None:
            return None
        try:
            found = await self._notes.recall(run.job.owner, session, (NOTE,))
            return _READ(found[NOTE]) if NOTE in found else None
        except (StoreFault, msgspec.DecodeError) as fault:
            log.warning("the place of a lesson cannot be read: %s", fault)
            return None

    async def _remember(self, run: AgenticRun, standing: Standing) -> None:
        session = run.job.request.agentic.session_id
        if self._notes is None or session is None:
            return
        try:
            await self._notes.remember(run.job.owner, session, {NOTE: msgspec.json.encode(standing)})
        except StoreFault as fault:
            log.warning("the place of a lesson cannot be kept: %s", fault)
