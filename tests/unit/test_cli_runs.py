"""`convene runs` and `convene sessions` on a data folder: what is there, whose it is, ended and deleted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from convene.cli_runs import runs, sessions
from convene.clock import SystemClock
from convene.events import TextDelta
from convene.serving.keyring import KeyRing
from convene.serving.runs import KeptRuns
from convene.serving.sessions import Conversations
from convene.usage import Usage
from data_folder import DataFolder
from run_doubles import a_round, an_answer, job

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from convene.store.sqlite import SqliteStore


class Folder(DataFolder):
    """A data folder with two owners, and the verbs on it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.owners: list[str] = []

    def run(self, group: click.Group, *words: str, code: int = 0) -> str:
        """Run a verb and return what it prints, talk included."""
        ran = CliRunner().invoke(group, [*words, "--set", f"data_dir={self.folder}"], env={"CONVENE_CONFIG": ""})
        assert ran.exit_code == code, ran.output
        return ran.output

    def json(self, group: click.Group, *words: str) -> Any:  # noqa: ANN401 -- any JSON value
        return json.loads(self.run(group, *words))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    made = Folder(tmp_path)

    async def fill(store: SqliteStore) -> None:
        ring = KeyRing(store.keys, SystemClock())
        for name in ("ann", "bob"):
            await ring.create(name, owner=name)
        kept = KeptRuns(lambda: store.runs, SystemClock())
        talk = Conversations(lambda: store.sessions, lambda: store.runs, SystemClock())
        for place, owner in enumerate(("ann", "bob", "local")):
            journal = await kept.begin(job(f"run_{'x' * place}{owner}", owner=owner, session="shared"))
            step = await journal.open(a_round(1))
            journal.saw(TextDelta("text"))
            await step.close("done", usage=Usage(3, 4), summary="thought\x1b[2J about it")
            if owner != "bob":
                await journal.finish("done", an_answer("All \x1b[31msaid."))
            await talk.enter(owner, "shared")
            await talk.remember(owner, "shared", {"plan": b'{"of":"%b"}' % owner.encode()})
        await talk.enter("bob", "s\x1b2")

    made.fill(fill)
    return made


def test_the_operator_sees_everybodys_runs_newest_first(folder: Folder) -> None:
    found = folder.json(runs, "list", "--json")
    assert [(run["id"], run["owner"], run["status"]) for run in found] == [
        ("run_xxlocal", "local", "done"),
        ("run_xbob", "bob", "running"),
        ("run_ann", "ann", "done"),
    ]
    text = folder.run(runs, "list", "--limit", "2")
    assert "run_xbob" in text
    assert "run_ann" not in text
    assert "run_xbob" not in folder.run(runs, "list", "--owner", "ann", "--session", "shared")
    assert "There are no runs" in folder.run(runs, "list", "--session", "other")


def test_a_run_is_shown_with_steps_and_answer_and_cannot_steer_the_terminal(folder: Folder) -> None:
    text = folder.run(runs, "show", "run_ann")
    assert "s1" in text
    assert "done, 7 tokens, taken up again 0 times" in text
    assert "All [31msaid." in text
    assert "\x1b" not in text
    shown = folder.json(runs, "show", "run_ann", "--json")
    assert shown["steps"][0]["status"] == "done"
    assert shown["answer"]["choices"][0]["finish"] == "stop"
    assert "There is no run run_none" in folder.run(runs, "show", "run_none", code=1)


def test_cancelling_asks_the_holder_and_says_what_is_over(folder: Folder) -> None:
    assert "Asked for the end of run_xbob" in folder.run(runs, "cancel", "run_xbob")
    assert "over already: done" in folder.run(runs, "cancel", "run_ann")
    assert [run["cancel_asked"] for run in folder.json(runs, "list", "--json", "--owner", "bob")] == [True]


def test_why_a_run_failed_is_said(folder: Folder) -> None:
    async def fail(store: SqliteStore) -> None:
        journal = await KeptRuns(lambda: store.runs, SystemClock()).begin(job("run_bad", owner="ann"))
        await journal.finish("failed", an_answer("half"), "upstream_error", "The upstream failed.")

    folder.fill(fail)
    text = folder.run(runs, "show", "run_bad")
    assert "upstream_error: The upstream failed." in text


def test_sessions_are_listed_shown_and_deleted_for_the_owner_that_is_named(folder: Folder) -> None:
    found = folder.json(sessions, "list", "--json")
    assert {(one["id"], one["owner"]) for one in found} == {
        ("shared", "ann"),
        ("shared", "bob"),
        ("shared", "local"),
        ("s\x1b2", "bob"),
    }
    assert "\x1b" not in folder.run(sessions, "list")
    several = folder.run(sessions, "show", "shared", code=2)
    assert "ann, bob, local" in several
    assert folder.json(sessions, "show", "shared", "--owner", "bob")["notes"] == {"plan": {"of": "bob"}}
    folder.run(sessions, "delete", "shared", "--owner", "ann")
    assert "There is no session shared" in folder.run(sessions, "show", "shared", "--owner", "ann", code=1)
    assert "run_ann" not in folder.run(runs, "list"), "its run that was over went with it"
    folder.run(sessions, "delete", "shared", "--owner", "bob")
    assert "run_xbob" in folder.run(runs, "list"), "one that goes on stays"
    assert folder.json(sessions, "show", "shared")["owner"] == "local"
    assert "There are no sessions" in folder.run(sessions, "list", "--owner", "nobody")
