"""Kill -9 in pushes and pulls: the remote stays whole, nothing is lost or doubled, the next command goes on."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path

import versions_remote_ops as operations
from versions_remote_ops import copy_of, damages, more
from versions_remote_storage import place_fixture, storage_fixture  # noqa: F401
from versions_support import built, folder_bytes

from generator.remotes.base import RemoteOptions, open_remote
from generator.versions.check import check
from generator.versions.history.history import History
from generator.versions.sync.compare_refs import remote_refs
from generator.versions.sync.pull import clone, pull
from generator.versions.sync.push import push
from generator.versions.working.restore import restore
from generator.versions.working.status import status

KILLS = 10  # that hit a push or a pull under way
TRIES = 40


def kill_in(
    target: Callable[..., None], place: tuple[str, RemoteOptions], path: Path, notes: Path, seed: int, wait_s: float
) -> int:
    """Start work in another process, wait for its first sign of life, kill it; return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["generator.versions.sync.pull", "generator.remotes.s3"])
    process = context.Process(target=target, args=(path, *place, notes, seed), daemon=True)
    size = notes.stat().st_size if notes.exists() else 0
    process.start()
    deadline_s = time.monotonic() + 60
    while not notes.exists() or notes.stat().st_size == size:
        assert time.monotonic() < deadline_s and process.is_alive()
        time.sleep(0.001)
    time.sleep(wait_s)
    process.kill()
    process.join()
    return process.exitcode or 0


def test_kills_in_a_push_leave_the_remote_whole(tmp_path: Path, place: tuple[str, RemoteOptions]) -> None:
    history, _, first = built(tmp_path / "ds", 6, lossless=True)
    remote, notes, draw = open_remote(*place), tmp_path / "notes", random.Random(7)
    halfway = 0
    for number in range(TRIES):
        code = kill_in(operations.pushes, place, history.path, notes, number + 1, draw.uniform(0, 0.2))
        assert code == -9
        copy = tmp_path / "copy"
        copy_of(remote, copy)
        assert damages(remote, copy) == []
        lines = notes.read_text().splitlines()
        halfway += lines[-1] == "pushing"
        told = [line.split()[1] for line in lines if line.startswith("pushed")]
        refs = remote_refs(remote)
        if told:
            assert told[-1] in {version.id for version in History(copy).ancestors(refs["head"].version)}
        if number % 2:
            push(history, remote)
            assert remote_refs(remote)["head"].version == history.refs.head()
        if halfway == KILLS:
            break
    assert halfway == KILLS
    push(history, remote)
    assert damages(remote, tmp_path / "copy") == []
    clone(remote, tmp_path / "clone")
    log = [version.id for version in history.log()]
    assert [version.id for version in History(tmp_path / "clone").log()] == log and log[-1] == first.id
    assert check(History(tmp_path / "clone")).clean and status(History(tmp_path / "clone"), thorough=True).clean


def test_kills_in_a_pull_lose_and_double_nothing(tmp_path: Path, place: tuple[str, RemoteOptions]) -> None:
    history, _, _ = built(tmp_path / "ds", 6, lossless=True)
    remote, notes, draw = open_remote(*place), tmp_path / "notes", random.Random(8)
    push(history, remote)
    clone(remote, tmp_path / "clone")
    copy, codes = History(tmp_path / "clone"), []
    for number in range(TRIES):
        more(history, 100 + number, count=6)
        push(history, remote)
        codes.append(kill_in(operations.pulls, place, copy.path, notes, number, draw.uniform(0, 0.06)))
        kinds = {damage.kind for damage in check(copy).damages if damage.kind not in ("working", "plan")}
        assert not kinds
        if number % 3 == 2:
            pull(copy, remote)
            assert copy.refs.head() == history.refs.head() and status(copy, thorough=True).clean and check(copy).clean
        if codes.count(-9) == KILLS:
            break
    assert codes.count(-9) == KILLS
    pull(copy, remote)
    assert check(copy).clean and status(copy, thorough=True).clean
    restore(history, "latest")
    assert folder_bytes(copy.path) == folder_bytes(history.path)
