"""The real program: the first admin's link, a key from the form, and its end in another process."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import pytest

from process.program import SCRIPTED, Listening, end, started, verb

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S: Final = 120.0
PASSWORD: Final = "canary horse battery"
LINK: Final = re.compile(r"http://127\.0\.0\.1:\d+/signup\?link=(convene_link_\w+)")


class Program(Listening):
    """A running `convene serve`, and a browser."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        super().__init__(process, log)
        self.wait_for(r"curl http")
        self.cookie = ""

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str]:
        """Send a request as a browser does; return status and body."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            sent["cookie"] = self.cookie
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)) as connection:
            connection.request(method, path, body.encode(), sent)
            answer = connection.getresponse()
            given = answer.getheader("set-cookie")
            if given:
                self.cookie = given.partition(";")[0]
            return answer.status, answer.read().decode()

    def form(self, page: str, action: str, **fields: str) -> tuple[int, str]:
        """Open a page and send its form."""
        _, text = self.ask("GET", page)
        token = re.search(r'name="token" value="(\w+)"', text)
        assert token is not None, text
        body = urlencode({"token": token[1]} | fields)
        origin = f"http://127.0.0.1:{self.port}"
        return self.ask("POST", action, body, content_type="application/x-www-form-urlencoded", origin=origin)

    def log_in(self) -> None:
        """Log in, once the throttle lets one."""
        until = time.monotonic() + WAIT_S
        while self.form("/account", "/account/login", email="ada@x.org", password=PASSWORD)[0] != 303:
            assert time.monotonic() < until
            time.sleep(0.1)

    def uses(self, key: str) -> int:
        """Return the status of a call with a key."""
        return self.ask("GET", "/v1/models", authorization=f"Bearer {key}")[0]


@contextlib.contextmanager
def program(folder: Path, name: str = "log") -> Iterator[Program]:
    """Run `convene serve` until the end of the block."""
    (folder / "convene.toml").write_text(SCRIPTED)
    with started(folder, name) as (process, log):
        yield Program(process, log)
        end(process, log)


def sign_up(running: Program) -> None:
    """Follow the first link."""
    link = running.wait_for(LINK.pattern)
    status, text = running.form(
        f"/signup?link={link}", "/signup", link=link, name="Ada", email="ada@x.org", password=PASSWORD
    )
    assert status == 200, text
    running.log_in()


def make_key(running: Program, name: str) -> str:
    """Make a key on the form."""
    _, text = running.form("/account", "/account/keys", name=name)
    found = re.search(r"<code>(convene_\w+)</code>", text)
    assert found is not None, text
    return found[1]


@pytest.mark.req("KEY-01")
def test_who_follows_the_first_link_has_a_key_that_works_at_once_and_no_secret_is_left_behind(tmp_path: Path) -> None:
    with program(tmp_path) as running:
        sign_up(running)
        assert "127.0.0.1" in running.wait_for(LINK.pattern.replace("(", "(?:"))
        key = make_key(running, "laptop")
        assert running.uses(key) == 200
        session = running.cookie.partition("=")[2]
        link = LINK.search(running.log.read_text())
        assert link is not None
    text = running.log.read_text()
    assert running.cookie.startswith("convene=convene_session_")
    for secret in (key, session, PASSWORD):
        assert secret not in text
    assert text.count(link[1]) == 1, "the link is shown once and never logged"
    kept = b"".join(file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file())
    for secret in (key, session, PASSWORD, link[1]):
        assert secret.encode() not in kept


def test_the_link_is_printed_once_and_not_by_a_second_start(tmp_path: Path) -> None:
    with program(tmp_path) as first:
        assert len(LINK.findall(first.log.read_text())) == 1
    with program(tmp_path, "second") as second:
        assert LINK.findall(second.log.read_text()) == []
        assert "convene_" not in second.log.read_text()


def test_once_there_is_an_admin_no_start_makes_a_link(tmp_path: Path) -> None:
    with program(tmp_path) as first:
        sign_up(first)
    with program(tmp_path, "second") as second:
        assert LINK.findall(second.log.read_text()) == []
        second.log_in()
        assert second.uses(make_key(second, "again")) == 200


@pytest.mark.req("KEY-02")
def test_a_key_works_and_dies_in_a_second_server_on_the_same_folder(tmp_path: Path) -> None:
    with program(tmp_path) as here, program(tmp_path, "second") as there:
        sign_up(here)
        key = make_key(here, "laptop")
        assert there.uses(key) == 200
        key_id = key.split("_")[1]
        assert here.form("/account", "/account/keys/revoke", key=key_id)[0] == 303
        assert here.uses(key) == 401
        until = time.monotonic() + WAIT_S
        while there.uses(key) != 401:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_disabling_a_user_elsewhere_ends_its_keys_and_its_browser_here(tmp_path: Path) -> None:
    with program(tmp_path) as running:
        sign_up(running)
        key = make_key(running, "laptop")
        assert running.uses(key) == 200
        made = verb(tmp_path, "users", "add", "eve@x.org", "--role", "admin", "--json")
        assert made.returncode == 0, made.stderr
        ended = verb(tmp_path, "users", "disable", "ada@x.org")
        assert ended.returncode == 0, ended.stderr
        until = time.monotonic() + WAIT_S
        while running.uses(key) != 401:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert 'action="/account/login"' in running.ask("GET", "/account")[1]
        link = json.loads(made.stdout)["link"].rpartition("=")[2]
        assert running.ask("GET", f"/signup?link={link}")[0] == 200
