"""A small farm in virtual time: the real shard and finish code on a simulated store, with a synthetic renderer.

What is replaced is what surrounds the code: rendering (by small clips made from their keys), threads (by greenlets, so that
one seed gives one schedule), the clock, and the store's boundary.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future
from contextlib import contextmanager
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import pytest
import tiny
from store_simulator import Scheduler

from generator.console.progress import Progress
from generator.farm import finish, shard_build, target
from generator.farm import prefetch as ahead
from generator.farm.target import ClipKeys, Target
from generator.recipe.plan import Plan
from generator.render.messages import ClipJob, SceneJob, WorkerSettings
from generator.render.pool import PoolOptions
from generator.store.objects import ClipRecord, ReadingRecord, Store
from generator.versions.manifest import leaves as manifest
from generator.versions.sync import push as remote_push

BLENDER = "5.0.1"
SCENES, CLIPS = 3, 2  # clips of each scene


@lru_cache(maxsize=1)
def plan() -> Plan:
    """Return a plan of six clips of three scenes, as small as a plan can be."""
    whole = tiny.plan()
    scenes = whole.scenes[:SCENES]
    ids = {scene.scene_id: scene.clip_ids[:CLIPS] for scene in scenes}
    return whole.model_copy(
        update={
            "scenes": tuple(scene.model_copy(update={"clip_ids": ids[scene.scene_id]}) for scene in scenes),
            "clips": tuple(clip for clip in whole.clips if clip.clip_id in ids.get(clip.scene_id, ())),
        }
    )


@lru_cache(maxsize=1)
def keys() -> dict[str, str]:
    """Return the keys of the plan's records by clip id."""
    return dict(ClipKeys(plan(), BLENDER))


class VirtualThreads:
    """Stands for `ThreadPoolExecutor` and `wait`: every task is an action of the scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def executor(self, *_: object, **__: object) -> VirtualExecutor:
        """Return an executor; its size is not limited, which only makes more orders possible."""
        return VirtualExecutor(self._scheduler, self)

    def wait(
        self, futures: Iterable[Future[Any]], timeout: float | None = None, return_when: str = ALL_COMPLETED
    ) -> tuple[set[Future[Any]], set[Future[Any]]]:
        """Wait as `concurrent.futures.wait` does; nobody here waits with a time limit."""
        assert timeout is None
        waiting = set(futures)
        while True:
            done = {future for future in waiting if future.done()}
            if done == waiting or (done and return_when == FIRST_COMPLETED):
                return done, waiting - done
            self._scheduler.wait(0.2)


class VirtualExecutor:
    """Runs every task in a greenlet of its own."""

    def __init__(self, scheduler: Scheduler, threads: VirtualThreads) -> None:
        self._scheduler = scheduler
        self._threads = threads
        self._futures: list[Future[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.shutdown()

    def submit(self, action: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin a task."""
        future: Future[Any] = Future()
        self._futures.append(future)

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = action(*arguments)
            except BaseException as error:  # a kill too: who asks for the result hears of it
                future.set_exception(error)
            else:
                future.set_result(result)

        self._scheduler.start(run)
        return future

    def map(self, action: Callable[..., Any], *items: Iterable[Any]) -> Iterator[Any]:
        """Yield results in order."""
        futures = [self.submit(action, *arguments) for arguments in zip(*items, strict=False)]
        for future in futures:
            self._threads.wait([future])
            yield future.result()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was begun; what was not is given up where it is asked for."""
        if cancel_futures:
            for future in self._futures:
                future.cancel()
        if wait:
            self._threads.wait(self._futures)


class SyntheticRenderer:
    """A `Renderer`: clips are small bytes made from their keys, and take virtual seconds; none fails.

    Clips of a scene share a frame, as clips do in which nothing moves. `salt` makes bytes differ between renderers, as float
    noise could: then only the first result may count.
    """

    def __init__(self, scheduler: Scheduler, rng: random.Random, salt: str) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self._salt = salt

    def __call__(
        self,
        settings: WorkerSettings,
        options: PoolOptions,
        jobs: Iterable[SceneJob],
        progress: Progress,
        on_done: Callable[[str, float], None],
    ) -> dict[str, str]:
        """Render every clip."""
        store = Store(settings.store)
        for job in jobs:
            for clip in job.clips:
                self._scheduler.wait(self._rng.uniform(0.0, 5.0))
                if store.finished(clip.key) is None:
                    store.put_record(
                        synthetic_record(store, job.scene_id, clip, self._salt, settings.blender, self._rng.random())
                    )
                on_done(clip.clip_id, 0.5)
        return {}


def synthetic_record(store: Store, scene_id: str, clip: ClipJob, salt: str, blender: str, cpu_s: float) -> ClipRecord:
    """Store a clip's objects and return its record; only the CPU time differs between renderers of equal salt."""
    data = f"clip {clip.key} {salt}".encode()
    return ClipRecord(
        key=clip.key,
        sha256_bytes=store.put(data),
        sha256_frames=hashlib.sha256(b"frames of " + data).hexdigest(),
        size_bytes=len(data),
        frames={"0000.png": store.put(f"frame of {scene_id}".encode())},
        readings={axis: ReadingRecord(value=value, confidence=0.9) for axis, value in clip.values.items()},
        blender=blender,
        encoder="synthetic",
        cpu_s=cpu_s,
    )


class Quiet:
    """A progress that says nothing."""

    def start(self, clips: int, finished: int) -> None:
        """Begin."""

    def worker(self, number: int, state: str) -> None:
        """A render process does something."""

    def done(self, clip_id: str) -> None:
        """A clip is finished."""

    def failed(self, clip_id: str, message: str) -> None:
        """A clip failed."""

    def note(self, words: str) -> None:
        """Something worth knowing."""

    def close(self) -> None:
        """End."""


class PromptHeartbeatWriter:
    """Stands for `HeartbeatWriter`, whose thread writes now and then: every piece of news is one heartbeat, written at once."""

    def __init__(self, store: Target, name: str, kind: str, **_: object) -> None:
        self._store, self._name, self._kind = store, name, kind

    def __enter__(self) -> Self:
        self._beat("began")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is None or issubclass(kind, Exception):
            self._beat("ended")

    def assign(self, clips: int) -> None:
        """Count clips."""
        self._beat(f"assigned {clips}")

    def started(self, clip_id: str) -> None:
        """A clip is being rendered."""

    def stopped(self, clip_id: str) -> None:
        """It no longer is."""

    def done(self, clip_id: str, cpu_s: float) -> None:
        """A clip is in the store."""
        self._beat(f"done {clip_id}")

    def failed(self, clip_id: str, message: str) -> None:
        """A clip failed."""

    def _beat(self, words: str) -> None:
        self._store.write_heartbeat(self._name, f"{self._kind} {words}".encode())


@contextmanager
def virtual(scheduler: Scheduler, *, listing: bool) -> Iterator[None]:
    """Put virtual threads in the place of the real ones; `listing` looks for records as a large plan does, by lists."""
    threads = VirtualThreads(scheduler)
    with pytest.MonkeyPatch.context() as patch:
        for module in (shard_build, ahead, target, finish, remote_push, manifest):
            patch.setattr(module, "ThreadPoolExecutor", threads.executor)
        for module in (shard_build, ahead, remote_push):
            patch.setattr(module, "wait", threads.wait)
        if listing:
            patch.setattr(target, "_LOOKUPS", 0)
        patch.setattr(shard_build, "HeartbeatWriter", PromptHeartbeatWriter)
        yield
