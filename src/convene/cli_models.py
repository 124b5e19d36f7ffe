"""`convene models`: which models there are, fetch one, remove one. The work is the engine's (`engine/files.py`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
import msgspec

from convene.app_models import fetch_settings
from convene.cli_output import (
    ProgressLine,
    Verbs,
    configured,
    json_option,
    put,
    put_json,
    put_table,
    readable_bytes,
    say,
)
from convene.engine.catalogue import BUILT_IN, OPEN_MODELS
from convene.engine.files import ModelFolder

if TYPE_CHECKING:
    from convene.config import Config


class Line(msgspec.Struct, frozen=True):
    """One model, as listed."""

    name: str
    state: str
    """`here`, `not here` (can be pulled), or `configured` (an upstream serves it)."""
    bytes: int
    """Of the file; 0 = unknown or elsewhere."""
    licence: str
    source: str
    note: str


@click.group("models", cls=Verbs)
def models() -> None:
    """List, pull and remove models."""


@models.command(
    "list",
    examples=(
        "convene models list",
        "convene models list --json",
    ),
)
@json_option
@configured("cache_dir")
def list_all(config: Config, *, as_json: bool) -> None:
    """List the configured models, those in the cache folder, and those that can be pulled."""
    lines = lines_of(config)
    if as_json:
        put_json(lines)
        return
    rows = [
        (line.name, line.state, readable_bytes(line.bytes) if line.bytes else "", line.source, line.note)
        for line in lines
    ]
    put_table(("NAME", "STATE", "SIZE", "SOURCE", "NOTE"), rows)
    say(f"Files are kept in {folder_of(config).path}.")


@models.command(
    "pull",
    examples=(
        "convene models pull smollm2-135m",
        "convene models pull qwen3-0.6b",
        "convene models pull hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf --json",
    ),
)
@click.argument("name")
@json_option
@configured("cache_dir")
def pull(config: Config, name: str, *, as_json: bool) -> None:
    """Fetch a model into the cache folder; a broken download goes on where it stopped. Sums are verified.

    With --json, each step is a line {"status", "digest", "total", "completed"}.
    """
    progress = ProgressLine(as_json=as_json)
    try:
        path = asyncio.run(folder_of(config).pull(name, progress.report))
    finally:
        progress.close()
    if not as_json:
        say(f"The model {name} is here:")
        put(str(path))


@models.command("rm", examples=("convene models rm qwen3-0.6b",))
@click.argument("name")
@configured("cache_dir")
def remove(config: Config, name: str) -> None:
    """Remove a model from the cache folder."""
    freed = folder_of(config).remove(name)
    say(f"Removed {name}; {readable_bytes(freed)} became free.")


def folder_of(config: Config) -> ModelFolder:
    """Return the cache folder's models; `engine.fetch` is about the start and does not bind who asks for a model."""
    return ModelFolder(config.cache_dir, msgspec.structs.replace(fetch_settings(config), fetch=True))


def lines_of(config: Config) -> list[Line]:
    """Return the configured models, then the stored ones, then those of the catalogue that are not stored."""
    stored = folder_of(config).list()
    lines = [
        Line(name, "configured", 0, "", ",".join(model.upstream) or "default", model.model)
        for name, model in config.models.items()
    ]
    lines += [Line(one.name, "here", one.size, one.licence, one.source, _note_of(one.name)) for one in stored]
    here = {one.name for one in stored} | {one.source for one in stored}
    lines += [
        Line(one.name, "not here", one.size, one.licence, one.requirement, one.note)
        for one in BUILT_IN
        if one.name not in here
    ]
    lines += [
        Line(one.name, "not here", one.bytes_about, one.licence, one.source, one.note)
        for one in OPEN_MODELS
        if one.name not in here and one.source not in here
    ]
    return lines


def _note_of(name: str) -> str:
    notes = {one.name: one.note for one in BUILT_IN} | {one.name: one.note for one in OPEN_MODELS}
    return notes.get(name, "")
