"""The command line: what goes where, what it is told when it is asked wrongly, and what every verb has in common."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from convene import cli
from convene.cli_keys import parse_expiry, state_of
from convene.cli_models import lines_of
from convene.cli_output import ProgressLine, Verb, harmless, progress_text, readable_bytes
from convene.config import Config, load
from convene.engine.base import FetchStep
from convene.errors import BadRequest
from convene.serving.keyring import parse_key
from convene.store.base import KeyRecord
from convene.store.migrations import STEPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in an empty home and an empty working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONVENE_CONFIG", "CONVENE_API_KEY", "NO_COLOR", "XDG_DATA_HOME", "XDG_CACHE_HOME", "PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def invoke(*words: str, stdin: str | None = None, color: bool = False) -> Result:
        return CliRunner().invoke(cli.main, words, input=stdin, color=color, prog_name="convene")

    return invoke


def verbs(group: click.Group = cli.main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command, (*path, name))
        else:
            yield (*path, name), command


# What every verb has.


@pytest.mark.parametrize(
    ("path", "command"), list(verbs()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_verb_explains_itself_with_examples(run: Run, path: tuple[str, ...], command: click.Command) -> None:
    assert isinstance(command, Verb)
    assert all(f"convene {' '.join(path)}" in example for example in command.examples)
    asked = run(*path, "--help")
    assert (asked.exit_code, asked.stderr) == (0, "")
    assert command.examples
    for text in (
        command.examples[0],
        "--no-color",
        *(f"--{name}" for name in ("config", "set") if "--config" in asked.output),
    ):
        assert text in asked.stdout
    assert run("help", *path).stdout == asked.stdout
    assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.req("OPS-26")
def test_every_list_can_be_json(run: Run) -> None:
    for path, command in verbs():
        if path[-1] in ("list", "check-config", "doctor", "version"):
            assert "as_json" in {param.name for param in command.params}
    for words in (("keys", "list"), ("models", "list"), ("check-config",)):
        assert isinstance(json.loads(run(*words, "--json").stdout), list)


@pytest.mark.req("OPS-26")
@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (("nonsense",), 2, "No such command"),
        (("keys", "create"), 2, "Missing argument 'NAME'"),
        (("help", "nonsense"), 2, "there is no verb 'nonsense'"),
        (("help", "serve", "more"), 2, "there is no verb 'serve more'"),
        (("completion", "tcsh"), 2, "tcsh"),
        (("check-config", "--set", "edge.pings=5"), 2, "did you mean edge.ping_s?"),
        (("check-config", "--set", "edge"), 2, "write KEY=VALUE"),
        (("check-config", "--config", "no.toml"), 2, "there is no file"),
        (("serve", "--port", "x"), 2, "flag --port: port must be a whole number"),
        (("keys", "revoke", "nobody"), 1, "`convene keys list` shows all ids"),
        (("keys", "rotate", "nobody"), 1, "`convene keys list` shows all ids"),
        (("keys", "create", "x", "--expires", "soon"), 1, "write 30d, 12h, 2027-01-31, or never"),
        (("keys", "create", "x", "--expires", "2001-01-01"), 1, "must be in the future"),
        (("models", "rm", "nonsense"), 1, "`convene models list` shows what is"),
        (("models", "pull", "nonsense"), 1, "Choose a name of the catalogue"),
    ],
)
def test_what_fails_says_why_on_stderr_and_the_next_step(
    run: Run, words: tuple[str, ...], exit_code: int, said: str
) -> None:
    asked = run(*words)
    assert (asked.exit_code, asked.stdout) == (exit_code, "")
    assert said in asked.stderr
    assert "Traceback" not in asked.stderr


@pytest.mark.req("OPS-26")
def test_colour_is_for_those_who_want_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ("keys", "revoke", "nobody")
    assert "\x1b[" in run(*wrong, color=True).stderr
    assert "\x1b[" not in run(*wrong, "--no-color", color=True).stderr
    assert "\x1b[" not in run("--no-color", *wrong, color=True).stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run(*wrong, color=True).stderr


# serve, check-config, version, completion, migrate.


def test_serve_hands_the_settings_to_the_application(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served: list[Config] = []

    def serve(config: Config) -> int:
        served.append(config)
        return 3

    monkeypatch.setattr(cli, "serve_app", serve)
    (tmp_path / "convene.toml").write_text("port = 1\n[edge]\nping_s = 1\n")
    asked = run("serve", "--port", "9000", "--data-dir", "d", "--set", "engine.slots=2")
    assert asked.exit_code == 3
    assert (served[0].port, served[0].engine.slots, served[0].edge.ping_s) == (9000, 2, 1)
    assert served[0].data_dir == tmp_path / "d"


@pytest.mark.req("OPS-23")
def test_check_config_shows_every_value_its_source_and_no_secret(run: Run, tmp_path: Path) -> None:
    (tmp_path / "convene.toml").write_text('[upstreams.a]\nbase_url = "http://a"\napi_key = "hush"\n')
    (tmp_path / ".env").write_text("CONVENE_LOGLEVEL=x\n")
    asked = run("check-config", "--set", "port=9000")
    assert asked.exit_code == 0
    assert ["port", "9000", "flag", "--port"] in [line.split() for line in asked.stdout.splitlines()]
    assert "********" in asked.stdout
    assert ".env CONVENE_LOGLEVEL names no setting" in asked.stderr
    for form in ((), ("--json",), ("--explain",)):
        assert "hush" not in run("check-config", *form).output
    found = {one["key"]: one for one in json.loads(run("check-config", "--json").stdout)}
    assert found["upstreams.a.api_key"]["value"] == "********"
    assert found["host"] == {"key": "host", "value": "127.0.0.1", "source": "default", "help": "Address to listen on"}


def test_version_is_for_people_and_programs(run: Run) -> None:
    assert run("version").stdout.startswith("convene 0.1.0\n")
    assert json.loads(run("version", "--json").stdout)["python"].startswith(f"{sys.version_info.major}.")
    assert run("--version").stdout == "convene 0.1.0\n"


@pytest.mark.req("OPS-26")
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_is_printed(run: Run, shell: str) -> None:
    assert "_CONVENE_COMPLETE" in run("completion", shell).stdout


def test_the_description_of_the_api_is_printed_without_a_server(run: Run) -> None:
    asked = run("openapi")
    assert (asked.exit_code, asked.stderr) == (0, "")
    assert json.loads(asked.stdout)["openapi"].startswith("3.1")


@pytest.mark.req("OPS-32")
def test_migrate_makes_the_store_and_says_its_shape(run: Run, tmp_path: Path) -> None:
    asked = run("migrate", "--data-dir", "d")
    assert (asked.exit_code, asked.stdout) == (0, "")
    assert f"has shape {len(STEPS)}, it had 0" in asked.stderr
    assert (tmp_path / "d" / "convene.db").exists()
    assert "already" in run("migrate", "--data-dir", "d").stderr


# keys.


def test_create_prints_the_key_alone_on_stdout(run: Run) -> None:
    asked = run("keys", "create", "laptop")
    assert asked.exit_code == 0
    text = asked.stdout.removesuffix("\n")
    parts = parse_key(text)
    assert parts is not None
    assert text not in asked.stderr
    assert f"Made the key {parts.id} (laptop, plan owner)" in asked.stderr


def test_the_life_of_a_key(run: Run) -> None:
    made = json.loads(
        run("keys", "create", "ci", "--expires", "30d", "--models", "a, b", "--owner", "team", "--json").stdout
    )
    assert (made["models"], made["owner"], made["state"], made["plan"]) == (["a", "b"], "team", "active", "owner")
    [listed] = json.loads(run("keys", "list", "--json").stdout)
    assert made == listed | {"key": made["key"]}
    assert made["expires_at"] == pytest.approx(made["created_at"] + 30 * 86_400, abs=60)
    rotated = run("keys", "rotate", made["id"])
    assert rotated.stdout.removesuffix("\n") != made["key"]
    assert rotated.stdout.startswith(f"convene_{made['id']}_")
    revoked = run("keys", "revoke", made["id"])
    assert (revoked.exit_code, revoked.stdout) == (0, "")
    assert "Revoked" in revoked.stderr
    [listed] = json.loads(run("keys", "list", "--json").stdout)
    assert listed["state"] == "revoked"
    assert "has been revoked" in run("keys", "rotate", made["id"]).stderr


def test_a_listing_shows_neither_key_nor_digest(run: Run) -> None:
    text = run("keys", "create", "laptop").stdout.strip()
    shown = run("keys", "list").stdout + run("keys", "list", "--json").stdout
    assert "laptop" in shown
    assert text[-4:] in shown
    assert text[20:-6] not in shown
    assert "digest" not in shown


def test_an_empty_list_says_how_to_make_a_key(run: Run) -> None:
    asked = run("keys", "list")
    assert asked.stdout.splitlines() == ["ID  NAME  OF  PLAN  KEY  CREATED  EXPIRES  STATE  MODELS  LIMITS"]
    assert "convene keys create NAME" in asked.stderr


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("never", None),
        ("Never ", None),
        ("90s", 1090.0),
        ("2m", 1120.0),
        ("12h", 44_200.0),
        ("1d", 87_400.0),
        ("1w", 605_800.0),
        ("1970-01-02", 86_400.0),
        ("1970-01-02T00:00:00+01:00", 82_800.0),
        ("1970-01-02T00:00:00Z", 86_400.0),
    ],
)
def test_an_expiry_is_a_span_a_time_or_never(text: str, at: float | None) -> None:
    assert parse_expiry(text, 1000.0) == at


@pytest.mark.parametrize("text", ["", "soon", "30", "30y", "-1d", "2027-13-01", "1 d"])
def test_what_is_no_expiry_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="30d"):
        parse_expiry(text, 1000.0)


def test_the_state_of_a_key() -> None:
    def record(expires_at: float | None, revoked_at: float | None) -> KeyRecord:
        return KeyRecord(
            id="a",
            name="a",
            owner="a",
            plan="a",
            digest=bytes(32),
            last4="aaaa",
            created_at=1.0,
            expires_at=expires_at,
            revoked_at=revoked_at,
        )

    assert state_of(record(None, None), 10.0) == "active"
    assert state_of(record(10.5, None), 10.0) == "active"
    assert state_of(record(10.0, None), 10.0) == "expired"
    assert state_of(record(10.0, 5.0), 10.0) == "revoked"


# models.


def test_models_are_configured_here_or_to_be_pulled(run: Run, tmp_path: Path) -> None:
    (tmp_path / "convene.toml").write_text(
        'cache_dir = "c"\n[upstreams.up]\nbase_url = "http://a"\n[models.mine]\nupstream = "up"\nmodel = "theirs"\n'
    )
    folder = tmp_path / "c" / "models"
    folder.mkdir(parents=True)
    (folder / "SmolLM2-135M-Instruct.Q4_1.gguf").touch()
    listed = {one["name"]: one for one in json.loads(run("models", "list", "--json").stdout)}
    assert (listed["mine"]["state"], listed["mine"]["source"], listed["mine"]["note"]) == ("configured", "up", "theirs")
    assert listed["smollm2-135m"]["state"] == "here"
    assert listed["all-minilm-l6-v2"]["state"] == "not here"
    assert listed["qwen3-0.6b"]["source"].startswith("hf:")
    asked = run("models", "list")
    assert asked.stdout.splitlines()[0].split() == ["NAME", "STATE", "SIZE", "SOURCE", "NOTE"]
    assert str(folder) in asked.stderr
    removed = run("models", "rm", "nonsense")
    assert removed.exit_code == 1


def test_a_model_is_listed_once(tmp_path: Path) -> None:
    names = [line.name for line in lines_of(load({"cache_dir": "c"}, {}, tmp_path))]
    assert len(names) == len(set(names))


@pytest.mark.req("OPS-28")
def test_offline_nothing_is_pulled(run: Run) -> None:
    asked = run("models", "pull", "smollm2-135m", "--set", "engine.offline=true")
    assert (asked.exit_code, asked.stdout) == (1, "")


def test_a_file_of_ones_own_is_a_model_already(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    asked = run("models", "pull", str(tmp_path / "own.gguf"))
    assert (asked.exit_code, asked.stdout) == (0, f"{tmp_path / 'own.gguf'}\n")


# Progress and texts.


@pytest.mark.req("OPS-26", "OPS-27")
def test_progress_is_json_lines_on_stdout_or_one_line_per_status_off_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = [FetchStep(status="fetching", digest="d", total=10, completed=done) for done in (0, 5, 10)]
    steps.append(FetchStep(status="success"))
    lines = ProgressLine(as_json=True)
    for step in steps:
        lines.report(step)
    lines.close()
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()][1] == {
        "status": "fetching",
        "digest": "d",
        "total": 10,
        "completed": 5,
    }
    assert err == ""
    lines = ProgressLine(as_json=False)
    for step in steps:
        lines.report(step)
    lines.close()
    assert capsys.readouterr() == ("", "fetching\nsuccess\n")


@pytest.mark.req("OPS-26")
def test_on_a_terminal_progress_is_one_moving_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line = ProgressLine(as_json=False)
    line.report(FetchStep(status="fetching", total=10, completed=5))
    line.report(FetchStep(status="done"))
    line.close()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.split("\r")[1] == "fetching [###############               ]  50% 5 B of 10 B"
    assert len(err.split("\r")[2].removesuffix("\n")) == len(err.split("\r")[1])


def test_a_bar_never_passes_its_end() -> None:
    assert "100%" in progress_text(FetchStep(status="x", total=10, completed=15))
    assert progress_text(FetchStep(status="x")) == "x"


def test_sizes_are_readable() -> None:
    assert [readable_bytes(size) for size in (0, 999, 1000, 98_362_432, 5_030_000_000, 10**13)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "98.4 MB",
        "5.0 GB",
        "10.0 TB",
    ]


def test_text_from_outside_cannot_steer_a_terminal() -> None:
    assert harmless("a\x1b[31mb\x07\r\x9bc\x7f\n\tä") == "a[31mbc\n\tä"
