"""The verbs over the books: usage, limits, export, reconcile, backup, on a real store."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from convene import cli
from convene.cli_usage import BAR_WIDTH, bar, put_usage
from convene.clock import SystemClock
from convene.store.base_ledger import Bucket, Entry, Sums
from convene.store.sqlite import SqliteStore
from ledger_double import entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Result]

ENTRIES = [
    entry(1, owner="lab"),
    entry(2, model="large", prompt_tokens=90, session_id="=1+1"),
    entry(3, key_id="k2", user_id="u1"),
    entry(90_000, team_id="t1", status="failed", finish="upstream_error", completion_tokens=0),
]


_FIELDS = ", ".join(name for name in Entry.__struct_fields__ if name != "id")
DOUBLE = f"INSERT INTO entries (id, {_FIELDS}) SELECT 'copy', {_FIELDS} FROM entries WHERE id = 'e1'"  # noqa: S608 - ours


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with some books; return its file."""
    path = tmp_path / "data" / "convene.db"

    async def fill() -> None:
        opened = await SqliteStore.open(path)
        for one in ENTRIES:
            await opened.ledger.finish(one)
        await opened.aclose()

    asyncio.run(fill())
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a verb on the store's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CONVENE_CONFIG", raising=False)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(cli.main, [*words, "--data-dir", str(tmp_path / "data")], prog_name="convene")

    return invoke


def change(store: Path, statement: str) -> None:
    """Do something to the tables that no code of ours would do."""
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(statement)


# usage


@pytest.mark.usefixtures("store")
def test_usage_sums_up_by_day_and_by_whatever_is_asked(run: Run) -> None:
    days = run("usage", "--since", "all")
    assert (days.exit_code, days.stderr) == (0, "")
    lines = [line.split() for line in days.stdout.splitlines()]
    assert lines[0] == ["DAY", "REQUESTS", "PROMPT", "COMPLETION", "TOKENS", "COST"]
    assert lines[1] == ["2026-11-26", "3", "110", "15", "125", "0.0003", "USD"]
    assert lines[2] == ["2026-11-27", "1", "10", "0", "10", "0.0001", "USD"]
    models = run("usage", "--since", "all", "--by", "model,key", "--json")
    assert [(row["group"], row["requests"]) for row in json.loads(models.stdout)] == [
        ({"model": "large", "key": "k1"}, 1),
        ({"model": "small", "key": "k1"}, 2),
        ({"model": "small", "key": "k2"}, 1),
    ]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("options", "requests"),
    [
        (["--key", "k2"], 1),
        (["--user", "u1"], 1),
        (["--team", "t1"], 1),
        (["--model", "large"], 1),
        (["--until", "2026-11-27"], 3),
        (["--since", "2026-11-27"], 1),
        (["--user", "u1", "--key", "k1"], 0),
    ],
)
def test_usage_is_narrowed_by_options(run: Run, options: list[str], requests: int) -> None:
    since = [] if "--since" in options else ["--since", "all"]
    rows = json.loads(run("usage", *since, *options, "--json").stdout)
    assert sum(row["requests"] for row in rows) == requests


@pytest.mark.usefixtures("store")
def test_usage_of_nothing_says_so_on_stderr(run: Run) -> None:
    asked = run("usage", "--since", "all", "--key", "nobody")
    assert (asked.exit_code, asked.stdout) == (0, "")
    assert "Nothing was used" in asked.stderr
    assert json.loads(run("usage", "--key", "nobody", "--json").stdout) == []


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--by", "week"], "--by 'week': write one or more of day, hour"),
        (["--by", "day,day"], "write one or more"),
        (["--since", "soon"], "no time for --since"),
        (["--user", "a", "--team", "b"], "not both"),
    ],
)
def test_usage_asked_wrongly_says_how(run: Run, options: list[str], said: str) -> None:
    asked = run("usage", *options)
    assert (asked.exit_code, asked.stdout) == (1, "")
    assert said in asked.stderr


