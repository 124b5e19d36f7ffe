"""The contract of `convene.store.base.Keys`, run unchanged against every implementation."""

from __future__ import annotations

import asyncio
import hashlib
import stat
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.errors import Conflict
from convene.limits.allowance import Allowance
from convene.store.base import KeyChange, KeyRecord, StoreFault
from convene.store.migrations import STEPS
from convene.store.sql import REVISE
from convene.store.sql_keys import SqlKeys
from convene.store.sqlite import SqliteStore
from convene.store.sqlite_file import SqliteFile, examine

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from convene.store.base import Store
    from stores import OpenAnother


def record(key_id: str = "a" * 12, *, created_at: float = 1000.0, text: str = "x") -> KeyRecord:
    digest = hashlib.sha256(text.encode()).digest()
    return KeyRecord(
        id=key_id, name="lab", owner=key_id, plan="owner", digest=digest, last4="wxyz", created_at=created_at
    )


async def test_a_key_comes_back_as_it_was_kept(store: Store) -> None:
    whole = KeyRecord(
        id="k1",
        name="Björn's laptop",
        owner="team-1",
        plan="free",
        digest=bytes(range(32)),
        last4="abcd",
        created_at=1000.25,
        expires_at=2000.5,
        models=("asi1", "smollm2"),
        scopes=("api", "admin"),
    )
    await store.keys.add(whole)
    assert await store.keys.get("k1") == whole


async def test_no_models_and_an_empty_list_of_models_stay_apart(store: Store) -> None:
    await store.keys.add(record("all"))
    none = KeyRecord(
        id="none", name="n", owner="o", plan="p", digest=bytes(32), last4="0000", created_at=1.0, models=()
    )
    await store.keys.add(none)
    everything, nothing = await store.keys.get("all"), await store.keys.get("none")
    assert everything is not None
    assert everything.models is None
    assert nothing is not None
    assert nothing.models == ()


async def test_a_first_key_is_kept_only_where_there_was_none(store: Store) -> None:
    assert await store.keys.add_first(record("one"))
    assert not await store.keys.add_first(record("two"))
    await store.keys.revoke("one", 2000.0)
    assert not await store.keys.add_first(record("three")), "a revoked key has been a key"
    assert [found.id for found in await store.keys.list_all()] == ["one"]


async def test_a_first_key_is_a_change_that_others_see(store: Store) -> None:
    before = await store.keys.version()
    assert await store.keys.add_first(record("one"))
    assert await store.keys.version() != before


async def test_of_many_who_open_one_empty_folder_at_once_one_makes_the_first_key(tmp_path: Path) -> None:
    stores = await asyncio.gather(*(SqliteStore.open(tmp_path / "convene.db") for _ in range(8)))
    kept = await asyncio.gather(*(one.keys.add_first(record(f"k{place}")) for place, one in enumerate(stores)))
    assert sum(kept) == 1
    assert [found.id for found in await stores[0].keys.list_all()] == [f"k{kept.index(True)}"]
    for one in stores:
        await one.aclose()


async def test_an_unknown_id_gives_none(store: Store) -> None:
    assert await store.keys.get("nobody") is None


async def test_ids_are_compared_exactly(store: Store) -> None:
    await store.keys.add(record("Abc"))
    assert await store.keys.get("abc") is None
    assert await store.keys.get("Abc%") is None


async def test_a_taken_id_is_a_conflict_and_changes_nothing(store: Store) -> None:
    await store.keys.add(record(text="first"))
    with pytest.raises(Conflict):
        await store.keys.add(record(text="second"))
    kept = await store.keys.get("a" * 12)
    assert kept == record(text="first")


async def test_all_keys_are_listed_oldest_first(store: Store) -> None:
    for key_id, created_at in (("b", 3.0), ("c", 1.0), ("a", 2.0), ("d", 2.0)):
        await store.keys.add(record(key_id, created_at=created_at))
    assert [one.id for one in await store.keys.list_all()] == ["c", "a", "d", "b"]


