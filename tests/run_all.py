"""Runs all tests in three runs of pytest beside each other: those of whole programs wait more than they compute.

    python tests/run_all.py          what `make test` does

Each run has a folder for temporary files of its own. The first one's output is shown as it comes, the others' when they
have ended. The exit status is 0 if all of them passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).resolve().parent
PROGRAMS: Final = TESTS / "process"


def shares() -> list[list[str]]:
    """Return what each run is given: everything but the programs, and every other one of these."""
    files = sorted(path for path in PROGRAMS.glob("test_*.py"))
    rest = sorted(path for path in TESTS.iterdir() if path.is_dir() and path != PROGRAMS and any(path.rglob("test_*")))
    return [[str(path) for path in group] for group in (rest, files[::2], files[1::2])]


def main() -> int:
    """Run them and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="convene-tests-", ignore_cleanup_errors=True) as folder:
        running = []
        for number, share in enumerate(shares()):
            room = Path(folder) / str(number)
            room.mkdir()
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *share]
            environment = os.environ | {"PYTEST_DEBUG_TEMPROOT": str(room)}
            output = None if number == 0 else (room / "output").open("wb+")
            process = subprocess.Popen(command, env=environment, stdout=output)  # noqa: S603 -- ourselves
            running.append((process, output))
        failed = 0
        for process, output in running:
            failed |= process.wait()
            if output is not None:
                output.seek(0)
                sys.stdout.write(output.read().decode(errors="replace"))
                sys.stdout.flush()
                output.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
