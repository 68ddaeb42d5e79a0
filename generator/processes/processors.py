"""How many processors this process may use, and how numerical libraries are told, before they load, to share them.

Threads of OpenMP that wait for work spin by default. Beside other work they take the processors from the threads that have
some: a training ran at 0.17 steps/s beside other work, and at 0.53 with passive waiting under the same load.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def allowed_processors() -> int:
    """Return how many processors this process may use, at least 1: its affinity, and its cgroup's CPU quota rounded up."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux tells
        count = os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(share) for share in _quotas(CGROUPS, OWN_CGROUP))]))


def share_processors(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set passive waiting and the number of threads in the environment, unless the user did; call it before numpy loads.

    `OMP_WAIT_POLICY` is read by GNU's OpenMP (torch), `KMP_BLOCKTIME` (ms) by LLVM's and Intel's, `OMP_NUM_THREADS` by these,
    by MKL and by OpenBLAS. Programs that this one starts inherit them.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.setdefault("KMP_BLOCKTIME", "0")
    environment.setdefault("OMP_NUM_THREADS", str(allowed_processors()))


def _quotas(root: Path, own: Path) -> Iterator[float]:
    """Yield the processors' worth of CPU time that each cgroup of this process, from its own upwards, may use."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":  # version 2: `cpu.max` holds "quota period" or "max period"
            yield from _walk(root, path, _quota_2)
        elif "cpu" in controllers.split(","):
            yield from _walk(root / "cpu", path, _quota_1)


def _walk(root: Path, path: str, quota: Callable[[Path], float | None]) -> Iterator[float]:
    folder = root / path.lstrip("/")
    for place in (folder, *folder.parents):
        share = quota(place)
        if share is not None:
            yield share
        if place == root:
            return


def _quota_2(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    return _share(words[0], words[1]) if len(words) == 2 else None


def _quota_1(folder: Path) -> float | None:
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    return _share(quota[0], period[0]) if quota and period else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _share(quota: str, period: str) -> float | None:
    """Return quota over period, or None where there is no limit ("max", -1)."""
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None