async def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert await store.keys.list_all() == ()


async def test_a_revoked_key_stays_and_keeps_its_first_time(store: Store) -> None:
    await store.keys.add(record())
    assert await store.keys.revoke("a" * 12, 5.0)
    assert await store.keys.revoke("a" * 12, 9.0)
    kept = await store.keys.get("a" * 12)
    assert kept is not None
    assert kept.revoked_at == 5.0


async def test_revoking_an_unknown_key_says_so(store: Store) -> None:
    assert not await store.keys.revoke("nobody", 5.0)


async def test_a_new_secret_keeps_everything_else(store: Store) -> None:
    await store.keys.add(record())
    assert await store.keys.replace_secret("a" * 12, bytes(32), "1234")
    kept = await store.keys.get("a" * 12)
    assert kept is not None
    assert (kept.digest, kept.last4, kept.name, kept.created_at) == (bytes(32), "1234", "lab", 1000.0)


async def test_neither_an_unknown_nor_a_revoked_key_gets_a_new_secret(store: Store) -> None:
    await store.keys.add(record())
    await store.keys.revoke("a" * 12, 5.0)
    assert not await store.keys.replace_secret("a" * 12, bytes(32), "1234")
    assert not await store.keys.replace_secret("nobody", bytes(32), "1234")
    kept = await store.keys.get("a" * 12)
    assert kept is not None
    assert kept.digest == record().digest


async def test_the_keys_of_a_user_and_of_teams_are_found_oldest_first(store: Store) -> None:
    for key_id, user_id, team_id, created_at in (
        ("mine", "usr_1", "", 3.0),
        ("ours", "usr_2", "team_1", 1.0),
        ("both", "usr_1", "team_1", 2.0),
        ("theirs", "usr_2", "team_2", 4.0),
        ("nobodys", "", "", 5.0),
    ):
        one = msgspec.structs.replace(record(key_id, created_at=created_at), user_id=user_id, team_id=team_id)
        await store.keys.add(one)

    async def found(user_id: str, *team_ids: str) -> list[str]:
        return [one.id for one in await store.keys.list_of(user_id, team_ids)]

    assert await found("usr_1") == ["both", "mine"]
    assert await found("usr_1", "team_1") == ["ours", "both", "mine"]
    assert await found("usr_9", "team_1", "team_2") == ["ours", "both", "theirs"]
    assert await found("usr_9") == []
    assert await found("") == []


async def test_a_change_touches_what_it_names_and_nothing_else(store: Store) -> None:
    before = msgspec.structs.replace(record(), models=("asi1",), limits=Allowance(requests_per_minute=5))
    await store.keys.add(before)
    await store.keys.add(record("other"))
    change = KeyChange(name="ci", limits=Allowance(requests_per_minute=3, budget_total=9), expires_at=99.5)
    after = msgspec.structs.replace(before, name="ci", limits=change.limits, expires_at=99.5)
    assert await store.keys.change("a" * 12, change) == after
    after = msgspec.structs.replace(after, models=None, limits=None, expires_at=None, plan="pro")
    assert await store.keys.change("a" * 12, KeyChange(models=None, limits=None, expires_at=None, plan="pro")) == after
    assert await store.keys.change("a" * 12, KeyChange()) == after
    assert await store.keys.get("a" * 12) == after
    assert await store.keys.get("other") == record("other")
    assert await store.keys.change("nobody", KeyChange(name="x")) is None


async def test_a_change_of_a_key_changes_the_version(store: Store) -> None:
    await store.keys.add(record())
    before = await store.keys.version()
    await store.keys.change("a" * 12, KeyChange(name="ci"))
    assert await store.keys.version() > before


async def test_the_version_grows_with_every_change_and_only_then(store: Store) -> None:
    versions = [await store.keys.version()]
    await store.keys.add(record())
    versions.append(await store.keys.version())
    await store.keys.replace_secret("a" * 12, bytes(32), "1234")
    versions.append(await store.keys.version())
    await store.keys.revoke("a" * 12, 5.0)
    versions.append(await store.keys.version())
    assert versions == sorted(set(versions))
    await store.keys.get("a" * 12)
    await store.keys.list_all()
    assert await store.keys.version() == versions[-1]


