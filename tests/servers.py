"""Real Redis and Postgres servers for tests: the one that is named, else the standard port, else a private one.

    redis_space     one test's share of a Redis: a URL and a hash tag; its keys are deleted after
    postgres_url    one test's schema in a Postgres; dropped after
    private_redis   a Redis of the test's own, which it may pause, kill and start again

Each can be had without a fixture too (`shared_redis`, `own_space`, `own_redis`; `shared_postgres`, `own_schema`). Where
no server is to be had, the test is skipped and says why; in CI (`CI` or `CONVENE_TEST_NO_SKIP` set) it fails. Postgres
needs `psql`, as no driver is part of the default install.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import pytest
import redis

if TYPE_CHECKING:
    from collections.abc import Iterator

START_S: Final = 30.0
LOOK_S: Final = 0.02
STANDARD_REDIS: Final = "redis://127.0.0.1:6379/0"
STANDARD_POSTGRES: Final = (
    "postgresql://postgres@127.0.0.1:5432/postgres",
    "postgresql://postgres@/postgres?host=/var/run/postgresql",
    "postgresql://postgres@/postgres?host=/tmp",
)


class RedisSpace(NamedTuple):
    """What one test may use of a Redis: every key it makes begins with `{tag}`."""

    url: str
    tag: str


class PrivateRedis:
    """A Redis of one test's own, on a port that stays the same when it is started again."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket = folder / "redis.sock"
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._command += ["--unixsocket", str(self.socket)]
        self._command += ["--save", "", "--appendonly", "no", "--logfile", str(folder / "redis.log")]
        self._log = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)  # noqa: S603
        self._process = process
        until = time.monotonic() + START_S
        while not redis_answers(self.url):
            assert process.poll() is None, self._log.read_text()
            assert time.monotonic() < until, "a private Redis did not start"
            time.sleep(LOOK_S)

    def kill(self) -> None:
        """End it as a power cut would: what it held is gone. Does nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop it where it is: connections stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def do_without(reason: str) -> NoReturn:
    """Skip the test for want of a server; in CI, where none may be missing, fail it."""
    if os.environ.get("CI") or os.environ.get("CONVENE_TEST_NO_SKIP"):
        pytest.fail(f"{reason} (no test may skip here)", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def redis_answers(url: str) -> bool:
    """Whether a Redis answers PING there."""
    client = redis.Redis.from_url(url, socket_timeout=20.0, socket_connect_timeout=20.0)
    with contextlib.closing(client):
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


@contextlib.contextmanager
def own_redis() -> Iterator[PrivateRedis]:
    """Start a private Redis and end it after."""
    binary = shutil.which("redis-server")
    if binary is None:
        do_without("redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="convene-redis-") as folder:
        server = PrivateRedis(binary, Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@functools.cache
def shared_redis() -> str:
    """Return the URL of the Redis that all tests of this run share; a private one ends with the run."""
    named = os.environ.get("CONVENE_TEST_REDIS_URL")
    if named is not None:
        if not redis_answers(named):
            pytest.fail("the Redis of CONVENE_TEST_REDIS_URL does not answer", pytrace=False)
        return named
    if redis_answers(STANDARD_REDIS):
        return STANDARD_REDIS
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(own_redis()).url


@contextlib.contextmanager
def own_space(url: str) -> Iterator[RedisSpace]:
    """Lend a hash tag of a Redis that nobody has used, and delete what was kept under it after."""
    tag = f"convene-test-{uuid.uuid4().hex[:12]}"
    try:
        yield RedisSpace(url, tag)
    finally:
        with contextlib.closing(redis.Redis.from_url(url)) as client:
            for key in client.scan_iter(match=f"{{{tag}}}*", count=1000):
                client.unlink(key)


@pytest.fixture
def redis_space() -> Iterator[RedisSpace]:
    """A share of a Redis for one test."""
    with own_space(shared_redis()) as space:
        yield space


@pytest.fixture
def private_redis() -> Iterator[PrivateRedis]:
    """A running Redis that nobody else uses."""
    with own_redis() as server:
        yield server


def postgres_binary(name: str) -> str | None:
    """Return the path of a program of Postgres, on PATH or where Debian keeps its versions (the newest)."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


