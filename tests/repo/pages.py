"""What the documentation's tables must say, made from the code: the tests compare, and print the row that is missing.

Not here: prose, which only people can check, and the tests themselves (`test_docs.py`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import msgspec

from convene import config
from convene.api.docs import PAGES, read_page
from convene.api.docs_reference import asked_type_of
from convene.api.openapi import REQUIREMENTS, document
from convene.cli import main
from convene.config_values import expected, settings_of
from convene.engine.catalogue import OPEN_MODELS
from repo.modules import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "": config.SCHEMA.top,
    **config.SCHEMA.sections,
    **config.SCHEMA.tables,
}
"""Every section of the settings and the Struct that declares it."""

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Sample(NamedTuple):
    """One block of code in a page."""

    page: str
    language: str
    code: str


def pages() -> dict[str, str]:
    """Return every page that has a file, by name."""
    return {page.name: read_page(page.name) for page in PAGES if page.name != "reference"}


def samples(*languages: str) -> list[Sample]:
    """Return the code blocks of all pages in these languages, in order."""
    return [
        Sample(name, found[1], found[2])
        for name, text in pages().items()
        for found in _FENCE.finditer(text)
        if found[1] in languages
    ]


def prose(text: str) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", text)


def table_rows(text: str) -> list[tuple[str, ...]]:
    """Return the cells of every table row of a page; an escaped bar is no border."""
    return [
        tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        for line in prose(text).splitlines()
        if line.startswith("|")
    ]


def written(rows: Iterable[tuple[str, ...]]) -> str:
    """Return table rows as a page holds them, ready to paste."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def field_rows(shape: str) -> list[tuple[str, str, str]]:
    """Return field, type and meaning for each field of a request's shape."""
    properties: dict[str, Any] = msgspec.json.decode(document())["components"]["schemas"][shape]["properties"]
    return [(f"`{name}`", asked_type_of(field), field.get("description", "")) for name, field in properties.items()]


def setting_rows(section: str) -> list[tuple[str, str, str, str]]:
    """Return setting, type, default and meaning for each setting of a section."""
    struct = SECTIONS[section]
    defaults = {field.name: field.default for field in msgspec.structs.fields(struct)}
    factories = {field.name: field.default_factory for field in msgspec.structs.fields(struct)}
    rows: list[tuple[str, str, str, str]] = []
    for name, setting in settings_of(struct).items():
        default = defaults[name]
        if default is msgspec.NODEFAULT:
            default = factories[name]()
        meaning = REQUIREMENTS.sub("", setting.about.help)
        rows.append((f"`{name}`", expected(setting), _default(default), meaning))
    return rows


def _default(value: object) -> str:
    if value is None:
        return "unset"
    if value == Path():
        return "the platform's"
    if isinstance(value, config.Secret):
        return '`""`'
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def commands(command: click.Command = main, words: str = "convene") -> Iterator[tuple[str, click.Command]]:
    """Yield every verb that does something, with the words to type."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{words} {name}")
    else:
        yield words, command


def verb_rows() -> list[tuple[str, str]]:
    """Return each verb with its arguments, and the first paragraph of its help."""
    rows = []
    for words, command in commands():
        context = click.Context(command)
        arguments = [one.make_metavar(context) for one in command.params if isinstance(one, click.Argument)]
        meaning = " ".join((command.help or "").split("\n\n")[0].split())
        rows.append((f"`{' '.join([words, *arguments])}`".replace("|", "\\|"), meaning))
    return rows


def model_rows() -> list[tuple[str, str, str, str, str]]:
    """Return what the page of models says of each model that can be pulled by name."""
    return [
        (
            f"`{one.name}`",
            f"{one.bytes_about / 1e9:.1f} GB",
            one.licence,
            f"{one.context_tokens:,} tokens",
            one.note + (", thinks" if one.thinks else ""),
        )
        for one in OPEN_MODELS
    ]


def markdown_files() -> list[Path]:
    """Return every file of the documentation: the pages, `docs/`, and the pages at the root."""
    return sorted(
        [*(ROOT / "src/convene/pages").glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")],
    )
