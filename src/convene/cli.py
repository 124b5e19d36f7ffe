"""The command `convene`: its verbs, each a few lines over what the rest of the house does.

    cli.py  serve, migrate, check-config, openapi, completion, version, help
    cli_users.py  users list, add, disable, invite, reset-link
    cli_keys.py  keys create, list, rotate, revoke        cli_models.py  models list, pull, rm
    cli_usage.py  usage, limits, export                   cli_upkeep.py  reconcile, backup
    cli_runs.py  runs list, show, cancel, sessions list, show, delete
    cli_image.py image
    cli_agents.py  agents list, search, add, remove, ping
    cli_chat.py  chat        cli_doctor.py  doctor        cli_output.py  how all of them speak

Data goes to stdout, talk to stderr; exit codes are 0, 1 (it failed) and 2 (it was asked wrongly). Not here: what a
verb does beyond starting it.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from convene import __version__
from convene.api.openapi import document
from convene.app_books import open_store
from convene.app_serve import serve as serve_app
from convene.app_workers import serve_workers
from convene.cli_agents import agents
from convene.cli_chat import chat
from convene.cli_doctor import doctor
from convene.cli_image import image
from convene.cli_keys import keys
from convene.cli_models import models
from convene.cli_output import AskedWrongly, Stop, Verbs, configured, json_option, put, put_json, put_table, say
from convene.cli_runs import runs, sessions
from convene.cli_upkeep import backup, reconcile
from convene.cli_usage import export, limits, usage
from convene.cli_users import users
from convene.clock import SystemClock
from convene.config import describe
from convene.store.migrations import STEPS
from convene.store.sqlite_file import examine

if TYPE_CHECKING:
    from convene.config import Config

_EPILOG = "Begin with `convene serve`. `convene help VERB` shows examples of a verb."


@click.group(
    cls=Verbs,
    epilog=_EPILOG,
    commands=[
        keys,
        users,
        models,
        agents,
        runs,
        sessions,
        usage,
        limits,
        export,
        reconcile,
        backup,
        chat,
        image,
        doctor,
    ],
)
@click.version_option(__version__, prog_name="convene", message="%(prog)s %(version)s")
def main() -> None:
    """Convene: a self-hosted, OpenAI-compatible, agentic LLM API."""


@main.command(
    "serve",
    examples=(
        "convene serve",
        "convene serve --port 9000 --data-dir ./data",
        "convene serve --workers 4",
        "convene serve --config /etc/convene.toml --set engine.slots=2",
    ),
)
@configured("host", "port", "data_dir", "workers")
@click.pass_context
def serve(ctx: click.Context, config: Config) -> None:
    """Serve the API until SIGTERM or ctrl-C. The first start makes a key and shows it once."""
    ctx.exit(serve_app(config) if config.workers == 1 else serve_workers(config))


@main.command("migrate", examples=("convene migrate", "convene migrate --data-dir /var/lib/convene"))
@configured("data_dir")
def migrate(config: Config) -> None:
    """Bring the store up to date, as every start does; an older file is copied first, which is the way back."""

    async def run() -> None:
        await (await open_store(config, SystemClock())).aclose()

    if config.database_url:
        asyncio.run(run())
        say(f"The database has shape {len(STEPS)}. Its way back is a dump: pg_dump before, pg_restore after.")
        return
    before = examine(config.store_path)[0] if config.store_path.exists() else 0
    asyncio.run(run())
    say(
        f"{config.store_path} has shape {len(STEPS)}" + (f", it had {before}." if before != len(STEPS) else " already.")
    )


@main.command("check-config", examples=("convene check-config", "convene check-config --json --set port=9000"))
@click.option("--explain", is_flag=True, help="Also say what each setting is.")
@json_option
@configured()
def check_config(config: Config, *, explain: bool, as_json: bool) -> None:
    """Check all settings and print each with its value and where it came from; secrets are starred."""
    lines = list(describe(config))
    if as_json:
        put_json(lines)
    elif explain:
        put_table(("KEY", "VALUE", "SOURCE", "MEANING"), [(one.key, one.value, one.source, one.help) for one in lines])
    else:
        put_table(("KEY", "VALUE", "SOURCE"), [(one.key, one.value, one.source) for one in lines])
    for notice in config.notices:
        say(f"convene: {notice}")


@main.command("openapi", examples=("convene openapi > openapi.json",))
def openapi() -> None:
    """Print the OpenAPI description of the API, as the server gives it at /openapi.json."""
    put(document().decode().rstrip("\n"))


@main.command(
    "completion", examples=('eval "$(convene completion bash)"', "convene completion zsh > ~/.zfunc/_convene")
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    if kind is None:
        raise Stop(f"there is no completion for {shell}")
    put(kind(main, {}, "convene", "_CONVENE_COMPLETE").source())


@main.command("version", examples=("convene version", "convene version --json"))
@json_option
def version(*, as_json: bool) -> None:
    """Print the versions of Convene, its engine and Python."""
    try:
        engine = importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        engine = ""
    found = {
        "convene": __version__,
        "engine": engine and f"xllamacpp {engine}",
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    if as_json:
        put_json(found)
        return
    for name, text in found.items():
        put(f"{name} {text or 'not installed'}")


@main.command("help", examples=("convene help serve", "convene help keys create"))
@click.argument("verb", nargs=-1)
@click.pass_context
def help_(ctx: click.Context, verb: tuple[str, ...]) -> None:
    """Show what a verb does."""
    command: click.Command = main
    parent = ctx.find_root()
    for word in verb:
        found = command.get_command(parent, word) if isinstance(command, click.Group) else None
        if found is None:
            raise AskedWrongly(f"there is no verb {' '.join(verb)!r}; `convene help` lists all")
        command, parent = found, click.Context(found, info_name=word, parent=parent)
    put(command.get_help(parent))