def run_sql(url: str, sql: str) -> str:
    """Run statements with `psql` and return what they print; raises CalledProcessError with the server's words."""
    program = postgres_binary("psql")
    if program is None:
        do_without("psql is not installed")
    command = [program, url, "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-Atqc", sql]
    environment = os.environ | {"PGCONNECT_TIMEOUT": "20", "PGOPTIONS": "-c client_min_messages=warning"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout.strip()


def postgres_answers(url: str) -> bool:
    """Whether a Postgres lets us in there."""
    try:
        return run_sql(url, "SELECT 1") == "1"
    except subprocess.CalledProcessError:
        return False


def _unprivileged() -> str | None:
    """Return the user to run Postgres as, which refuses root; None: as we are."""
    if os.geteuid() != 0:
        return None
    return next((name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}), None)


@contextlib.contextmanager
def own_postgres() -> Iterator[str]:
    """Start a private Postgres in a temporary folder, yield its URL, and end it after."""
    initdb, program = postgres_binary("initdb"), postgres_binary("postgres")
    if initdb is None or program is None:
        do_without("initdb and postgres are not installed")
    user = _unprivileged()
    with tempfile.TemporaryDirectory(prefix="convene-postgres-") as folder:
        if user is not None:
            shutil.chown(folder, user)
        data, log = Path(folder) / "data", Path(folder) / "log"
        made = [initdb, "-D", str(data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(made, user=user, cwd=folder, check=True, capture_output=True)  # noqa: S603
        port = free_port()
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        command = [program, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", folder]
        with log.open("wb") as words:
            process = subprocess.Popen(  # noqa: S603
                command, user=user, cwd=folder, stdout=words, stderr=subprocess.STDOUT
            )
        try:
            until = time.monotonic() + START_S
            while not postgres_answers(url):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, "a private Postgres did not start"
                time.sleep(LOOK_S)
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown: sessions are ended, nothing is waited for
            process.wait(START_S)


@functools.cache
def shared_postgres() -> str:
    """Return the URL of the Postgres that all tests of this run share; a private one ends with the run."""
    named = os.environ.get("CONVENE_TEST_POSTGRES_URL")
    if named is not None:
        if not postgres_answers(named):
            pytest.fail("the Postgres of CONVENE_TEST_POSTGRES_URL does not answer", pytrace=False)
        return named
    for url in STANDARD_POSTGRES:
        if postgres_answers(url):
            return url
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(own_postgres())


def with_schema(url: str, schema: str) -> str:
    """Return the URL with that schema as the search path of every session that it opens."""
    parts = urlsplit(url)
    asked = dict(parse_qsl(parts.query))
    asked["options"] = f"{asked.get('options', '')} -csearch_path={schema}".strip()
    return urlunsplit(parts._replace(query=urlencode(asked, quote_via=quote)))


@contextlib.contextmanager
def own_schema(url: str) -> Iterator[str]:
    """Make a schema in a Postgres, yield the URL whose sessions live in it, and drop it after."""
    schema = f"convene_test_{uuid.uuid4().hex[:12]}"
    run_sql(url, f"CREATE SCHEMA {schema}")
    try:
        yield with_schema(url, schema)
    finally:
        # A session that still holds a lock there would let DROP wait for ever.
        run_sql(url, f"SET lock_timeout = '10s'; DROP SCHEMA {schema} CASCADE")


@functools.cache
def kept_schema(purpose: str) -> str:
    """Return the URL of a schema that tests of one purpose share and empty themselves; dropped when the run ends."""
    del purpose
    stack = contextlib.ExitStack()
    url = stack.enter_context(own_schema(shared_postgres()))
    atexit.register(stack.close)
    return url


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of an empty schema of one test's own, which is the search path of its sessions."""
    with own_schema(shared_postgres()) as url:
        yield url
