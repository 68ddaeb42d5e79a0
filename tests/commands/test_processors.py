"""Numerical libraries share the processors: as many threads as affinity and cgroup allow, and waiting threads sleep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from generator.processes import processors
from generator.processes.processors import allowed_processors, share_processors

ROOT = Path(__file__).parent.parent.parent
NAMES = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
CHILD = """
import json, os, sys
before = {name for name in ("numpy", "torch", "bpy") if name in sys.modules}
sys.argv = ["stopdown", "--version"]
import stopdown
try:
    stopdown.main()
except SystemExit:
    pass
assert not before and "numpy" not in sys.modules
from threadpoolctl import threadpool_info
import numpy
import importlib.util
if importlib.util.find_spec("torch"):
    import torch
told = {pool["internal_api"]: pool["num_threads"] for pool in threadpool_info()}
print(json.dumps([dict(os.environ), sorted(set(told.values()))]))
"""


def started(**variables: str) -> tuple[dict[str, str | None], list[int]]:
    """Return what a command set, and the threads that the libraries it loads then take, on one processor."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | variables
    first = min(os.sched_getaffinity(0))
    made = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=environment | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: os.sched_setaffinity(0, {first}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    names, threads = json.loads(made.stdout.splitlines()[-1])
    return {name: names.get(name) for name in NAMES}, threads


def test_a_command_waits_passively_on_as_many_threads_as_it_may_use() -> None:
    assert started() == ({"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OMP_NUM_THREADS": "1"}, [1])


def test_what_the_user_set_stays() -> None:
    names, _ = started(OMP_WAIT_POLICY="ACTIVE", OMP_NUM_THREADS="3")
    assert names == {"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": None, "OMP_NUM_THREADS": "3"}


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({"cpu.max": "max 100000"}, "0::/", 8),
        ({"cpu.max": "250000 100000"}, "0::/", 3),
        ({"cpu.max": "max 100000", "a/cpu.max": "150000 100000", "a/b/cpu.max": "400000 100000"}, "0::/a/b", 2),
        ({"a/cpu.max": "10000 100000"}, "0::/a", 1),
        ({"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/a\n0::/", 3),
        ({"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/a", 8),
        ({"cpu.max": "nonsense"}, "0::/", 8),
        ({}, "0::/nowhere", 8),
    ],
)
def test_the_quota_of_every_cgroup_above_counts(
    files: dict[str, str], own: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, words in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(words + "\n")
    (tmp_path / "own").write_text(own + "\n")
    monkeypatch.setattr(processors, "CGROUPS", tmp_path / "root")
    monkeypatch.setattr(processors, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert allowed_processors() == expected
    environment: dict[str, str] = {}
    share_processors(environment)
    assert environment["OMP_NUM_THREADS"] == str(expected)
