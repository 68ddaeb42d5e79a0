"""Law 6: a build killed at any instant goes on where it was; nothing is lost, nothing is rendered twice. Real processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import tiny

from generator.building.local import blender_version
from generator.store.objects import ClipRecord, Store
from generator.store.record_keys import clip_key

ROOT = Path(__file__).parent.parent.parent
PLAN = tiny.plan()
KEYS = {clip.clip_id: clip_key(PLAN, clip, blender_version()) for clip in PLAN.clips}
TIMEOUT_S = 600.0
HELD = 3  # clips after which the parent waits to be killed: two render processes finish two scenes by then, of five
pytestmark = pytest.mark.timeout(1800)  # dozens of processes that load Blender, on a machine that may be busy

Hook = Callable[["Build", dict[str, object]], None]


class Build:
    """One run of the tiny build in a process group of its own, and what it said."""

    def __init__(self, path: Path, *, hold: int | None = None, **options: object) -> None:
        self.path = path
        gate = path.with_suffix(".hold")
        held = [] if hold is None else ["--hold", str(hold), str(gate)]
        if held:
            gate.touch()
        self.before = records(path)
        self.events: list[dict[str, object]] = []
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent.parent / "tiny.py"), str(path), *held],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths},
            **options,
        )

    def follow(self, hook: Hook | None = None) -> int:
        """Read the events to the end, calling the hook after each; return the exit code."""
        assert self.process.stdout is not None and self.process.stderr is not None
        for line in self.process.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # a killed process may leave half a line
                self.events.append(json.loads(line))
                if hook is not None:
                    hook(self, self.events[-1])
        self.errors = self.process.stderr.read()
        code = self.process.wait(TIMEOUT_S)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def workers(self) -> list[psutil.Process]:
        """Return the live render processes."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        except psutil.Error:
            return []

    def started(self) -> list[str]:
        """Return the ids of the clips that it began, in order."""
        states = [str(event.get("state", "")) for event in self.events]
        return [state.split()[-1] for state in states if state.startswith("rendering")]

    def check(self) -> None:
        """Hold the law: records only grow and are true, and no clip that was finished is begun again."""
        after = records(self.path)
        for clip_id, (stamp, record) in self.before.items():
            assert after[clip_id] == (stamp, record)
            assert clip_id not in self.started()
        store = Store(self.path / ".stopdown")
        for _, record in after.values():
            assert hashlib.sha256(store.path(record.sha256_bytes).read_bytes()).hexdigest() == record.sha256_bytes


def records(path: Path) -> dict[str, tuple[int, ClipRecord]]:
    """Return by clip id when its record was written, and the record."""
    store = Store(path / ".stopdown")
    found = {}
    for clip_id, key in KEYS.items():
        record = store.finished(key)
        if record is not None:
            file = store.root / "records" / key[:2] / f"{key}.json"
            found[clip_id] = (file.stat().st_mtime_ns, record)
    return found


