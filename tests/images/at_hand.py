"""Tells which torch pip would install here: exit code 0 for one without CUDA, 1 for one that brings gigabytes of it.

    python tests/images/at_hand.py torch==2.13.0

Nothing is installed or downloaded but the metadata. On Linux the builds of the public index are for CUDA; a
build for the processor has `+cpu` in its version. Elsewhere the public ones are small.
Called by `make test-images` and `.ci/run`.
"""

from __future__ import annotations

import json
import subprocess
import sys

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install")
LOOK = ("--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-")
PATIENCE_S = 120.0
HOW = (
    "pip would not install a torch for the processor here (it found {found}), and the one for CUDA is several GB. "
    "Point pip at PyTorch's own index of CPU builds (PIP_EXTRA_INDEX_URL), or choose a build with "
    "TORCH=torch==VERSION+cpu."
)


def judge(report: str, platform: str) -> tuple[str, bool]:
    """Return the version that pip's report names, and whether it does without CUDA."""
    version = str(json.loads(report)["install"][0]["metadata"]["version"])
    return version, not platform.startswith("linux") or version.endswith("+cpu")


def main(requirement: str) -> int:
    """Ask pip and say what came of it."""
    try:
        asked = subprocess.run(  # noqa: S603 - our own interpreter, and a requirement of our own
            [*PIP, *LOOK, requirement], capture_output=True, check=True, text=True, timeout=PATIENCE_S
        )
        found, small = judge(asked.stdout, sys.platform)
    except (subprocess.SubprocessError, ValueError, LookupError, TypeError):
        found, small = "nothing", False
    sys.stderr.write(f"torch {found}\n" if small else HOW.format(found=found) + "\n")
    return 0 if small else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
