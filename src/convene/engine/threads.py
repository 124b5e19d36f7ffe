"""How many threads the engine gets: the cores that CPU affinity and the cgroup quota allow, less one for the rest.

Called by `process` when the setting `threads` is 0. The engine's threads wait for each other by spinning, so one that
is not on a core holds up all of them. Measured on 2 cores: alone, 2 threads write as fast as 1 and read prompts 1.7
times as fast; beside two other busy processes 1 thread writes 40 tokens/s and 2 write 8; alone with 4 threads 42.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_OF_SELF = Path("/proc/self/cgroup")


def choose_thread_count(root: Path = CGROUP_ROOT, own: Path = CGROUP_OF_SELF) -> int:
    """Give all usable cores but one, at least one thread: the server itself and the rest of the machine need a core."""
    return max(1, count_usable_cores(root, own) - 1)


def count_usable_cores(root: Path = CGROUP_ROOT, own: Path = CGROUP_OF_SELF) -> int:
    """Give the number of cores this process may keep busy, at least 1. Files that are missing or odd set no limit."""
    cores = count_affine_cores()
    quota = read_quota(root, own)
    if quota is not None:
        # Rounded down: the kernel stops every thread of a group that has spent its share, so a thread too many hurts.
        cores = min(cores, int(quota))
    return max(1, cores)


def count_affine_cores() -> int:
    """Count the cores the scheduler lets this process use; where affinity is unknown, all of them."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no such call
        return os.cpu_count() or 1


def read_quota(root: Path, own: Path) -> float | None:
    """Give the tightest CPU quota, in cores, of this process's cgroup and the groups above it; `None` without one.

    In a container the group's own path is often not visible below `root`; then the root's files are the container's.
    """
    quotas = []
    for folder, version in _list_groups(root, own):
        quota = _read_v2(folder) if version == 2 else _read_v1(folder)  # noqa: PLR2004 - cgroup's own version numbers
        if quota is not None:
            quotas.append(quota)
    return min(quotas, default=None)


def _list_groups(root: Path, own: Path) -> list[tuple[Path, int]]:
    folders: list[tuple[Path, int]] = [(root, 2), (root / "cpu", 1), (root / "cpu,cpuacct", 1)]
    for line in _read(own).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            bases, version = [root], 2
        elif "cpu" in controllers.split(","):
            bases, version = [root / controllers, root / "cpu"], 1
        else:
            continue
        parts = PurePosixPath(path).parts[1:]
        if ".." in parts:  # seen from a cgroup namespace: a group outside it
            continue
        folders += [(base.joinpath(*parts[:depth]), version) for base in bases for depth in range(1, len(parts) + 1)]
    return folders


def _read_v2(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split()
    return _divide(words[0], words[1]) if len(words) == 2 else None  # noqa: PLR2004 - "QUOTA PERIOD"


def _read_v1(folder: Path) -> float | None:
    return _divide(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _divide(quota: str, period: str) -> float | None:
    try:
        quota_us, period_us = int(quota), int(period)
    except ValueError:  # "max", or no such file
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
