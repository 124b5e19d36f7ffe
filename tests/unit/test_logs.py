"""Log lines are JSON, one a record, and no secret gets through, by its shape or by its value."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from convene import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "correct horse battery"


def line(
    message: str, *args: object, exc_info: BaseException | None = None, level: int = logging.WARNING
) -> dict[str, Any]:
    """Return the parsed line of one record."""
    about = None if exc_info is None else (type(exc_info), exc_info, exc_info.__traceback__)
    record = logging.LogRecord("convene.x", level, "f.py", 1, message, args, about)
    text = logs.JsonLines([SECRET, "abc"]).format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


@pytest.mark.req("OPS-17")
def test_a_line_has_time_level_event_and_message() -> None:
    found = line("request %s refused with %d", "req_1", 503)
    assert set(found) == {"ts", "level", "event", "message"}
    assert (found["level"], found["event"]) == ("warning", "convene.x")
    assert found["message"] == "request req_1 refused with 503"
    assert found["ts"] > 1_700_000_000


@pytest.mark.parametrize(
    "secret",
    [
        "convene_0123456789abcdef_ABCDEF0123456789",
        "convene_link_0123456789abcdefABCDEF0123456789abcdef",
        "convene_session_0123456789abcdefABCDEF0123456789abcdef",
        "$argon2id$v=19$m=47104,t=1,p=1$c2FsdA$aGFzaA",
        "Bearer abcdef",
        "bearer  x.y.z",
        "Authorization: Bearer convene_0123456789abcdef_x",
        "sk_" + "0" * 64,
        "sk-proj-abcdefgh12345678",
        "hf_abcdefghij",
        SECRET,
    ],
)
@pytest.mark.req("OPS-17")
def test_secrets_are_starred_by_shape_and_by_value(secret: str) -> None:
    found = line("before '%s', after", secret)
    assert secret not in found["message"]
    for part in ("abcdef", "0123456789", "x.y.z", "horse"):
        assert part not in found["message"]
    assert logs.STARS in found["message"]
    assert found["message"].startswith("before '")
    assert found["message"].endswith("', after")


def test_a_password_in_an_address_is_starred_and_the_host_stays() -> None:
    assert line("proxy http://user:hunter2@proxy.test:3128/")["message"] == "proxy http://***@proxy.test:3128/"


@pytest.mark.parametrize("text", ["task sk-1", "abc", "http://a.test:80/x", "hf_x", "the convene_port", "12:30 a@b"])
def test_ordinary_words_stay(text: str) -> None:
    assert line("%s", text)["message"] == text


@pytest.mark.req("OPS-17")
def test_a_secret_in_an_exception_and_its_cause_is_starred_too() -> None:
    fault = ValueError("Bearer top-secret-token")
    fault.__cause__ = KeyError(SECRET)
    found = line("failed", exc_info=fault)
    assert "ValueError" in found["exception"]
    assert "direct cause" in found["exception"]
    assert SECRET not in found["exception"]
    assert "top-secret" not in found["exception"]


@pytest.mark.parametrize("odd", ["two\nlines", "\u2028", "\x00\x1b[31m", "\ud800"])
def test_odd_characters_keep_one_line(odd: str) -> None:
    assert line("x%sy", odd)["message"].startswith("x")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    logger = logging.getLogger()
    before, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = before
    logger.setLevel(level)


def test_installing_replaces_what_was_there_and_keeps_the_level(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.install("warning", [SECRET])
    logs.install("warning", [SECRET])
    assert len(root.handlers) == 1
    logging.getLogger("convene.test").info("too quiet")
    logging.getLogger("convene.test").error("loud %s", SECRET)
    (text,) = capsys.readouterr().err.splitlines()
    assert json.loads(text)["message"] == "loud ***"


@pytest.mark.parametrize(
    ("name", "level", "written"),
    [
        ("convene.search", "debug", "yes"),
        ("convene", "info", "yes"),
        ("primp", "info", ""),
        ("ddgs.ddgs", "info", ""),
        ("primp.connect", "warning", ""),
        ("primp", "error", "yes"),
        ("hyper_util.client", "debug", ""),
        ("conveneless", "info", ""),
        ("asyncio", "warning", "yes"),
    ],
)
def test_other_packages_are_heard_only_when_they_warn_for_they_log_what_callers_asked(
    name: str, level: str, written: str, root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.install("debug", ())
    assert root.handlers
    getattr(logging.getLogger(name), level)("response: https://engine.test/?q=private+words 200")

    assert ("private" in capsys.readouterr().err) is bool(written)


def read_all(end: int) -> bytes:
    """Read a pipe to its end and close it."""
    with open(end, "rb", closefd=True) as file:
        return file.read()


def test_lines_longer_than_a_pipe_takes_are_written_whole_by_many_threads() -> None:
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as lock, ThreadPoolExecutor(9) as pool:
        taken = pool.submit(read_all, reading)
        output = logs.Output(lock.fileno(), writing)
        letters = [bytes([97 + place]) * 70_000 + b"\n" for place in range(8)]
        for written in [pool.submit(output.write, text) for text in letters]:
            written.result()
        os.close(writing)
        assert sorted(taken.result().splitlines(keepends=True)) == letters


def test_records_go_through_the_shared_output_with_secrets_starred() -> None:
    reading, writing = os.pipe()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        with tempfile.TemporaryFile() as lock:
            logs.install("warning", [SECRET], logs.Output(lock.fileno(), writing))
            logging.getLogger("convene.x").warning("the secret is %s", SECRET)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        os.close(writing)
    [text] = read_all(reading).splitlines()
    found = json.loads(text)
    assert found["message"] == f"the secret is {logs.STARS}"
    assert found["event"] == "convene.x"
