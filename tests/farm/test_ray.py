"""The engine on Ray: real clusters on this machine, whose actors and drivers are killed; the store must not feel it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import tiny
from farm_support import hasty
from hypothesis import given
from hypothesis import strategies as st

from generator.building.local import blender_version, build
from generator.console.progress import make_progress
from generator.farm.finish import finish_target
from generator.farm.parts import HeldParts
from generator.farm.ray.cluster import ENVIRONMENT, check_address, check_ray
from generator.farm.ray.pending import MAX_ATTEMPTS, PendingWork, halved, one
from generator.farm.ray.process_folder import process_folder
from generator.farm.target import Target, open_target
from generator.remotes.folder import FolderRemote
from generator.render.executable import VERSION
from generator.store.objects import ClipRecord
from scenes.errors import InputError

pytest.importorskip("ray", reason='Ray is not installed; run pip install "stopdown[ray]"')

ROOT = Path(__file__).parent.parent.parent
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
PLAN = tiny.plan()
CLIPS = sorted(PLAN.clip_by_id)
TIMEOUT_S = 240.0
ACTOR = "ray::StopdownRender"

Hook = Callable[["Build", dict[str, object]], None]


class Build:
    """One driver in a process group of its own, and what it said."""

    def __init__(self, store: Path, *options: str, **environment: str) -> None:
        self.events: list[dict[str, object]] = []
        self.words: list[str] = []
        self.family: set[psutil.Process] = set()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ray_build.py")), str(store), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", **environment},
        )

    def follow(self, hook: Hook | None = None) -> int:
        """Read the events to the end, calling the hook after each; return the exit code."""
        assert self.process.stdout is not None and self.process.stderr is not None
        for line in self.process.stdout:
            try:
                self.events.append(json.loads(line))
            except json.JSONDecodeError:
                self.words.append(line)
                continue
            with contextlib.suppress(psutil.Error):
                self.family.update(psutil.Process(self.process.pid).children(recursive=True))
            if hook is not None:
                hook(self, self.events[-1])
        self.errors = self.process.stderr.read()
        code = self.process.wait(TIMEOUT_S)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def said(self, event: str) -> list[dict[str, object]]:
        """Return the events of a kind."""
        return [seen for seen in self.events if seen["event"] == event]

    def rendering(self) -> list[str]:
        """Return the ids of clips that were begun, in order."""
        states = [str(event["state"]) for event in self.said("worker")]
        return [state.split()[-1] for state in states if state.startswith("rendering")]

    def actors(self) -> list[psutil.Process]:
        """Return the processes of its own cluster that may still render."""
        return [child for child in self.family if is_actor(child)]

    def check_gone(self) -> None:
        """Hold that nothing it started lives on."""
        _, alive = psutil.wait_procs([child for child in self.family if child.is_running()], timeout=TIMEOUT_S)
        assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


class Cluster:
    """A cluster with one raylet that outlives drivers."""

    def __init__(self, address: str, raylet: psutil.Process) -> None:
        self.address, self.raylet = address, raylet

    def actors(self) -> list[psutil.Process]:
        """Return the processes of render actors."""
        return actors(self.raylet)


def actors(above: psutil.Process) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        found = [child for child in above.children(recursive=True) if is_actor(child)]
    return found


def is_actor(process: psutil.Process) -> bool:
    """Whether a process lives and renders."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()).startswith(ACTOR)
    return False


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Return a cluster of two CPUs on this machine."""
    os.environ.update(ENVIRONMENT)
    from ray._private.ray_constants import PROCESS_TYPE_RAYLET
    from ray.cluster_utils import Cluster as RayCluster

    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    made = RayCluster(initialize_head=True, connect=False, head_node_args=head)
    try:
        [raylet] = made.head_node.all_processes[PROCESS_TYPE_RAYLET]
        yield Cluster(made.address, psutil.Process(raylet.process.pid))
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Return a store that was built without a farm, and the seconds that took."""
    path = tmp_path_factory.mktemp("single") / "dataset"
    report = build(PLAN, path, workers=1, threads=1, progress=make_progress(sys.stderr, json_lines=True))
    assert report.complete
    return path, report.wall_s


@pytest.fixture(scope="module")
def expected(single: tuple[Path, float]) -> dict[str, dict[str, object]]:
    """Return what a build without a farm records of every clip, but for its cost."""
    return {clip_id: told(record) for clip_id, record in records(look(single[0])).items()}


def look(store: Path) -> Target:
    return open_target(str(store), PLAN, blender=blender_version())


def records(target: Target) -> dict[str, ClipRecord]:
    """Return the records that are there, by clip id."""
    found = {clip_id: target.record(key) for clip_id, key in target.keys.items()}
    return {clip_id: record for clip_id, record in found.items() if record is not None}


def told(record: ClipRecord) -> dict[str, object]:
    return record.model_dump(mode="json", exclude={"cpu_s"})


