"""Building on a Ray cluster: one render actor per slot, each with Blender warm, and a driver that hands out clips.

A slot has one clip in flight, so that a death has one guilty clip and every clip its own time limit. Actors publish what they
render and return ids; whatever is killed, the records in the store say what is left.
"""

from __future__ import annotations

import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from generator.building.heartbeat import RENDERING, HeartbeatProgress, HeartbeatWriter
from generator.card.origin import engine_version
from generator.console.progress import Progress
from generator.errors import NoSpaceError, RenderError, StoreError
from generator.farm.parts import header
from generator.farm.ray.actor import ActorSettings, Machine, Outcome, StoreTrouble, actor_class
from generator.farm.ray.cluster import check_address, check_ray, connected
from generator.farm.ray.pending import MAX_ATTEMPTS, PendingWork, halved, missing_counts, one
from generator.farm.shards import time_limit_s as estimated_limit_s
from generator.farm.target import Target
from generator.processes.processors import allowed_processors
from generator.render.messages import ClipJob, Done, Failed, NoSpace, SceneJob, WorkerSettings
from scenes.errors import InputError, StopdownError

RECYCLE_CLIPS = 500
MAX_DEAD_STARTS = 3
LOAD_S = 600.0  # Blender's files may come over a slow network
CLOSE_S = 5.0
LOOK_EVERY_S = 5.0  # how often machines that have come or gone are looked for
SILENT_S = 60.0  # without any slot for so long, the person is told what is waited for


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """What an engine did: clips in the store since it began, messages of those that failed, their cost."""

    rendered: int
    failed: dict[str, str]
    cpu_s: float
    wall_s: float

    @property
    def complete(self) -> bool:
        """Whether every clip is in the store."""
        return not self.failed


