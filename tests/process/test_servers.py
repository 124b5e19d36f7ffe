"""The servers that other tests rely on (`tests/servers.py`): namespaces are apart and empty, private servers start."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
import redis

import servers
from servers import (
    PrivateRedis,
    RedisSpace,
    own_postgres,
    postgres_answers,
    redis_answers,
    run_sql,
    shared_postgres,
    with_schema,
)


def test_a_schema_of_ones_own_is_empty_and_the_search_path(postgres_url: str) -> None:
    run_sql(postgres_url, "CREATE TABLE things (id INT)")
    schema = run_sql(postgres_url, "SELECT current_schema()")
    assert schema.startswith("convene_test_")
    where = f"schemaname = '{schema}' AND tablename = 'things'"
    assert run_sql(shared_postgres(), f"SELECT count(*) FROM pg_tables WHERE {where}") == "1"  # noqa: S608 - no input


def test_the_schema_joins_what_a_url_already_asks_for() -> None:
    url = with_schema("postgresql://u@h/d?sslmode=require&options=-cwork_mem%3D8MB", "mine")
    assert url == "postgresql://u@h/d?sslmode=require&options=-cwork_mem%3D8MB%20-csearch_path%3Dmine"


def test_a_private_postgres_starts_and_ends() -> None:
    with own_postgres() as url:
        assert run_sql(url, "SELECT 1") == "1"
    assert not postgres_answers(url)


def test_a_hash_tag_of_ones_own_is_empty(redis_space: RedisSpace) -> None:
    with contextlib.closing(redis.Redis.from_url(redis_space.url)) as client:
        assert not list(client.scan_iter(match=f"{{{redis_space.tag}}}*", count=1000))


def test_a_private_redis_can_be_paused_killed_and_started_again(private_redis: PrivateRedis) -> None:
    with (
        contextlib.closing(redis.Redis.from_url(private_redis.url)) as client,
        contextlib.closing(redis.Redis.from_url(private_redis.url, socket_timeout=0.2)) as impatient,
    ):
        client.set("kept", "1")
        private_redis.pause()
        with pytest.raises(redis.TimeoutError):
            impatient.get("kept")
        private_redis.resume()
        assert redis_answers(private_redis.url)
        private_redis.kill()
        assert not redis_answers(private_redis.url)
        private_redis.start()
        assert client.get("kept") is None


def test_a_missing_server_skips_but_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("CONVENE_TEST_NO_SKIP", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no server"):
        servers.do_without("no server")
    for name in ("CI", "CONVENE_TEST_NO_SKIP"):
        with monkeypatch.context() as inside:
            inside.setenv(name, "1")
            with pytest.raises(pytest.fail.Exception, match="no server"):
                servers.do_without("no server")


def test_statements_that_fail_raise(postgres_url: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run_sql(postgres_url, "SELECT * FROM nowhere")
