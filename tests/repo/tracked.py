"""What no file of the project may hold, whatever its kind: the path of a workplace, the host of a package registry.

Either would tie the project to the machine it was written on. The hosts are spelled in two halves here so that this
file passes its own test.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from repo.modules import ROOT, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

REGISTRY_HOSTS: Final = tuple(
    f"{name}.{rest}"
    for name, rest in (
        ("pypi", "org"),
        ("files.pythonhosted", "org"),
        ("registry.npmjs", "org"),
        ("npmjs", "com"),
        ("registry.yarnpkg", "com"),
        ("proxy.golang", "org"),
        ("static.crates", "io"),
        ("index.crates", "io"),
        ("download.pytorch", "org"),
    )
)

_WORKPLACE = re.compile(r"(?<![\w.~-])/" + r"work/")
_INDEX_OPTION = re.compile(r"--(?:extra-)?index-url|--find-links|--trusted-host|[\"']resolved[\"']:\s*[\"']https?:")


def leaks(path: str, text: str) -> Iterator[Finding]:
    """Find workplace paths, registry hosts and options that name an index."""
    for number, line in enumerate(text.splitlines(), 1):
        if _WORKPLACE.search(line):
            yield Finding(path, number, "a path of the workplace")
        for host in REGISTRY_HOSTS:
            if host in line:
                yield Finding(path, number, f"the registry host {host}")
        if path != "tests/repo/tracked.py" and _INDEX_OPTION.search(line):
            yield Finding(path, number, "names a package index")


def texts() -> Iterator[tuple[str, str]]:
    """Yield path and text of each file that git tracks or would track. Binary files are left out.

    Raises OSError without git, since a walk over the folder would also read what is ignored.
    """
    git = shutil.which("git")
    if git is None:
        raise FileNotFoundError("git is needed to tell tracked files from others")
    command = [git, "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603 - a fixed command
    for path in sorted(set(listing.decode().split("\0")) - {""}):
        try:
            yield path, (ROOT / path).read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue  # a binary, a deletion not yet committed, or a nested repository