@pytest.mark.parametrize(
    ("value", "most", "drawn"),
    [
        (0, 10, ""),
        (10, 10, "\u2588" * BAR_WIDTH),
        (5, 10, "\u2588" * (BAR_WIDTH // 2)),
        (1, 1_000_000, "\u258f"),
        (0, 0, ""),
        (-1, 5, ""),
    ],
)
def test_a_bar_is_a_share_and_something_is_never_nothing(value: int, most: int, drawn: str) -> None:
    assert bar(value, most) == drawn


def test_bars_never_grow_beyond_their_width() -> None:
    assert all(len(bar(value, 997)) <= BAR_WIDTH for value in range(998))
    lengths = [len(bar(value, 997)) for value in range(998)]
    assert lengths == sorted(lengths)


def test_bars_are_drawn_only_where_they_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    buckets = [Bucket(group=("",), sums=Sums(requests=1, prompt_tokens=8)), Bucket(group=("s",), sums=Sums())]
    put_usage(("session",), buckets, "USD", bars=True)
    drawn = capsys.readouterr().out
    put_usage(("session",), buckets, "USD", bars=False)
    assert drawn.count("\u2588") == BAR_WIDTH
    assert "\u2588" not in capsys.readouterr().out


# limits


def test_limits_of_a_key_are_recomputed_from_the_books(run: Run, store: Path) -> None:
    made = json.loads(run("keys", "create", "ci", "--plan", "free", "--json").stdout)

    async def use() -> None:
        opened = await SqliteStore.open(store)
        now_us = int(SystemClock.now() * 1e6)
        await opened.ledger.finish(entry(7, key_id=made["id"], at_us=now_us, prompt_tokens=300, completion_tokens=100))
        await opened.aclose()

    asyncio.run(use())
    found = run("limits", made["id"], "--json")
    assert (found.exit_code, found.stderr) == (0, "")
    by_name = {row["name"]: row for row in json.loads(found.stdout)}
    day = by_name["tokens per day"]
    assert (day["amount"], day["remaining"], day["used"], day["scope"]) == (500_000, 499_600, 400, "key")
    assert by_name["requests per day"]["remaining"] == 999
    shown = run("limits", made["id"]).stdout
    assert shown.splitlines()[0].split() == ["LIMIT", "WHOSE", "AMOUNT", "USED", "LEFT", "WHOLE", "IN"]
    assert "tokens per day" in shown
    assert f"key {made['id']}" in shown


@pytest.mark.usefixtures("store")
def test_limits_of_nobody_and_on_no_model_say_so(run: Run) -> None:
    assert "`convene keys list` shows all ids" in run("limits", "nobody").stderr
    key_id = json.loads(run("keys", "create", "ci", "--json").stdout)["id"]
    asked = run("limits", key_id, "--model", "nothing")
    assert (asked.exit_code, asked.stdout) == (1, "")
    assert "does not exist" in asked.stderr


# export


@pytest.mark.usefixtures("store")
def test_export_writes_every_entry_as_csv(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("export").stdout)))
    assert [row["id"] for row in rows] == ["e1", "e2", "e3", "e90000"]
    assert list(rows[0]) == list(Entry.__struct_fields__)
    assert (rows[0]["prompt_tokens"], rows[0]["at_us"], rows[0]["ttft_us"]) == ("10", str(ENTRIES[0].at_us), "")
    assert (rows[0]["stream"], rows[3]["finish"]) == ("0", "upstream_error")
    assert rows[1]["session_id"] == "'=1+1", "no spreadsheet takes it for a formula"


