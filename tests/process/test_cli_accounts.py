"""`convene users` and the terms of `convene keys create`, in processes of their own on one data folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from convene.cli_keys import limits_in_words
from convene.cli_users import link_address
from convene.config import Config
from convene.limits.allowance import Allowance
from convene.serving.keyring import parse_key
from convene.serving.tokens import digest_of_token

if TYPE_CHECKING:
    from pathlib import Path

BOUND_S: Final = 60.0


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with `home` as home and working folder."""
    settings = {"PATH": os.environ["PATH"], "HOME": str(home), "CONVENE_DATA_DIR": str(home / "data")}
    return subprocess.run(  # noqa: S603 -- this interpreter and the test's own words
        [sys.executable, "-m", "convene", *words],
        cwd=home,
        env=settings,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


def done(home: Path, *words: str) -> str:
    """Return standard output of what must succeed."""
    ran = run(home, *words)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(home: Path, *words: str) -> tuple[int, str]:
    """Return exit code and words of what must fail, in one line without a traceback."""
    ran = run(home, *words)
    assert ran.returncode in (1, 2)
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
    return ran.returncode, ran.stderr


def as_json(home: Path, *words: str) -> Any:  # noqa: ANN401 -- any JSON value
    return json.loads(done(home, *words, "--json"))


def test_a_user_is_added_listed_and_disabled(tmp_path: Path) -> None:
    added = run(tmp_path, "users", "add", "Ada@example.com", "--role", "admin", "--plan", "pro")
    assert added.returncode == 0, added.stderr
    link = added.stdout.strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:8000/signup\?link=convene_link_\w{38}", link)
    assert digest_of_token("link", link.rpartition("=")[2]) is not None
    [ada] = as_json(tmp_path, "users", "list")
    assert (ada["email"], ada["role"], ada["plan"], ada["has_password"]) == ("ada@example.com", "admin", "pro", False)
    done(tmp_path, "users", "add", "eve@example.com", "--role", "admin", "--name", "Eve")
    assert run(tmp_path, "users", "disable", "ADA@example.com").returncode == 0
    table = done(tmp_path, "users", "list")
    assert re.search(r"ada@example\.com +ada@example\.com +admin +pro +disabled", table)
    assert re.search(r"eve@example\.com +Eve +admin +- +no password", table)


def test_nobody_is_listed_where_nobody_is(tmp_path: Path) -> None:
    assert as_json(tmp_path, "users", "list") == []
    listed = run(tmp_path, "users", "list")
    assert "convene users invite" in listed.stderr


def test_the_last_admin_stays_and_mistakes_are_told_in_a_line(tmp_path: Path) -> None:
    done(tmp_path, "users", "add", "ada@example.com", "--role", "admin")
    assert "last admin" in refused(tmp_path, "users", "disable", "ada@example.com")[1]
    assert "already a user" in refused(tmp_path, "users", "add", "ada@example.com")[1]
    assert "email" in refused(tmp_path, "users", "add", "ada")[1]
    assert "no plan" in refused(tmp_path, "users", "add", "x@example.com", "--plan", "platinum")[1]
    assert "convene users list" in refused(tmp_path, "users", "disable", "nobody")[1]
    assert refused(tmp_path, "users", "add", "x@example.com", "--role", "root")[0] == 2


def test_an_invitation_and_a_reset_link_are_the_last_word_on_stdout(tmp_path: Path) -> None:
    done(tmp_path, "users", "add", "ada@example.com", "--role", "admin")
    for words in (
        ("users", "invite", "--role", "admin", "--expires", "2d"),
        ("users", "reset-link", "ada@example.com"),
    ):
        link = done(tmp_path, *words).strip()
        assert digest_of_token("link", link.rpartition("=")[2]) is not None
    invited = as_json(tmp_path, "users", "invite", "--email", "Dee@example.com", "--plan", "free")
    assert (invited["email"], invited["purpose"], invited["plan"]) == ("dee@example.com", "signup", "free")
    reset = as_json(tmp_path, "users", "reset-link", "ada@example.com")
    assert (reset["purpose"], reset["email"]) == ("password", "ada@example.com")
    assert "90 days" in refused(tmp_path, "users", "invite", "--expires", "100d")[1]
    assert "no team" in refused(tmp_path, "users", "invite", "--team", "team_9")[1]


@pytest.mark.req("LIMIT-04")
def test_a_key_has_the_terms_it_was_made_with(tmp_path: Path) -> None:
    done(tmp_path, "users", "add", "ada@example.com")
    terms = ("--rpm", "60", "--rpd", "1000", "--tpm", "100000", "--tpd", "5000000", "--max-concurrent", "4")
    money = ("--budget", "20.5", "--budget-period", "day", "--models", "a,b", "--expires", "30d")
    made = as_json(tmp_path, "keys", "create", "lab", *terms, *money, "--user", "ADA@example.com")
    assert parse_key(made["key"]) is not None
    limits = {name: value for name, value in made["limits"].items() if value is not None}
    assert limits == {
        "requests_per_minute": 60,
        "requests_per_day": 1000,
        "tokens_per_minute": 100_000,
        "tokens_per_day": 5_000_000,
        "concurrent_requests": 4,
        "budget_per_day": 20.5,
    }
    [ada] = as_json(tmp_path, "users", "list")
    assert (made["user_id"], made["owner"], made["plan"], made["models"]) == (ada["id"], ada["id"], "", ["a", "b"])
    table = done(tmp_path, "keys", "list")
    assert ada["id"] in table
    assert "60 requests/minute" in table
    assert "20.50 budget/day" in table


@pytest.mark.parametrize(
    ("period", "field"), [("day", "budget_per_day"), ("month", "budget_per_month"), ("total", "budget_total")]
)
def test_a_budget_is_for_a_day_a_month_or_in_all(tmp_path: Path, period: str, field: str) -> None:
    made = as_json(tmp_path, "keys", "create", "k", "--budget", "0.000001", "--budget-period", period)
    assert made["limits"][field] == 0.000001
    assert [name for name, value in made["limits"].items() if value is not None] == [field]


def test_a_key_for_nobody_is_the_owners_and_the_last_word_on_stdout(tmp_path: Path) -> None:
    out = done(tmp_path, "keys", "create", "plain")
    assert parse_key(out.removesuffix("\n")) is not None
    made = as_json(tmp_path, "keys", "create", "root", "--admin")
    assert (made["plan"], made["limits"], made["user_id"], made["scopes"]) == ("owner", None, None, ["api", "admin"])


def test_a_key_with_terms_that_cannot_be_is_not_made(tmp_path: Path) -> None:
    for words, said in (
        (("--user", "nobody@example.com"), "no user"),
        (("--team", "team_9"), "no team"),
        (("--plan", "platinum"), "no plan"),
        (("--expires", "2001-01-01"), "future"),
    ):
        assert said in refused(tmp_path, "keys", "create", "k", *words)[1]
    for words in (("--rpm", "-1"), ("--tpm", "1.5"), ("--budget", "-1"), ("--budget-period", "year"), ("--rpm", "x")):
        assert refused(tmp_path, "keys", "create", "k", *words)[0] == 2
    assert as_json(tmp_path, "keys", "list") == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (None, "-"),
        (Allowance(), "-"),
        (Allowance(requests_per_minute=0), "0 requests/minute"),
        (Allowance(concurrent_requests=4), "4 concurrent requests"),
        (Allowance(input_tokens_per_day=7, images_per_minute=2), "7 input tokens/day, 2 images/minute"),
        (Allowance(budget_per_month=5_000_000, budget_total=1), "5.00 budget/month, 0.00 budget total"),
    ],
)
def test_limits_are_said_in_short(limits: Allowance | None, words: str) -> None:
    assert limits_in_words(limits) == words


@pytest.mark.parametrize(
    ("host", "public_url", "base"),
    [
        ("127.0.0.1", "", "http://127.0.0.1:8000"),
        ("0.0.0.0", "", "http://127.0.0.1:8000"),  # noqa: S104 -- where a server may listen
        ("::1", "", "http://[::1]:8000"),
        ("10.0.0.7", "https://ai.example/", "https://ai.example"),
    ],
)
def test_a_link_leads_to_where_the_server_is_said_to_be(host: str, public_url: str, base: str) -> None:
    config = Config(host=host, public_url=public_url)
    assert link_address(config, "TEXT") == f"{base}/signup?link=TEXT"
