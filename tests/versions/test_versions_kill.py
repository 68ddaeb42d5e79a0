"""Kill -9 at random instants, many committers at once, gc beside a writer: nothing lost, nothing doubled."""

from __future__ import annotations

import multiprocessing
import random
import time
from itertools import pairwise
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import versions_kill_ops as operations
from versions_support import built, commit_clips, folder_bytes, make_clips, origin, references, table, without

from generator.versions.check import check
from generator.versions.commit import extend
from generator.versions.gc import gc
from generator.versions.history.history import History
from generator.versions.manifest.leaves import read_rows
from generator.versions.working.restore import restore
from generator.versions.working.status import status

KILLS = {"commit": 20, "whole": 10, "restore": 16, "gc": 12, "tag": 10}


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    """Return a context whose processes start at once, because a server has imported everything."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["generator.versions.commit", "generator.versions.gc", "generator.versions.working.restore"])
    return server


def kill_at_random(context: ForkServerContext, operation: str, path: Path, notes: Path, seed: int, draw: random.Random) -> None:
    """Start an operation, wait for its first sign of life, kill it at a random instant after that."""
    process = context.Process(target=operations.run, args=(operation, path, notes, seed), daemon=True)
    before = notes.stat().st_size if notes.exists() else 0
    process.start()
    deadline_s = time.monotonic() + 60
    while not notes.exists() or notes.stat().st_size == before:
        assert process.is_alive() and time.monotonic() < deadline_s, f"{operation} did not get going"
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.12))
    process.kill()
    process.join()
    assert process.exitcode == -9


@pytest.mark.parametrize("operation", KILLS)
def test_a_kill_at_any_instant_loses_and_doubles_nothing(tmp_path: Path, context: ForkServerContext, operation: str) -> None:
    history, clips, first = built(tmp_path / "ds", 9, lossless=True)
    one = folder_bytes(history.path)
    commit_clips(history, without(clips, *list(clips)[:3]), "second")
    draw, notes = random.Random(operation), tmp_path / "notes"
    for number in range(KILLS[operation]):
        kill_at_random(context, operation, history.path, notes, number + 1, draw)
        _next_command_works(history, operation, number, clips, one)
    _all_is_there(history, notes, first.id)


def _next_command_works(history: History, operation: str, number: int, clips: dict, one: dict[str, bytes]) -> None:
    damages = [damage for damage in check(history).damages if "cut off" not in damage.message and damage.kind != "working"]
    assert damages == []
    if operation in ("commit", "whole"):
        more = make_clips(history.store, 1, seed=500_000 + number)
        assert extend(history, table(more), references(more), origin("after the kill")).id == history.refs.head()
    elif operation == "restore":
        restore(history, "latest~1")  # without force: a kill is no uncommitted work
        now = folder_bytes(history.path)
        assert {k: v for k, v in now.items() if k != "labels.parquet" and not Path(k).name.startswith(".tmp-")} == {
            k: v for k, v in one.items() if k != "labels.parquet"
        }
        assert status(history, thorough=True).clean
    elif operation == "gc":
        gc(history, grace_s=0)
    else:
        history.tag("after", "latest", move=True)
    assert all(record is not None and history.store.finished(record.key) for _, record in clips.values())


def _all_is_there(history: History, notes: Path, first_id: str) -> None:
    log = [version.id for version in history.log()]
    assert len(log) == len(set(log)) and log[-1] == first_id
    lines = [line.split() for line in notes.read_text().splitlines()]
    told = [line[1] for line in lines if line[0] == "done"]
    assert set(told) <= set(log)
    have = read_rows(history.store, history.manifest(history.version()), ("clip_id",))["clip_id"].to_pylist()
    assert len(have) == len(set(have))
    for line in lines:
        if line[0] == "done" and line[2] != "-":
            assert sum(clip_id.startswith(f"flyby-s{line[2]}-") for clip_id in have) == 3
        elif line[0] == "try":
            assert sum(clip_id.startswith(f"flyby-s{line[1]}-") for clip_id in have) in (0, 3)
    gc(history, grace_s=0)
    restore(history, "latest")
    assert check(history).clean and status(history, thorough=True).clean
    assert not list(history.path.rglob(".tmp-*"))


def _finish(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def test_four_processes_commit_at_once(tmp_path: Path, context: ForkServerContext) -> None:
    history, _, first = built(tmp_path / "ds", 3)
    notes, count = tmp_path / "notes", 8
    processes = [context.Process(target=operations.extends, args=(history.path, notes, seed, count)) for seed in (1, 2, 3, 4)]
    for process in processes:
        process.start()
    _finish(processes)
    log = list(history.log())
    assert len(log) == 1 + 4 * count and log[-1] == first
    assert {line.split()[1] for line in notes.read_text().splitlines()} == {version.id for version in log[:-1]}
    assert all(later.parents == (earlier.id,) for later, earlier in pairwise(log))
    assert log[0].summary.clips == 3 + 4 * count * 2 and check(history, [version.id for version in log]).clean
    gc(history, grace_s=0)
    assert log[0].summary.clips == read_rows(history.store, history.manifest(log[0])).num_rows and check(history).clean


def test_collecting_beside_committers_takes_nothing_from_them(tmp_path: Path, context: ForkServerContext) -> None:
    history, _, _ = built(tmp_path / "ds", 3)
    notes = tmp_path / "notes"
    collector = context.Process(target=operations.collects, args=(history.path, tmp_path / "gc", 0), daemon=True)
    writers = [context.Process(target=operations.extends, args=(history.path, notes, seed, 12)) for seed in (1, 2)]
    for process in (collector, *writers):
        process.start()
    _finish(writers)
    assert collector.is_alive()
    collector.kill()
    collector.join()
    assert history.version().summary.clips == 3 + 2 * 12 * 2
    assert "collected" in (tmp_path / "gc").read_text()
    restore(history, "latest")
    assert check(history).clean
