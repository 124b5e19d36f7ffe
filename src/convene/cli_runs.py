"""`convene runs` and `convene sessions`: look at them, end and delete them, beside a running server.

Whoever may read the data folder is the operator and sees everybody's; two owners may have sessions of one name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
import msgspec

from convene.api.chat_reply import step_of
from convene.api.runs import run_of
from convene.api.sessions import session_of
from convene.cli_keys import day_of
from convene.cli_output import (
    AskedWrongly,
    Stop,
    Verbs,
    configured,
    harmless,
    json_option,
    put,
    put_json,
    put_table,
    say,
)
from convene.cli_store import with_store
from convene.clock import SystemClock
from convene.serving.base import Principal
from convene.serving.keyring import LOCAL
from convene.serving.runs import KeptRuns, state_of
from convene.serving.sessions import Conversations

if TYPE_CHECKING:
    from convene.config import Config
    from convene.serving.base_runs import Run, RunState
    from convene.store.base import Store
    from convene.store.base_sessions import Note, SessionRecord

LIMIT_MAX: Final = 1000
_limit = click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, LIMIT_MAX), help="At most so many."
)
_owner = click.option("--owner", default="", metavar="NAME", help="Only this owner's; see `convene keys list --json`.")


@click.group("runs", cls=Verbs)
def runs() -> None:
    """List, show and cancel agentic turns."""


@runs.command("list", examples=("convene runs list", "convene runs list --session s1 --json"))
@_limit
@_owner
@click.option("--session", default="", metavar="ID", help="Only runs of this x-session-id.")
@json_option
@configured("data_dir")
def list_runs(config: Config, *, limit: int, owner: str, session: str, as_json: bool) -> None:
    """List runs, newest first."""

    async def read(store: Store) -> list[Run]:
        found: list[Run] = []
        for who in await _owners(store, owner):
            found += (await _runs_of(store).page(who, limit, session or None, ""))[0]
        return sorted(found, key=lambda run: (run.created_us, run.id), reverse=True)[:limit]

    found = with_store(config, read)
    if as_json:
        put_json([msgspec.structs.asdict(run_of(run)) | {"owner": run.owner} for run in found])
        return
    rows = [
        (run.id, run.status, day_of(run.created_us / 1e6), run.model, run.owner, harmless(run.session_id) or "-")
        for run in found
    ]
    put_table(("ID", "STATUS", "BEGAN", "MODEL", "OWNER", "SESSION"), rows)
    if not found:
        say("There are no runs. Agentic turns make them.")


@runs.command("show", examples=("convene runs show run_0192f00c2a7b4c5d6e7f8a9b",))
@click.argument("run_id", metavar="ID")
@json_option
@configured("data_dir")
def show_run(config: Config, run_id: str, *, as_json: bool) -> None:
    """Show a run with its steps and its answer."""

    async def read(store: Store) -> RunState:
        run = await _find_run(store, run_id)
        return state_of(run, await store.runs.steps(run.id))

    state = with_store(config, read)
    answer = state.answer
    if as_json:
        steps = [step_of(step) for step in state.steps]
        put_json(msgspec.structs.asdict(run_of(state.run)) | {"steps": steps, "answer": answer})
        return
    put_table(
        ("STEP", "KIND", "NAME", "STATUS", "SUMMARY"),
        [(step.id, step.kind, step.name, step.status, harmless(step.summary)) for step in state.steps],
    )
    say(f"{state.run.status}, {state.usage.total_tokens} tokens, taken up again {state.run.fence - 1} times")
    if answer is not None and answer.fault:
        say(f"{answer.fault}: {answer.message}")
    for choice in () if answer is None else answer.choices:
        put(harmless(choice.text))


@runs.command("cancel", examples=("convene runs cancel run_0192f00c2a7b4c5d6e7f8a9b",))
@click.argument("run_id", metavar="ID")
@configured("data_dir")
def cancel_run(config: Config, run_id: str) -> None:
    """End a run; the server that holds it does so within a second."""

    async def act(store: Store) -> Run:
        run = await _find_run(store, run_id)
        return await _runs_of(store).cancel(_as(run.owner), run.id)

    run = with_store(config, act)
    say(f"Asked for the end of {run.id}." if run.status == "running" else f"{run.id} is over already: {run.status}.")


@click.group("sessions", cls=Verbs)
def sessions() -> None:
    """List, show and delete what is remembered of conversations."""


@sessions.command("list", examples=("convene sessions list", "convene sessions list --owner usr_bob --json"))
@_limit
@_owner
@json_option
@configured("data_dir")
def list_sessions(config: Config, *, limit: int, owner: str, as_json: bool) -> None:
    """List sessions, last used first."""

    async def read(store: Store) -> list[SessionRecord]:
        found: list[SessionRecord] = []
        for who in await _owners(store, owner):
            found += (await _sessions_of(store).page(who, limit, ""))[0]
        return sorted(found, key=lambda one: (one.used_us, one.id), reverse=True)[:limit]

    found = with_store(config, read)
    if as_json:
        put_json([msgspec.structs.asdict(session_of(one)) | {"owner": one.owner} for one in found])
        return
    rows = [(harmless(one.id), one.owner, day_of(one.used_us / 1e6), str(one.size)) for one in found]
    put_table(("ID", "OWNER", "LAST USED", "BYTES"), rows)
    if not found:
        say("There are no sessions. Agentic turns with the header x-session-id make them.")


@sessions.command("show", examples=("convene sessions show s1", "convene sessions show s1 --owner usr_bob"))
@click.argument("session_id", metavar="ID")
@_owner
@configured("data_dir")
def show_session(config: Config, session_id: str, *, owner: str) -> None:
    """Show what a session remembers, as JSON."""

    async def read(store: Store) -> tuple[SessionRecord, list[Note]]:
        who = await _find_session(store, session_id, owner)
        return await _sessions_of(store).show(who, session_id)

    record, notes = with_store(config, read)
    told = {note.name: msgspec.json.decode(note.body) for note in notes}
    put_json(msgspec.structs.asdict(session_of(record)) | {"owner": record.owner, "notes": told})


@sessions.command("delete", examples=("convene sessions delete s1", "convene sessions delete s1 --owner usr_bob"))
@click.argument("session_id", metavar="ID")
@_owner
@configured("data_dir")
def delete_session(config: Config, session_id: str, *, owner: str) -> None:
    """Delete a session, what it remembers, and its runs that are over."""

    async def act(store: Store) -> str:
        return await _sessions_of(store).forget(await _find_session(store, session_id, owner), session_id)

    say(f"Deleted the session {harmless(with_store(config, act))}.")


def _as(owner: str) -> Principal:
    return Principal(key_id="", owner=owner, name="operator")


async def _owners(store: Store, wanted: str) -> list[Principal]:
    """Return everybody who may own something: whoever is behind a key, and everybody where there are no keys."""
    if wanted:
        return [_as(wanted)]
    owners = {record.owner for record in await store.keys.list_all()}
    return [_as(owner) for owner in sorted({*owners, LOCAL.owner})]


async def _find_run(store: Store, run_id: str) -> Run:
    for who in await _owners(store, ""):
        run = await store.runs.get(who.owner, run_id)
        if run is not None:
            return run
    raise Stop(f"There is no run {run_id[:64]}. `convene runs list` shows all.")


async def _find_session(store: Store, session_id: str, owner: str) -> Principal:
    """Return the owner of a session. Raises `Stop` if there is none, `AskedWrongly` if there are several."""
    found = [who for who in await _owners(store, owner) if await _sessions_of(store).known(who, session_id)]
    if not found:
        raise Stop(f"There is no session {harmless(session_id[:64])}. `convene sessions list` shows all.")
    if len(found) > 1:
        names = ", ".join(who.owner for who in found)
        raise AskedWrongly(f"several owners have a session of this name; add --owner with one of: {names}")
    return found[0]


def _runs_of(store: Store) -> KeptRuns:
    return KeptRuns(lambda: store.runs, SystemClock())


def _sessions_of(store: Store) -> Conversations:
    return Conversations(lambda: store.sessions, lambda: store.runs, SystemClock())
