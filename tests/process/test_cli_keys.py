"""The real command beside a running key ring: what another process does to the store counts here at once."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import convene
from convene.clock import SystemClock
from convene.errors import Unauthorized
from convene.serving.keyring import KeyRing, parse_key
from convene.store.sqlite import SqliteStore

BOUND_S = 60.0
"""No wait is longer; none of them is a measurement."""


def environment(home: Path) -> dict[str, str]:
    source = str(Path(convene.__file__).parent.parent)
    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH", ""), source) if part)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": path}


def run(home: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, with `home` as home and working folder."""
    return subprocess.run(  # noqa: S603 -- this interpreter and the test's own words
        [sys.executable, "-m", "convene", *words],
        cwd=home,
        env=environment(home),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


@pytest.mark.req("OPS-26")
def test_a_script_can_take_the_key_from_stdout(tmp_path: Path) -> None:
    made = run(tmp_path, "keys", "create", "script")
    assert made.returncode == 0
    assert parse_key(made.stdout.removesuffix("\n")) is not None
    assert "shown only this once" in made.stderr
    listed = run(tmp_path, "keys", "list", "--json")
    assert [one["name"] for one in json.loads(listed.stdout)] == ["script"]
    assert listed.stderr == ""


@pytest.mark.req("OPS-26")
def test_exit_codes_tell_failure_from_wrong_use(tmp_path: Path) -> None:
    assert run(tmp_path, "keys", "list").returncode == 0
    assert run(tmp_path, "keys", "revoke", "nobody").returncode == 1
    assert run(tmp_path, "keys", "revoke").returncode == 2
    (tmp_path / "convene.toml").write_text("prot = 1")
    wrong = run(tmp_path, "keys", "list")
    assert wrong.returncode == 2
    assert wrong.stderr == f"convene: {tmp_path / 'convene.toml'}: unknown key prot; did you mean port?\n"


def test_the_store_is_for_its_owner_only(tmp_path: Path) -> None:
    run(tmp_path, "keys", "create", "a", "--data-dir", "data")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data" / "convene.db").stat().st_mode) == 0o600


async def test_a_key_made_by_another_process_works_at_once_and_ends_when_that_revokes_it(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "data" / "convene.db")
    ring = KeyRing(store.keys, SystemClock())
    watching = asyncio.create_task(ring.watch())
    made = await asyncio.to_thread(run, tmp_path, "keys", "create", "other", "--data-dir", "data")
    text = made.stdout.strip()
    principal = await ring.check(f"Bearer {text}")
    assert principal.name == "other"
    revoked = await asyncio.to_thread(run, tmp_path, "keys", "revoke", principal.key_id, "--data-dir", "data")
    assert revoked.returncode == 0

    async def until_refused() -> str:
        while True:
            try:
                await ring.check(f"Bearer {text}")
            except Unauthorized as refusal:
                return refusal.message
            await asyncio.sleep(0.01)

    assert "revoked" in await asyncio.wait_for(until_refused(), BOUND_S)
    watching.cancel()
    await asyncio.wait([watching])
    await store.aclose()


async def test_a_rotated_key_changes_for_a_running_ring(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "data" / "convene.db")
    ring = KeyRing(store.keys, SystemClock())
    old, record = await ring.create("lab")
    await ring.poll()
    await ring.check(f"Bearer {old}")
    rotated = await asyncio.to_thread(run, tmp_path, "keys", "rotate", record.id, "--data-dir", "data")
    await ring.poll()
    assert (await ring.check(f"Bearer {rotated.stdout.strip()}")).key_id == record.id
    with pytest.raises(Unauthorized):
        await ring.check(f"Bearer {old}")
    await store.aclose()


async def test_many_processes_may_make_keys_at_the_same_time(tmp_path: Path) -> None:
    made = await asyncio.gather(*(asyncio.to_thread(run, tmp_path, "keys", "create", f"k{n}") for n in range(4)))
    assert [one.returncode for one in made] == [0, 0, 0, 0]
    assert len(json.loads(run(tmp_path, "keys", "list", "--json").stdout)) == 4
