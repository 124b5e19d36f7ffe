"""Throw-away environments under `out/conformance`: one of Python for each family of suites, one folder of npm packages.

Each is made once and again when its pins change (a stamp holds their digest). Python packages are installed by hash
from `requirements/conformance-NAME.txt`, npm packages by the lock beside this file. Called by `suites.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
OUT: Final = ROOT / "out" / "conformance"
REQUIREMENTS: Final = ROOT / "requirements"
SET_UP_S: Final = 1200.0
"""The longest a set-up may take; the largest family is about 450 MB on disk."""
NODE_MAJOR_MIN: Final = 20
LOST: Final = re.compile(r"(OPENAI|CONVENE|ASI|ASI1|CHECK|PYTEST|VIRTUAL_ENV)(_|$)|PYTHON")
"""Variables that would reach into a suite or a server from the user's own shell."""
KEPT: Final = frozenset({"CONVENE_CACHE_DIR"})
"""Where the embedded model's weights lie, so that they are fetched once."""


class Absent(Exception):
    """What a suite needs is not there; the text says what and how to get it."""


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without `LOST`, and with `extra`."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or not LOST.match(name)}
    return kept | dict(extra or {})


def ensure_python(family: str) -> Path:
    """Return the interpreter of the environment for `family`, made if need be. Raises `Absent`."""
    pins = REQUIREMENTS / f"conformance-{family}.txt"
    folder = OUT / f"venv-{family}"
    python = folder / "bin" / "python"
    with _alone(folder):
        if _is_current(folder, pins) and python.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        what = f"the Python packages of {pins.name}"
        _set_up([sys.executable, "-m", "venv", str(folder)], ROOT, what)
        install = ["install", "--require-hashes", "--only-binary", ":all:", "-r", str(pins)]
        _set_up([str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *install], ROOT, what)
        _stamp(folder, pins)
        return python


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one of several runs of tests make an environment, and the others wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure_node(family: str) -> Path:
    """Return the folder with the npm packages of `family`, made if need be. Raises `Absent`."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise Absent(
                f"{tool} is not installed: get Node.js {NODE_MAJOR_MIN} or newer (on Debian: apt-get install npm)"
            )
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607 - the user's
    if int(version.removeprefix("v").split(".")[0]) < NODE_MAJOR_MIN:
        raise Absent(f"Node.js is {version}: the SDKs need {NODE_MAJOR_MIN} or newer")
    source = HERE / f"node-{family}"
    lock = source / "package-lock.json"
    folder = OUT / source.name
    if not _is_current(folder, lock):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        _set_up(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
            folder,
            f"the npm packages of {source.name}",
        )
        _stamp(folder, lock)
    return folder


def ensure_sdist(python: Path, family: str, package: str) -> Path:
    """Return the unpacked source distribution of the `package` that `family` pins, fetched by hash. Raises `Absent`."""
    text = (REQUIREMENTS / f"conformance-{family}.txt").read_text("utf-8")
    pin = re.search(rf"^{re.escape(package)}==(\S+).*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    if pin is None:
        raise ValueError(f"{family} does not pin {package}")
    downloads = OUT / "sources"
    folder = downloads / f"{package}-{pin[1]}"
    if folder.exists():
        return folder
    downloads.mkdir(parents=True, exist_ok=True)
    one = downloads / f"{package}.txt"
    one.write_text(pin[0], "utf-8")
    fetch = ["download", "--no-deps", "--no-binary", package, "--require-hashes", "-r", str(one), "-d", str(downloads)]
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *fetch]
    _set_up(command, downloads, f"the sources of {package} {pin[1]}")
    with tarfile.open(downloads / f"{folder.name}.tar.gz") as archive:
        archive.extractall(downloads, filter="data")
    return folder


def write_pins() -> None:
    """Choose every pin anew: the lock files of both kinds, from `conformance-*.in` and `package.json`."""
    options = "--quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade"
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "compile", *options.split()]
    uv += ["--no-emit-index-url", "--no-emit-find-links"]
    for wanted in sorted(REQUIREMENTS.glob("conformance-*.in")):
        _set_up([*uv, str(wanted), "-o", str(wanted.with_suffix(".txt"))], ROOT, wanted.name)
    for package in sorted(HERE.glob("node-*/package.json")):
        package.with_name("package-lock.json").unlink(missing_ok=True)
        lock = ["npm", "install", "--package-lock-only", "--omit-lockfile-registry-resolved", "--no-audit", "--no-fund"]
        _set_up(lock, package.parent, f"the lock of {package.parent.name}")


def _set_up(command: Sequence[str], folder: Path, what: str) -> None:
    sys.stderr.write(f"   setting up {what} ...\n")
    sys.stderr.flush()
    try:
        subprocess.run(  # noqa: S603 - the commands of this file
            command, cwd=folder, env=clean_environment(), check=True, capture_output=True, text=True, timeout=SET_UP_S
        )
    except FileNotFoundError:
        raise Absent(f"{command[0]} is not there; `make check` sets up the development tools") from None
    except subprocess.TimeoutExpired:
        raise Absent(f"{what}: not set up within {SET_UP_S:g} s") from None
    except subprocess.CalledProcessError as fault:
        why = " ".join(str(fault.stderr or fault.stdout).split())[-400:]
        raise Absent(f"{what} could not be set up (is the package registry reachable?): {why}") from None


def _digest(pins: Path) -> str:
    return hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()


def _is_current(folder: Path, pins: Path) -> bool:
    stamp = folder / ".stamp"
    return stamp.exists() and stamp.read_text("utf-8") == _digest(pins)


def _stamp(folder: Path, pins: Path) -> None:
    (folder / ".stamp").write_text(_digest(pins), "utf-8")
