"""How the command line speaks: data on stdout, talk on stderr, tables, progress, errors with the next step (OPS-26).

Here is also what all verbs share: the flags that choose settings, and the class that turns an error of ours into one
line and an exit code (1 = it failed, 2 = it was asked wrongly). Not here: any verb.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click
import msgspec

from convene.config import Config, ConfigError, client_here, load_here
from convene.config_values import settings_of
from convene.engine.base import EngineFault
from convene.errors import ConveneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from convene.engine.base import FetchStep

P = ParamSpec("P")
R = TypeVar("R")

_BAR_WIDTH = 30


class Stop(click.ClickException):
    """Ends the program with one line on stderr."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        context = click.get_current_context(silent=True)
        self._color = context.color if context else None  # the context is gone when click shows the error

    def show(self, file: Any = None) -> None:  # noqa: ANN401, ARG002 -- click's own signature
        """Say it."""
        click.echo(f"{click.style('convene:', fg='red')} {self.message}", err=True, color=self._color)


class AskedWrongly(Stop):
    """The same for what the caller must say otherwise."""

    exit_code = 2


class Verb(click.Command):
    """A verb: knows --no-color, what our errors mean, and its examples."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:  # noqa: ANN401 -- click's own
        super().__init__(*args, **kwargs)
        self.params.append(_no_color())
        self.examples = examples

    def format_epilog(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, line by line as they are."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- click's own signature
        """Run the verb. Raises `Stop` for an error of ours."""
        try:
            if client_here().no_color:
                ctx.color = False
            return super().invoke(ctx)
        except ConfigError as error:
            raise AskedWrongly(error.message) from error
        except (ConveneError, EngineFault) as error:
            detail = f" ({error.detail})" if error.detail else ""
            raise Stop(error.message + detail) from error


class Verbs(click.Group):
    """A group of verbs."""

    command_class = Verb
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- click's own signature
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 100})
        super().__init__(*args, **kwargs)
        self.params.append(_no_color())


def configured(*flags: str) -> Callable[[Callable[Concatenate[Config, P], R]], Callable[P, R]]:
    """Give a verb the settings as its first argument, and the flags to change them: --config, --set and `flags`.

    Args:
        flags: names of top-level settings that have a flag of their own here, such as `data_dir`.
    """

    def decorate(verb: Callable[Concatenate[Config, P], R]) -> Callable[P, R]:
        @functools.wraps(verb)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            overrides = {name: kwargs.pop(name) for name in (*flags, "config")}
            assignments = kwargs.pop("assignments")
            given = {name: str(value) for name, value in overrides.items() if value is not None}
            given |= _assigned(assignments if isinstance(assignments, tuple) else ())
            return verb(load_here(given), *args, **kwargs)

        decorated: Any = run
        option = click.option(
            "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting; repeatable."
        )
        decorated = option(decorated)
        decorated = click.option("--config", metavar="FILE", help="Settings file; default ./convene.toml.")(decorated)
        for name in reversed(flags):
            about = settings_of(Config)[name].about
            decorated = click.option(f"--{name.replace('_', '-')}", name, help=f"{about.help}.")(decorated)
        typed: Callable[P, R] = decorated
        return typed

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def put(text: str, *, newline: bool = True) -> None:
    """Write data to stdout."""
    click.echo(text, nl=newline)


def say(text: str) -> None:
    """Write talk to stderr."""
    click.echo(text, err=True)


def put_json(value: object) -> None:
    """Write one JSON value to stdout, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def put_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write aligned columns to stdout, the last one unpadded."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        put("  ".join(cells).rstrip())


def harmless(text: str) -> str:
    """Return text from outside without what could steer a terminal: all control characters but newline and tab."""
    return "".join(letter for letter in text if letter in "\n\t" or (letter >= " " and not "\x7f" <= letter <= "\x9f"))


def readable_bytes(count: int) -> str:
    """Return a size for people: `98.4 MB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:  # noqa: PLR2004 -- a step of the unit
            return f"{size:.1f} {unit}" if unit != "B" else f"{count} B"
        size /= 1000
    return f"{size:.1f} TB"


class ProgressLine:
    """Shows a download: JSON lines on stdout, or one moving line on a terminal, or a line per new status elsewhere."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._moving = sys.stderr.isatty() and not as_json
        self._status = ""
        self._width = 0

    def report(self, step: FetchStep) -> None:
        """Show one step."""
        if self._as_json:
            put(msgspec.json.encode(step).decode())
        elif self._moving:
            line = progress_text(step)
            click.echo("\r" + line.ljust(self._width), err=True, nl=False)
            self._width = len(line)
        elif step.status != self._status:
            say(step.status)
        self._status = step.status

    def close(self) -> None:
        """Leave the moving line."""
        if self._moving and self._width:
            click.echo(err=True)


def progress_text(step: FetchStep) -> str:
    """Return a step as one line with a bar; without a known total, without one."""
    if not step.total:
        return step.status
    share = min(step.completed / step.total, 1.0)
    bar = "#" * int(share * _BAR_WIDTH)
    done = f"{readable_bytes(step.completed)} of {readable_bytes(step.total)}"
    return f"{step.status} [{bar:<{_BAR_WIDTH}}] {share:4.0%} {done}"


def _no_color() -> click.Option:
    return click.Option(
        ["--no-color"], is_flag=True, expose_value=False, callback=_drop_color, help="No colours; so does NO_COLOR."
    )


def _drop_color(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 -- click's own signature
    if value:
        ctx.color = False


def _assigned(assignments: Sequence[str]) -> dict[str, str]:
    given = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise ConfigError(f"flag --set: write KEY=VALUE, as in --set edge.ping_s=5, not {assignment!r}")
        given[key.strip()] = value.strip()
    return given