async def test_many_calls_at_once_all_count(store: Store) -> None:
    await asyncio.gather(*(store.keys.add(record(f"k{number:02}")) for number in range(50)))
    assert len(await store.keys.list_all()) == 50


async def test_a_closed_store_is_a_store_fault_and_closing_twice_is_fine(store: Store) -> None:
    await store.aclose()
    await store.aclose()
    with pytest.raises(StoreFault):
        await store.keys.list_all()
    with pytest.raises(StoreFault):
        await store.keys.add(record())
    with pytest.raises(StoreFault):
        await store.keys.version()


# What only a file can show.


def store_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("convene-store")]


async def test_keys_outlive_the_process_that_made_them(shared: OpenAnother) -> None:
    first = await shared()
    await first.keys.add(record())
    await first.aclose()
    second = await shared()
    assert await second.keys.get("a" * 12) == record()


async def test_another_connections_change_is_seen_at_once_and_changes_the_version(shared: OpenAnother) -> None:
    here, there = await shared(), await shared()
    before = await here.keys.version()
    await there.keys.add(record())
    assert await here.keys.version() > before
    assert await here.keys.get("a" * 12) == record()
    before = await here.keys.version()
    await there.keys.revoke("a" * 12, 5.0)
    assert await here.keys.version() > before


async def test_a_change_of_accounts_changes_the_version_too(tmp_path: Path) -> None:
    file = await SqliteFile.open(tmp_path / "convene.db")
    before = await SqlKeys(file).version()
    assert await file.write([("DELETE FROM keys", ()), REVISE]) == [0, 1]
    assert await SqlKeys(file).version() == before + 1
    await file.aclose()


async def test_answers_do_not_change_the_version_of_the_keys(store: Store) -> None:
    before = await store.keys.version()
    await store.answers.claim("o", "k", bytes(32), 2.0, 1.0)
    assert await store.keys.version() == before


async def test_file_and_folder_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "data" / "convene.db"
    store = await SqliteStore.open(path)
    await store.keys.add(record())
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in (path.parent, *path.parent.iterdir())}
    [lock] = (path.parent / "convene.db-writers").iterdir()
    mode_of_lock = stat.S_IMODE(lock.stat().st_mode)
    await store.aclose()
    folders = {"data": 0o700, "convene.db-writers": 0o700}
    assert modes == folders | {"convene.db": 0o600, "convene.db-wal": 0o600, "convene.db-shm": 0o600}
    assert mode_of_lock == 0o600


async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "convene.db"
    path.touch(mode=0o644)
    path.chmod(0o644)
    store = await SqliteStore.open(path)
    await store.aclose()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_writes_are_on_the_disk_when_they_return(tmp_path: Path) -> None:
    file = await SqliteFile.open(tmp_path / "convene.db")

    def settings(connection: sqlite3.Connection) -> tuple[str, int]:
        [mode] = connection.execute("PRAGMA journal_mode").fetchone()
        [synchronous] = connection.execute("PRAGMA synchronous").fetchone()
        return mode, synchronous

    assert await file.run(settings) == ("wal", 2)
    await file.aclose()


async def test_one_thread_per_file_and_none_after_closing(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "convene.db")
    await asyncio.gather(*(store.keys.get("x") for _ in range(20)))
    assert len(store_threads()) == 1
    await store.aclose()
    assert store_threads() == []


async def test_a_file_that_is_no_database_is_a_store_fault_without_a_thread_left(tmp_path: Path) -> None:
    path = tmp_path / "convene.db"
    path.write_text("these are forty characters of no database")
    with pytest.raises(StoreFault) as caught:
        await SqliteStore.open(path)
    assert "convene doctor" in caught.value.message
    assert str(path) in caught.value.detail
    assert str(path) not in caught.value.message
    await wait_for_no_thread()