def test_export_writes_json_lines_that_read_back_as_entries(run: Run, store: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    asked = run("export", "--format", "jsonl", "-o", str(target), "--since", "2026-11-26T00:00:02", "--key", "k1")
    assert (asked.exit_code, asked.stdout) == (0, "")
    assert asked.stderr == f"Wrote 2 entries to {target}.\n"
    assert [Entry(**json.loads(line)) for line in target.read_text().splitlines()] == [ENTRIES[1], ENTRIES[3]]
    run("export", "-o", str(tmp_path / "out.csv"))
    assert len((tmp_path / "out.csv").read_text().splitlines()) == len(ENTRIES) + 1
    assert store.exists()


# reconcile


@pytest.mark.usefixtures("store")
def test_reconcile_of_good_books_is_zero(run: Run) -> None:
    asked = run("reconcile")
    assert "costs 100 micro-units without a price" in asked.stdout, "these books have costs and no price"
    assert asked.exit_code == 1


def free(store: Path) -> None:
    """Make the books agree: without a price nothing costs anything."""
    change(store, "UPDATE entries SET cost_micros = 0")
    change(store, "UPDATE day_sums SET cost_micros = 0")


def test_reconcile_says_what_was_compared_and_what_not(run: Run, store: Path) -> None:
    free(store)
    asked = run("reconcile")
    assert (asked.exit_code, asked.stdout) == (0, "")
    assert "Compared 4 entries with sums of 4 requests in 4 groups" in asked.stderr
    assert "Not compared: budgets" in asked.stderr
    assert "No difference." in asked.stderr
    found = json.loads(run("reconcile", "--json").stdout)
    assert (found["entries"], found["differences"]) == (4, [])


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        ("DELETE FROM entries WHERE id = 'e1'", "sums"),
        ("UPDATE entries SET completion_tokens = 6 WHERE id = 'e1'", "sums"),
        ("UPDATE entries SET model = 'other' WHERE id = 'e1'", "sums"),
        ("UPDATE entries SET key_id = 'k3' WHERE id = 'e1'", "sums"),
        ("UPDATE entries SET cost_micros = 1 WHERE id = 'e1'", "cost"),
        ("UPDATE entries SET prompt_tokens = -10 WHERE id = 'e1'", "figures"),
        ("UPDATE day_sums SET requests = requests + 1 WHERE key_id = 'k2'", "sums"),
        ("DELETE FROM day_sums WHERE key_id = 'k2'", "sums"),
        (
            DOUBLE,
            "twice",
        ),
    ],
)
def test_reconcile_reports_what_was_done_to_the_tables(run: Run, store: Path, statement: str, check: str) -> None:
    """Goal B4: dropped, altered, doubled."""
    free(store)
    change(store, statement)
    asked = run("reconcile", "--json")
    assert asked.exit_code == 1
    assert check in {one["check"] for one in json.loads(asked.stdout)["differences"]}
    shown = run("reconcile")
    assert (shown.exit_code, shown.stdout.split()[:3]) == (1, ["CHECK", "WHERE", "WHAT"])


def test_reconcile_reads_an_upstreams_own_figures(run: Run, store: Path, tmp_path: Path) -> None:
    free(store)
    truth = tmp_path / "truth.jsonl"
    truth.write_text('{"id": "e1", "prompt_tokens": 10, "completion_tokens": 5}\n\n')
    assert run("reconcile", "--upstream-truth", str(truth)).exit_code == 0
    truth.write_text('{"id": "e1", "prompt_tokens": 10, "completion_tokens": 4}\n')
    asked = run("reconcile", "--upstream-truth", str(truth))
    assert asked.exit_code == 1
    assert "the books have 10 + 5 tokens, the upstream 10 + 4" in asked.stdout
    truth.write_text("[]\n")
    assert "is no file of truths" in run("reconcile", "--upstream-truth", str(truth)).stderr
    assert "cannot be read" in run("reconcile", "--upstream-truth", "missing.jsonl").stderr


def test_reconcile_leaves_out_days_whose_entries_may_be_forgotten(run: Run, store: Path) -> None:
    free(store)
    change(store, "DELETE FROM entries WHERE id = 'e1'")
    assert run("reconcile").exit_code == 1
    assert run("reconcile", "--since", "2026-11-26T12:00").exit_code == 0
    assert run("reconcile", "--set", "ledger.retention_days=1").exit_code == 0


# backup


def test_a_backup_is_whole_private_and_never_overwrites(run: Run, store: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    asked = run("backup", str(target))
    assert (asked.exit_code, asked.stdout) == (0, "")
    assert "the copy is whole" in asked.stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["copy.db"]
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (4,)
    again = run("backup", str(target))
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert store.exists()


def test_a_backup_of_nothing_and_of_postgres_say_what_to_do(run: Run, tmp_path: Path) -> None:
    assert "There is no store" in run("backup", str(tmp_path / "copy.db")).stderr
    asked = run("backup", "x.db", "--set", "database_url=postgres://u:secret@h/d")
    assert "pg_dump" in asked.stderr
    assert "secret" not in asked.stderr
    assert not (tmp_path / "x.db").exists()
