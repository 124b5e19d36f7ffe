"""Whoever reads a run in pieces, here or from another process, before and after kills, gets its text whole and once.

The rule for readers (`pages/runs.md`): text after the last event with an id is thrown away when they come back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from convene.events import Finished, Fold, StepChanged, TextDelta, UsageReported
from convene.serving.base_runs import RunEnded
from convene.serving.runs import ending_of, pieces_of
from convene.usage import Usage
from run_doubles import RunHouse, a_round, a_tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convene.serving.base_runs import Piece
    from convene.serving.journal import StoredJournal

Script = list[list[str]]
"""The rounds of a run, each the pieces of its text; between two rounds a tool runs."""


class Killed(Exception):
    """The process is no more."""


class Reader:
    """Follows the rule."""

    def __init__(self) -> None:
        self.kept = ""
        self.loose = ""
        self.last = 0
        self.steps: dict[str, str] = {}
        self.over = False

    def come_back(self) -> None:
        self.loose = ""

    def take(self, pieces: list[Piece]) -> None:
        for seq, event in pieces:
            assert not self.over
            if isinstance(event, TextDelta):
                self.loose += event.text
            elif isinstance(event, StepChanged):
                self.steps[event.id] = event.status
            elif isinstance(event, RunEnded):
                self.over = True
            if seq:
                assert seq > self.last, "what was numbered comes once, in order"
                self.kept, self.loose, self.last = self.kept + self.loose, "", seq


class Scene:
    """One run, its readers, and what happens at each moment of it."""

    def __init__(self, script: Script, moments: dict[int, list[tuple[int, bool]]], kills: set[int]) -> None:
        """`moments`: which readers look at which moment, and whether from another process; `kills` ends lives."""
        self.house = RunHouse()
        self.script = script
        self.readers = [Reader() for _ in range(3)]
        self._moments = moments
        self._kills = kills
        self._moment = 0

    @property
    def answer(self) -> str:
        return "".join(piece for pieces in self.script for piece in pieces)

    async def play(self) -> None:
        journal = await self.house.begun()
        while True:
            try:
                await self._live(journal)
            except Killed:
                journal = await self.house.after_a_kill()
            else:
                return

    async def _live(self, journal: StoredJournal) -> None:
        for number, pieces in enumerate(self.script, 1):
            late = await self._round(journal, number, pieces)
            if number < len(self.script):
                tool = await journal.open(a_tool(arguments=b"%d" % number))
                await self._tick(journal)
                await self._say(journal, late)
                if tool.recorded is None:
                    await tool.close("done", b"{}")
                    await self._tick(journal)
            else:
                await self._say(journal, late)
        gathered = Fold()
        gathered.extend((TextDelta(self.answer), Finished("stop"), UsageReported(Usage(1, 1))))
        await journal.finish("done", gathered)

    async def _round(self, journal: StoredJournal, number: int, pieces: list[str]) -> list[str]:
        """Play a round: a third of its text before its end, a third after it; return the rest, which comes later."""
        step = await journal.open(a_round(number))
        await self._tick(journal)
        if step.recorded is not None:
            journal.saw(TextDelta("".join(pieces)))
            return []
        third = -(-len(pieces) // 3)
        await self._say(journal, pieces[:third])
        await step.close("done", usage=Usage(1, 1))
        await self._tick(journal)
        await self._say(journal, pieces[third : 2 * third])
        return pieces[2 * third :]

    async def _say(self, journal: StoredJournal, pieces: list[str]) -> None:
        for piece in pieces:
            journal.saw(TextDelta(piece))
            await self._tick(journal)

    async def _tick(self, journal: StoredJournal) -> None:
        """Let readers look, then perhaps die."""
        self._moment += 1
        for index, elsewhere in self._moments.get(self._moment, ()):
            await self.look(self.readers[index], journal, elsewhere=elsewhere)
        if self._moment in self._kills:
            raise Killed

    async def look(self, reader: Reader, journal: StoredJournal, *, elsewhere: bool) -> None:
        reader.come_back()
        if elsewhere:
            rows = await self.house.store.steps("run_1", reader.last)
            reader.take(pieces_of(rows, reader.last))
            return
        log = journal.log.read(reader.last)
        if journal.log.place(reader.last) < len(journal.log.entries):
            async with asyncio.timeout(1):
                reader.take(await anext(log))
        await log.aclose()

    async def end(self) -> None:
        """Let every reader read the run to its end, from the store."""
        run = self.house.store.runs["run_1"]
        rows = await self.house.store.steps("run_1")
        for reader in self.readers:
            reader.come_back()
            reader.take([*pieces_of(rows, reader.last), *ending_of(run, rows, reader.last)])


def moments_of(looks: list[tuple[int, int, bool]]) -> dict[int, list[tuple[int, bool]]]:
    found: dict[int, list[tuple[int, bool]]] = {}
    for moment, reader, elsewhere in looks:
        found.setdefault(moment, []).append((reader, elsewhere))
    return found


SCRIPTS = st.lists(st.lists(st.text("abc ", min_size=1, max_size=4), max_size=6), min_size=1, max_size=4)
LOOKS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 2), st.booleans()), max_size=20)
KILLS = st.sets(st.integers(1, 50), max_size=4)


@settings(max_examples=300, deadline=None)
@given(SCRIPTS, LOOKS, KILLS)
@example([["a", "a"], []], [(5, 0, False), (7, 0, False)], {3, 6})  # text before an event whose row tells a later one
def test_text_comes_whole_and_once_however_a_run_is_read_and_killed(
    script: Script, looks: list[tuple[int, int, bool]], kills: set[int]
) -> None:
    async def scene() -> None:
        played = Scene(script, moments_of(looks), kills)
        await played.play()
        await played.end()
        steps = {f"s{number}" for number in range(1, 2 * len(script))}
        for reader in played.readers:
            assert reader.kept == played.answer
            assert reader.over
            assert set(reader.steps) == steps
            assert set(reader.steps.values()) == {"done"}

    asyncio.run(scene())


def _scripts() -> Iterator[tuple[Script, int]]:
    for moment in range(1, 20):
        yield [["I ", "loo", "k. "], ["Found ", "it", "."]], moment


def test_every_moment_is_a_good_one_to_leave_and_to_come_back() -> None:
    """The same without chance: one reader that looks at each moment, the process killed at each."""
    for script, moment in _scripts():
        for elsewhere in (True, False):
            for kills in (set[int](), {moment}, {moment, moment + 3}):

                async def scene(script: Script, moment: int, kills: set[int], *, elsewhere: bool) -> None:
                    played = Scene(script, {moment: [(0, elsewhere)], moment + 1: [(0, not elsewhere)]}, kills)
                    await played.play()
                    await played.end()
                    assert played.readers[0].kept == "I look. Found it."

                asyncio.run(scene(script, moment, kills, elsewhere=elsewhere))