async def test_a_folder_that_cannot_be_made_is_a_store_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreFault):
        await SqliteStore.open(tmp_path / "file" / "convene.db")
    await wait_for_no_thread()


async def test_a_start_that_is_cancelled_leaves_neither_thread_nor_file_open(tmp_path: Path) -> None:
    task = asyncio.create_task(SqliteStore.open(tmp_path / "convene.db"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_for_no_thread()


async def wait_for_no_thread() -> None:
    """Join what is ending, for at most ten seconds."""
    for thread in threading.enumerate():
        if thread.name.startswith("convene-store"):
            await asyncio.to_thread(thread.join, 10)
    assert store_threads() == []


async def test_a_transaction_that_fails_keeps_nothing(tmp_path: Path) -> None:
    file = await SqliteFile.open(tmp_path / "convene.db")
    keys = SqlKeys(file)
    await keys.add(record())

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM keys")
        raise ZeroDivisionError

    version = await keys.version()
    with pytest.raises(ZeroDivisionError):
        await file.transact(fail)
    assert await keys.get("a" * 12) == record()
    assert await keys.version() == version
    await file.aclose()


@pytest.mark.req("OPS-32")
async def test_a_file_of_a_newer_convene_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "convene.db"
    newer = await SqliteFile.open(path, (*STEPS, ("CREATE TABLE later (id TEXT)",)))
    await newer.aclose()
    before = path.read_bytes()
    with pytest.raises(StoreFault) as caught:
        await SqliteFile.open(path)
    assert "newer" in caught.value.detail
    assert path.read_bytes() == before


@pytest.mark.req("OPS-32")
async def test_an_older_file_is_copied_brought_up_to_date_and_keeps_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "convene.db"
    old = await SqliteStore.open(path)
    await old.keys.add(record())
    await old.aclose()
    file = await SqliteFile.open(path, (*STEPS, ("CREATE TABLE later (id TEXT)",)))
    assert await SqlKeys(file).get("a" * 12) == record()
    assert await file.run(lambda connection: connection.execute("SELECT * FROM later").fetchall()) == []
    await file.aclose()
    back = path.with_name(f"convene.db.v{len(STEPS)}.bak")
    assert stat.S_IMODE(back.stat().st_mode) == 0o600
    copy = await SqliteStore.open(back)
    assert await copy.keys.get("a" * 12) == record()
    await copy.aclose()


@pytest.mark.req("OPS-32")
async def test_a_step_that_fails_halfway_leaves_the_old_shape(tmp_path: Path) -> None:
    path = tmp_path / "convene.db"
    await (await SqliteFile.open(path)).aclose()
    with pytest.raises(StoreFault):
        await SqliteFile.open(path, (*STEPS, ("CREATE TABLE half (id TEXT)", "THIS IS NOT SQL")))
    file = await SqliteFile.open(path)
    tables = await file.run(lambda connection: connection.execute("SELECT name FROM sqlite_master").fetchall())
    await file.aclose()
    assert ("half",) not in tables


@pytest.mark.req("OPS-32")
async def test_two_starts_at_once_migrate_once(tmp_path: Path) -> None:
    stores = await asyncio.gather(*(SqliteStore.open(tmp_path / "convene.db") for _ in range(4)))
    await stores[0].keys.add(record())
    assert [len(await store.keys.list_all()) for store in stores] == [1, 1, 1, 1]
    await asyncio.gather(*(store.aclose() for store in stores))


async def test_a_file_is_examined_without_a_change(tmp_path: Path) -> None:
    path = tmp_path / "con?vene.db"
    store = await SqliteStore.open(path)
    await store.keys.add(record())
    assert examine(path) == (len(STEPS), 1)
    await store.aclose()
    with pytest.raises(StoreFault):
        examine(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "empty.db").touch()
    assert examine(tmp_path / "empty.db") == (0, 0)
    assert (tmp_path / "empty.db").stat().st_size == 0