def check_finished(store: Path, expected: dict[str, dict[str, object]]) -> None:
    """Hold a store against the build without a farm: equal frames, equal readings, nothing besides."""
    target = look(store)
    assert {clip_id: told(record) for clip_id, record in records(target).items()} == expected
    assert len(list((store / ".stopdown" / "objects").glob("??/*"))) == len(expected)
    assert finish_target(target, message="built on Ray").version is not None
    assert not list(store.rglob(".tmp-*"))


def test_actors_killed_at_random_are_replaced_and_nothing_is_left_of_the_cluster(
    tmp_path: Path, expected: dict[str, dict[str, object]]
) -> None:
    rng, killed, temporary = random.Random(3), [0], tmp_path / "t"
    temporary.mkdir()

    def hook(run: Build, event: dict[str, object]) -> None:
        begun = len(run.rendering())
        if event["event"] == "worker" and begun in (2, 6, 11) and begun not in killed:
            time.sleep(rng.uniform(0.0, 0.05))
            if victims := actors(psutil.Process(run.process.pid)):
                killed.append(begun)
                rng.choice(victims).kill()

    first = Build(tmp_path / "store", "--slots", "2", TMPDIR=str(temporary))
    assert first.follow(hook) == 0, first.errors
    first.check_gone()
    assert len(killed) == 4
    assert sorted(str(event["clip_id"]) for event in first.said("done")) == CLIPS  # each exactly once
    assert max(Counter(first.rendering()).values()) <= 3
    assert not first.words and not first.errors  # Ray prints nothing, though it has much to say about deaths
    assert not list(temporary.glob("stopdown-*"))
    check_finished(tmp_path / "store", expected)


KILLS = (("own", signal.SIGKILL), ("own", signal.SIGINT), ("shared", signal.SIGTERM), ("shared", signal.SIGKILL))


def kill_in_turn(store: Path, cluster: Cluster, gate: Path) -> tuple[dict[str, ClipRecord], list[Build]]:
    """Kill one driver after another, each at its first clip, where it waits for it; return what they leave, and the drivers.

    A slot has one clip in flight, so that each of them finishes three of the 15 clips at most.
    """
    rng, before, runs = random.Random(7), dict[str, ClipRecord](), list[Build]()
    gate.touch()
    for kind, number in KILLS:
        where = ["--address", cluster.address] if kind == "shared" else ["--slots", "2"]
        run = Build(store, *where, "--hold", "1", str(gate))

        def hook(run: Build, event: dict[str, object], number: signal.Signals = number) -> None:
            if len(run.said("done")) == 1 and event["event"] == "done":
                time.sleep(rng.uniform(0.0, 0.03))
                # Ctrl-C is sent to the whole group, as a terminal does.
                (os.killpg if number is signal.SIGINT else os.kill)(run.process.pid, number)

        code = run.follow(hook)
        assert code == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number], run.errors
        assert not run.words and not run.errors
        runs.append(run)
        psutil.wait_procs([*run.actors(), *cluster.actors()], timeout=TIMEOUT_S)
        assert not run.actors() and not cluster.actors()
        after = records(look(store))
        assert before.items() <= after.items()  # what is finished is never rendered again, nor lost
        assert not before.keys() & set(run.rendering())
        before = after
    return before, runs


@pytest.mark.timeout(900)  # five drivers, each of which starts Ray
def test_a_driver_that_is_killed_or_interrupted_leaves_nothing_running_and_the_next_goes_on(
    tmp_path: Path, expected: dict[str, dict[str, object]], cluster: Cluster
) -> None:
    store = tmp_path / "store"
    before, killed = kill_in_turn(store, cluster, tmp_path / "hold")
    assert 0 < len(before) < len(CLIPS)
    last = Build(store, "--address", cluster.address)
    assert last.follow() == 0, last.errors
    assert cluster.raylet.is_running()
    assert {str(event["clip_id"]) for event in last.said("done")} == set(CLIPS) - before.keys()
    check_finished(store, expected)
    for run in killed:
        run.check_gone()  # two agents of Ray's wait a minute for the head that died with the first driver


def test_a_stuck_render_is_stopped_and_its_clip_rendered_elsewhere(
    tmp_path: Path, expected: dict[str, dict[str, object]], cluster: Cluster, single: tuple[Path, float]
) -> None:
    stopped: list[int] = []
    limit_s = round(max(6.0, 2.0 * single[1]))  # what a whole build takes here and now, so that no live clip exceeds it

    def hook(run: Build, event: dict[str, object]) -> None:
        if event["event"] == "worker" and len(run.rendering()) == 5 and not stopped:
            for actor in cluster.actors():
                actor.suspend()
                stopped.append(actor.pid)

    run = Build(tmp_path / "store", "--address", cluster.address, "--time-limit", f"{limit_s}")
    assert run.follow(hook) == 0, run.errors
    assert len(stopped) == 2
    notes = [str(event["message"]) for event in run.said("note")]
    assert any(f"took longer than {limit_s} s and was stopped; trying it again" in note for note in notes)
    assert not run.said("failed")
    check_finished(tmp_path / "store", expected)