def contents(path: Path) -> dict[str, str]:
    """Return the sha256 of every file that a person sees; for the labels, of their rows."""
    files = [file for file in path.rglob("*") if file.is_file() and ".stopdown" not in file.parts]
    found = {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    found["labels.parquet"] = repr(pq.read_table(path / "labels.parquet").to_pylist())
    return found


def leftovers(path: Path) -> list[Path]:
    return [*path.rglob(".tmp-*"), *(path / ".stopdown" / "logs").glob("*")]


def finish(path: Path, expected: dict[str, str]) -> None:
    """Run the build to its end and hold it against an uninterrupted one."""
    last = Build(path)
    assert last.follow() == 0, last.errors
    last.check()
    assert contents(path) == expected
    assert not leftovers(path)
    assert len(list((path / ".stopdown" / "objects").glob("??/*"))) == len(KEYS)  # no orphans of torn writes


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the contents of a dataset that was built without interruption."""
    path = tmp_path_factory.mktemp("whole") / "dataset"
    whole = Build(path)
    assert whole.follow() == 0, whole.errors
    assert sorted(whole.started()) == sorted(KEYS)
    return contents(path)


def kill_group(build: Build) -> None:
    """Kill everything at once, as a batch system or a power cut does."""
    os.killpg(build.process.pid, signal.SIGKILL)


def kill_parent(build: Build) -> None:
    """Kill the parent alone; its render processes must end by themselves."""
    orphans = build.workers()
    build.process.kill()
    _, alive = psutil.wait_procs(orphans, timeout=TIMEOUT_S)
    assert not alive


def interrupt(build: Build) -> None:
    """Press Ctrl-C: the terminal signals the whole group."""
    os.killpg(build.process.pid, signal.SIGINT)


def kill_repeatedly(path: Path, kill: Callable[[Build], None], rng: random.Random) -> None:
    """Kill three builds of a dataset and hold the law after each; the last leaves clips done and clips to do."""
    # The first dies while Blender loads; each later one some random milliseconds after some number of clips.
    for finished, hold in ((0, 0), (rng.randint(1, 2), HELD), (1, HELD)):
        build = Build(path, hold=hold)
        trigger = "done" if finished else "worker"

        def hook(run: Build, event: dict[str, object], word: str = trigger, count: int = max(1, finished)) -> None:
            if event["event"] == word and sum(seen["event"] == word for seen in run.events) == count:
                time.sleep(rng.uniform(0.0, 0.06))
                kill(run)

        code = build.follow(hook)
        build.check()
        if kill is interrupt:
            assert code == 130 or (code and not finished)
            assert not leftovers(path / ".stopdown" / "logs")
        else:
            assert code == -signal.SIGKILL
    assert 0 < len(records(path)) < len(KEYS)


@pytest.mark.parametrize("kill", [kill_group, kill_parent, interrupt])
def test_a_build_killed_again_and_again_is_finished_by_the_last_run(
    tmp_path: Path, expected: dict[str, str], kill: Callable[[Build], None]
) -> None:
    path = tmp_path / "dataset"
    kill_repeatedly(path, kill, random.Random(kill.__name__))
    finish(path, expected)


def test_render_processes_killed_at_random_are_replaced(tmp_path: Path, expected: dict[str, str]) -> None:
    rng, path = random.Random(5), tmp_path / "dataset"
    killed: list[int] = []

    def hook(run: Build, event: dict[str, object]) -> None:
        begun = len(run.started())
        loading = event.get("state") == "loading Blender" and not killed
        if loading or (event["event"] == "worker" and begun in (2, 7, 11) and begun not in killed):
            killed.append(0 if loading else begun)
            time.sleep(rng.uniform(0.0, 0.05))
            if victims := run.workers():
                rng.choice(victims).kill()

    build = Build(path)
    code = build.follow(hook)
    build.check()
    assert len(killed) == 4
    assert code == 0, build.errors
    assert any(event["event"] == "note" and "signal 9" in str(event["message"]) for event in build.events)
    done = [event["clip_id"] for event in build.events if event["event"] == "done"]
    assert sorted(done) == sorted(KEYS)  # each exactly once
    finish(path, expected)


def test_a_second_build_of_the_same_folder_is_refused(tmp_path: Path, expected: dict[str, str]) -> None:
    refused: list[tuple[int, str]] = []

    def hook(run: Build, event: dict[str, object]) -> None:
        if event["event"] == "done" and not refused:
            second = Build(run.path)
            refused.append((second.follow(), second.errors))
            run.path.with_suffix(".hold").unlink()

    first = Build(tmp_path / "dataset", hold=1)
    assert first.follow(hook) == 0
    assert refused[0][0] == 2 and "another build" in refused[0][1] and refused[0][1].count("\n") == 1
    assert contents(tmp_path / "dataset") == expected


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a small file system in memory; skips the test where that is not allowed."""
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"cannot mount a small disk: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_ends_the_build_with_one_line(tmp_path: Path, expected: dict[str, str]) -> None:
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        ballast = disk / "ballast"

        def hook(run: Build, event: dict[str, object]) -> None:
            if event["event"] == "done" and not ballast.exists():
                with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while True:
                        file.write(b"\0" * 4096)

        build = Build(disk / "dataset")
        code = build.follow(hook)
        build.check()
        assert code == 1
        assert "No space left on device" in build.errors and "run the same command again" in build.errors
        assert build.errors.count("\n") == 1
        assert 0 < len(records(disk / "dataset")) < len(KEYS)
        ballast.unlink()
        finish(disk / "dataset", expected)


def test_a_disk_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        build = Build(disk / "dataset")
        assert build.follow() == 2
        assert "no space" in build.errors and "MB free" in build.errors and build.errors.count("\n") == 1
        assert not list(disk.iterdir())


def test_files_that_may_not_grow_fail_their_clips_and_break_nothing(tmp_path: Path, expected: dict[str, str]) -> None:
    path = tmp_path / "dataset"
    first = Build(path)
    first.follow(lambda run, event: kill_group(run) if event["event"] == "done" else None)
    finished = records(path)
    soft = 1000  # bytes: less than any clip
    limited = Build(path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, soft)))
    assert limited.follow() == 1
    limited.check()
    assert records(path) == finished
    assert not leftovers(path)
    finish(path, expected)