def build_on_ray(
    target: Target,
    *,
    address: str | None,
    slots: int | None,
    threads: int,
    progress: Progress,
    time_limit_s: float | None = None,
    recipe_folder: Path | None = None,
) -> EngineReport:
    """Render and publish what a target lacks on the Ray cluster at an address ('auto', HOST:PORT; None: one of our own here).

    `slots` clips are rendered at once with `threads` CPUs each; None is as many as the cluster has CPUs for, also when machines
    come or go. A clip that takes longer than `time_limit_s` (None: from the plan's estimate) is stopped; one that fails three
    times is in the report, and the rest goes on. Killed or interrupted, the same call goes on.
    Raises InputError for options, an address or machines that cannot be used, StoreError when the target takes no clips.
    """
    _check_options(slots, threads, time_limit_s)
    check_ray()
    start_s = time.monotonic()
    counts = missing_counts(target)
    missing = sum(counts.values())
    if not missing:
        return EngineReport(rendered=0, failed={}, cpu_s=0.0, wall_s=time.monotonic() - start_s)
    if address is not None:
        check_address(address)
    target.take_scene(recipe_folder)
    limit_s = time_limit_s if time_limit_s is not None else estimated_limit_s(target.plan.recipe, threads)
    local = min(missing, slots or max(1, allowed_processors() // threads)) if address is None else None
    with ExitStack() as stack:
        writer = stack.enter_context(
            HeartbeatWriter(target, f"ray-{_plain(socket.gethostname())}", "ray", slots=local or slots or 1)
        )
        telling = HeartbeatProgress(progress, writer)
        telling.start(target.of, target.of - missing)
        stack.callback(telling.close)
        folder = stack.enter_context(connected(address, (local or 1) * threads))
        settings = _settings(target, folder, threads)
        work = PendingWork(target, counts)
        stack.callback(work.close)
        driver = Driver(target, settings, work, telling, writer, slots=local or slots, limit_s=limit_s)
        driver.run()
        rendered = missing - len(work.failed)
        return EngineReport(rendered=rendered, failed=work.failed, cpu_s=driver.cpu_s, wall_s=time.monotonic() - start_s)


@dataclass(eq=False, kw_only=True)
class _Slot:
    """One render actor, the one call it has in flight, and what it is to render next."""

    number: int
    actor: Any
    doing: str
    call: Any
    deadline_s: float | None = None
    machine: Machine | None = None
    clip: SceneJob | None = None
    todo: list[ClipJob] = field(default_factory=list)
    scene: SceneJob | None = None
    clips: int = 0

    @property
    def left(self) -> SceneJob | None:
        """What it has yet to begin."""
        return replace(self.scene, clips=tuple(self.todo)) if self.scene is not None and self.todo else None


class Driver:
    """Hands clips to slots, one at a time, listens, and replaces what dies; needs a connection to a cluster."""

    def __init__(
        self,
        target: Target,
        settings: ActorSettings,
        work: PendingWork,
        progress: Progress,
        writer: HeartbeatWriter,
        *,
        slots: int | None,
        limit_s: float,
    ) -> None:
        import ray

        self.work = work
        self.cpu_s = 0.0
        self._ray: Any = ray  # half typed
        self._progress, self._writer = progress, writer
        self._wanted_slots, self._limit_s = slots, limit_s
        self._threads, self._blender = settings.worker.threads, target.blender
        self._arguments = ray.put(_without_clips(target)), ray.put(settings)
        self._class = ray.remote(actor_class()).options(num_cpus=self._threads, max_restarts=0, max_task_retries=0)
        self._slots: dict[int, _Slot] = {}
        self._given_up: set[int] = set()
        self._lost: set[str] = set()
        self._dead_starts = 0
        self._looked_s = float("-inf")
        self._alone_s = time.monotonic()

    def run(self) -> None:
        """Render until nothing is left; ends every actor, however it ends."""
        try:
            while self.work.left:
                self._keep_slots()
                self._assign()
                calls = {slot.call: slot for slot in self._slots.values() if slot.call is not None}
                for call in self._heard(list(calls)):
                    self._hear(calls[call])
                self._stop_stuck()
        finally:
            closing = [slot.actor.close.remote() for slot in self._slots.values() if slot.doing == "idle"]
            if closing:
                self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
            for slot in self._slots.values():
                self._end(slot)

    def _heard(self, calls: list[Any]) -> list[Any]:
        """Return the calls that have come back, after waiting for one or for something else to do."""
        now = time.monotonic()
        deadlines = [slot.deadline_s for slot in self._slots.values() if slot.deadline_s is not None]
        timeout_s = min([LOOK_EVERY_S, *(max(0.0, deadline_s - now) for deadline_s in deadlines)])
        first, _ = self._ray.wait(calls, num_returns=1, timeout=timeout_s)
        if not first:
            return []
        return list(self._ray.wait(calls, num_returns=len(calls), timeout=0)[0])

    def _keep_slots(self) -> None:
        """Begin slots that are wanted; now and then, see which machines have come and gone."""
        now = time.monotonic()
        if now - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now
            self._wanted = self._wanted_slots or self._room()
            if any(slot.machine is not None for slot in self._slots.values()):
                self._alone_s = now
            elif now - self._alone_s >= SILENT_S:
                self._alone_s = now
                self._progress.note(f"no machine of the cluster has {self._threads} free CPUs; waiting for one")
        number = 0
        while len(self._slots) < min(max(1, self._wanted - len(self._given_up)), self.work.left):
            if number not in self._slots and number not in self._given_up:
                self._begin(number)
            number += 1

    def _room(self) -> int:
        """Return how many slots the machines of the cluster have CPUs for, and never less than one: it asks for a machine."""
        alive = (node["Resources"] for node in self._ray.nodes() if node["Alive"])
        return max(1, sum(int(resources.get("CPU", 0.0) // self._threads) for resources in alive))

    def _begin(self, number: int) -> None:
        actor = self._class.remote()
        self._slots[number] = _Slot(number=number, actor=actor, doing="starting", call=actor.about.remote())
        self._progress.worker(number, "waiting for a machine")

    def _assign(self) -> None:
        for slot in list(self._slots.values()):
            if slot.doing != "idle":
                continue
            if not slot.todo:
                job = self.work.take() or self._taken_from_another()
                if job is None:
                    continue
                slot.scene, slot.todo = job, list(job.clips)
            assert slot.scene is not None
            slot.clip = one(slot.scene, slot.todo.pop(0))
            self._call(slot, "rendering", slot.actor.render.remote(slot.clip), self._limit_s)
            self._progress.worker(slot.number, f"{RENDERING}{slot.clip.clips[0].clip_id}")

    def _taken_from_another(self) -> SceneJob | None:
        """Return half of what the slot with most to do has yet to begin; clips that share a render stay together."""
        longest = max(self._slots.values(), key=lambda slot: len(slot.todo))
        parts = halved(longest.left) if longest.left is not None else None
        if parts is None:
            return None
        longest.todo = list(parts[0].clips)
        return parts[1]

    def _call(self, slot: _Slot, doing: str, call: Any, limit_s: float) -> None:
        slot.doing, slot.call, slot.deadline_s = doing, call, time.monotonic() + limit_s

    def _hear(self, slot: _Slot) -> None:
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(slot.call)
        except errors.RayTaskError as error:
            if isinstance(error.cause, StopdownError):  # its store refuses, or a file of the recipe is not there
                raise StoreError(f"{error.cause} (said by {self._host(slot)})") from None
            self._bury(slot, f"{type(error.cause).__name__}: {error.cause}")
            return
        except errors.RayError as error:
            self._bury(slot, self._cause(slot, error))
            return
        slot.call = slot.deadline_s = None
        if slot.doing == "starting":
            slot.machine = Machine(**answer)
            check_machine(slot.machine, self._blender)
            self._call(slot, "loading", slot.actor.load.remote(*self._arguments), LOAD_S)
            self._progress.worker(slot.number, f"loading Blender on {slot.machine.host}")
        elif slot.doing == "loading":
            slot.doing, self._dead_starts = "idle", 0
        else:
            self._settle(slot, answer)

    def _settle(self, slot: _Slot, outcome: Outcome) -> None:
        assert slot.clip is not None
        job, slot.clip, slot.doing = slot.clip, None, "idle"
        self._progress.worker(slot.number, "idle")
        match outcome:
            case Done(clip_id, cpu_s):
                self.work.finish(clip_id)
                self.cpu_s += cpu_s
                self._progress.done(clip_id)
                self._writer.done(clip_id, cpu_s)
            case Failed(_, message):
                self._fail(job, message)
            case NoSpace(message):
                raise NoSpaceError(f"{message} on {self._host(slot)}; free some space there and run the same command again")
            case StoreTrouble(message):
                raise StoreError(f"{message} (said by {self._host(slot)}; run the same command again to go on)")
        slot.clips += 1
        if slot.clips >= RECYCLE_CLIPS:
            self._ray.wait([slot.actor.close.remote()], timeout=CLOSE_S)
            self._replace(slot)

    def _fail(self, job: SceneJob, message: str) -> None:
        clip_id = job.clips[0].clip_id
        if self.work.fail(job, message):
            self._progress.note(f"clip {clip_id}: {message}; trying it again")
        else:
            self._progress.failed(clip_id, f"{message} ({MAX_ATTEMPTS} attempts)")

    def _stop_stuck(self) -> None:
        now = time.monotonic()
        for slot in list(self._slots.values()):
            if slot.deadline_s is not None and now >= slot.deadline_s:
                limit_s = self._limit_s if slot.doing == "rendering" else LOAD_S
                self._bury(slot, f"{slot.doing} on {self._host(slot)} took longer than {limit_s:g} s and was stopped")

    def _bury(self, slot: _Slot, words: str) -> None:
        """Replace an actor that is dead or to be stopped; its clip has failed once, unless its whole machine is gone."""
        lost = slot.machine is not None and not self._is_there(slot.machine)
        if lost:
            assert slot.machine is not None
            if slot.machine.node not in self._lost:
                self._lost.add(slot.machine.node)
                self._looked_s = float("-inf")
                self._progress.note(f"machine {slot.machine.host} ({slot.machine.node[:8]}) is lost; its clips go to others")
            if slot.clip is not None:
                self.work.give_back(slot.clip)
        elif slot.clip is not None:
            self._fail(slot.clip, words)
        else:
            self._count_dead_start(slot, words)
        slot.clip = None
        self._replace(slot)

    def _count_dead_start(self, slot: _Slot, words: str) -> None:
        self._dead_starts += 1
        self._progress.note(f"render actor {slot.number + 1} did not come up: {words}")
        if self._dead_starts < MAX_DEAD_STARTS:
            return
        if not any(other.doing in ("idle", "rendering") for other in self._slots.values() if other is not slot):
            raise RenderError(f"Blender does not come up: {words}; try `python -c 'import bpy'` there")
        self._dead_starts = 0
        self._given_up.add(slot.number)
        self._progress.note(f"going on without render actor {slot.number + 1}")

    def _replace(self, slot: _Slot) -> None:
        """End a slot's actor; what it had yet to begin goes to others, and the next look begins a new one."""
        if slot.left is not None:
            self.work.give_back(slot.left)
        self._end(slot)
        del self._slots[slot.number]
        self._progress.worker(slot.number, "ended")

    def _end(self, slot: _Slot) -> None:
        self._ray.kill(slot.actor, no_restart=True)

    def _is_there(self, machine: Machine) -> bool:
        return any(node["NodeID"] == machine.node and node["Alive"] for node in self._ray.nodes())

    def _cause(self, slot: _Slot, error: Exception) -> str:
        ended = "was stopped for want of memory" if type(error).__name__ == "OutOfMemoryError" else "died"
        return f"the render actor on {self._host(slot)} {ended}"

    def _host(self, slot: _Slot) -> str:
        return "a machine" if slot.machine is None else f"{slot.machine.host} (process {slot.machine.pid})"


def check_machine(machine: Machine, blender: str) -> None:
    """Raise InputError for a machine of the cluster whose versions are not this one's, naming both."""
    here = {"Stopdown": engine_version(), "Python": _python(), "Blender": blender}
    there = {"Stopdown": machine.stopdown, "Python": machine.python, "Blender": machine.blender}
    for program, version in here.items():
        if there[program] != version:
            found = f"{program} {there[program]}" if there[program] else f"no {program}"
            raise InputError(
                f"{machine.host} in the cluster has {found}, this machine has {program} {version}; "
                f"install {program} {version} on every machine"
            )


def _python() -> str:
    return ".".join(str(part) for part in sys.version_info[:2])


def _without_clips(target: Target) -> Target:
    """Return what an actor needs of a target: not the way to the plan's scenes and clips."""
    return replace(target, plan=header(target.plan.recipe), keys={}, parts=None)


def _settings(target: Target, folder: Path | None, threads: int) -> ActorSettings:
    recipe = target.plan.recipe
    worker = WorkerSettings(store=Path(), render=recipe.render, video=recipe.video, threads=threads, blender=target.blender)
    return ActorSettings(worker=worker, scratch=folder)


def _plain(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)[:60]


def _check_options(slots: int | None, threads: int, time_limit_s: float | None) -> None:
    if threads < 1 or (slots is not None and slots < 1):
        raise InputError(f"{slots} workers of {threads} threads; give at least one of each")
    if time_limit_s is not None and not time_limit_s > 0:
        raise InputError(f"--time-limit {time_limit_s:g}: give more than 0 seconds, or leave it out")