def test_a_clip_that_fails_three_times_is_reported_and_the_rest_goes_on(tmp_path: Path, cluster: Cluster) -> None:
    run = Build(tmp_path / "store", "--address", cluster.address, "--poison", "3")
    assert run.follow() == 1, run.errors
    poisoned = {f"tiny-3-{index}" for index in range(3)}
    assert {str(event["clip_id"]) for event in run.said("failed")} == poisoned
    [report] = run.said("report")
    assert isinstance(report["failed"], dict) and report["failed"].keys() == poisoned
    assert all("no-such-kind" in message for message in report["failed"].values())
    assert {clip_id: count for clip_id, count in Counter(run.rendering()).items() if clip_id in poisoned} == dict.fromkeys(
        poisoned, MAX_ATTEMPTS
    )
    assert sorted(str(event["clip_id"]) for event in run.said("done")) == sorted(set(CLIPS) - poisoned)


def test_a_time_limit_that_no_clip_keeps_fails_it_and_the_next_build_makes_it(
    tmp_path: Path, expected: dict[str, dict[str, object]], cluster: Cluster
) -> None:
    store = tmp_path / "store"
    build(PLAN, store, workers=1, threads=1, progress=make_progress(sys.stderr, json_lines=True), message=None)
    target = look(store)
    (store / ".stopdown" / "records" / target.keys[CLIPS[0]][:2] / f"{target.keys[CLIPS[0]]}.json").unlink()
    run = Build(store, "--address", cluster.address, "--time-limit", "1e-6")
    assert run.follow() == 1, run.errors
    [failure] = run.said("failed")
    assert failure["clip_id"] == CLIPS[0] and "took longer than 1e-06 s" in str(failure["message"])
    assert Build(store, "--address", cluster.address).follow() == 0
    check_finished(store, expected)


def test_a_cluster_with_another_blender_is_refused_by_name(tmp_path: Path, cluster: Cluster) -> None:
    run = Build(tmp_path / "store", "--address", cluster.address, **{VERSION: "5.0.99"})
    assert run.follow() == 2
    assert f"has Blender {blender_version()}, this machine has Blender 5.0.99" in run.errors
    assert run.errors.count("\n") == 1 and not run.said("done")


@pytest.mark.parametrize(
    "address", ["nowhere", "ray://127.0.0.1:10001", "127.0.0.1:99999", "127.0.0.1", "", "a:b:1", "127.0.0.1:1"]
)
def test_an_address_that_is_none_or_does_not_answer_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="Ray cluster") as caught:
        check_address(address)
    assert "\n" not in str(caught.value) and f"'{address}'" in str(caught.value)


def test_an_address_that_takes_connections_and_says_nothing_is_refused_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=r"nothing within 1 s") as caught:
            check_address(address, answer_s=1.0)
    assert "\n" not in str(caught.value)


def test_without_ray_the_person_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "stopdown\[ray\]"'):
        check_ray()


def test_the_folder_of_a_dead_process_is_swept_and_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from generator.farm.ray.process_folder import process_folder\n"
        "with process_folder('slot', Path(sys.argv[1])) as folder: print(folder, flush=True); sys.stdin.read()"
    )
    program = [sys.executable, "-c", code, str(tmp_path)]
    others = [subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    folders = [Path(other.stdout.readline().strip()) for other in others if other.stdout is not None]
    for folder in folders:
        os.utime(folder, (0.0, 0.0))
    others[0].kill()
    others[0].wait()
    with process_folder("slot", tmp_path) as mine:
        assert mine.is_dir() and not folders[0].exists() and folders[1].is_dir()
    assert not mine.exists()
    others[1].communicate("")
    assert not folders[1].exists()


@given(st.data())
def test_every_clip_is_settled_once_or_fails_three_times(data: st.DataObject) -> None:
    remote = FolderRemote(Path("unused"))
    held = HeldParts(PLAN, remote, hasty())
    target = Target(where="", remote=remote, plan=PLAN, blender="5.0.1", keys={}, parts=held, of=held.clips)
    work = PendingWork(target, {0: len(CLIPS)})
    settled, failures, poisoned = Counter[str](), Counter[str](), set(data.draw(st.sets(st.sampled_from(CLIPS))))
    while work.left:
        job = work.take()
        assert job is not None
        if len(job.clips) > 1 and (parts := halved(job)) is not None and data.draw(st.booleans()):
            work.give_back(parts[1])
            job = parts[0]
        for clip in job.clips:
            clip_id = clip.clip_id
            if data.draw(st.sampled_from(("render", "lose"))) == "lose":
                work.give_back(one(job, clip))
            elif clip_id in poisoned:
                failures[clip_id] += 1
                assert work.fail(one(job, clip), "poison") is (failures[clip_id] < MAX_ATTEMPTS)
            else:
                settled[clip_id] += 1
                work.finish(clip_id)
    assert work.take() is None
    assert settled == {clip: 1 for clip in CLIPS if clip not in poisoned}
    assert failures == dict.fromkeys(poisoned, MAX_ATTEMPTS)
    assert work.failed == dict.fromkeys(poisoned, "poison")
