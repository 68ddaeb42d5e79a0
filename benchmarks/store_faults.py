"""Ten thousand random schedules of a small build against a simulated store that fails in every way it can.

    python benchmarks/store_faults.py [--schedules 10000] [--first 0] [--json FILE]

A schedule is a seed: shards and finishing clients of the real farm code interleaved at every request, in virtual time, with
errors before and after an effect, late effects, uploads that are cut or torn, requests delivered twice, kills, a full disk and
revoked credentials (tests/farm/fault_schedule.py says what must hold throughout). The result is written every hundred
schedules, and a run that was stopped goes on from its file, as long as neither the farm nor the simulator has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "farm")]

from fault_schedule import Outcome, run_schedule  # noqa: E402

WRITE_EVERY = 100
VERSIONS = ("commit", "gc", "manifest/leaves", "manifest/tree", "sync/push", "sync/compare_refs")
CODE = (
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "generator" / "farm").rglob("*.py")),
    "generator/io/spill_map.py",
    *(f"generator/versions/{name}.py" for name in VERSIONS),
    *(f"tests/farm/{name}.py" for name in ("fault_schedule", "store_simulator", "virtual_farm")),
)


def main() -> None:
    """Run the schedules that are left, and write what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", type=Path, default=RESULTS / "store_faults.json")
    options = parser.parse_args()
    tree = earlier(options.json, options.first) or begin(options.first)
    memory = Path("/dev/shm")  # scratch stores are small, and nothing here is about disks
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        tempfile.tempdir = name
        while tree["schedules"] < options.schedules:
            step(tree, min(WRITE_EVERY, options.schedules - tree["schedules"]))
            options.json.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
            print(f"{tree['schedules']} schedules, {len(tree['broken'])} broken, {tree['cpu_s']:.0f} s CPU", flush=True)
    print(json.dumps(tree, indent=1))
    sys.exit(1 if tree["broken"] else 0)


def begin(first: int) -> dict[str, Any]:
    """Return an empty result."""
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "code": code_digest(),
        "first": first,
        "schedules": 0,
        "ends": {},
        "repaired": 0,
        "requests": 0,
        "faults": {},
        "kills": 0,
        "errors": {},
        "virtual_hours": 0.0,
        "cpu_s": 0.0,
        "broken": [],
    }


def earlier(file: Path, first: int) -> dict[str, Any] | None:
    """Return the result of a run that was stopped, if it is of the same code and seeds."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return dict(tree) if (tree["code"], tree["first"]) == (code_digest(), first) else None


def code_digest() -> str:
    """Return a hash of the code under test and of the simulator."""
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in CODE)).hexdigest()[:16]


def step(tree: dict[str, Any], count: int) -> None:
    """Run the next schedules and add them to the result."""
    start_s = time.process_time()
    for seed in range(tree["first"] + tree["schedules"], tree["first"] + tree["schedules"] + count):
        try:
            with tempfile.TemporaryDirectory() as folder:
                add(tree, run_schedule(seed, Path(folder)))
        except Exception as error:  # every kind of failure is a finding
            tree["broken"].append({"seed": seed, "error": f"{type(error).__name__}: {error}"})
    tree["schedules"] += count
    tree["cpu_s"] += time.process_time() - start_s


def add(tree: dict[str, Any], outcome: Outcome) -> None:
    """Add one schedule."""
    end = "complete" if not outcome.repairs else "resumed after repair"
    tree["ends"][end] = tree["ends"].get(end, 0) + 1
    tree["repaired"] += outcome.repairs
    tree["requests"] += outcome.requests
    tree["kills"] += outcome.kills
    tree["virtual_hours"] += outcome.virtual_s / 3600
    for name, counts in (("faults", outcome.met), ("errors", outcome.errors)):
        tree[name] = dict(sorted((Counter(tree[name]) + counts).items()))


if __name__ == "__main__":
    main()
