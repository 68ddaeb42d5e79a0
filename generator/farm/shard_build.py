"""Building one shard on one machine: render into a local scratch store, publish clip by clip, drop what is published.

What is rendered and not yet published is bounded: the pool is given nothing more to do while the store lags behind. A shard
that is killed leaves its scratch store, and the same shard on the same machine publishes what lies there before it renders.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from generator.build import LOGS, scene_jobs, spread
from generator.farm.heartbeat import Beater, BeatingProgress
from generator.farm.shards import Shard, shard_clips, time_limit_s
from generator.farm.target import Target
from generator.files import alone
from generator.plan import ClipPlan
from generator.progress import Progress
from generator.render.messages import SceneJob, WorkerSettings
from generator.render.pool import NoSpaceError, PoolOptions, RenderPool
from generator.render.worker import NO_SPACE
from generator.sealed import sha256
from generator.store import Store
from scenes.errors import InputError

ATTEMPTS = 3  # a clip that fails so often is reported, and the rest goes on
UNPUBLISHED_PER_WORKER = 8
_PUBLISHERS = 4


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """How a shard is built: processes and their threads, seconds that one clip may take (None: from the plan's estimate),
    clips that may wait to be published (None: eight per process), and where the scratch store lies (None: the system's
    temporary folder)."""

    workers: int = 1
    threads: int = 1
    time_limit_s: float | None = None
    unpublished: int | None = None
    scratch: Path | None = None

    def check(self) -> None:
        """Raise InputError for numbers that cannot be."""
        if self.workers < 1 or self.threads < 1:
            raise InputError(f"{self.workers} workers of {self.threads} threads; give at least one of each")
        if self.time_limit_s is not None and self.time_limit_s <= 0:
            raise InputError(f"--time-limit {self.time_limit_s:g}: give more than 0 seconds, or leave it out")


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What a shard did: its clips, those rendered now, those there before, those that failed (message by id), and its cost."""

    shard: Shard
    clips: int
    rendered: int
    reused: int
    failed: dict[str, str]
    cpu_s: float
    wall_s: float

    @property
    def complete(self) -> bool:
        """Whether every clip of the shard is in the store."""
        return not self.failed


Renderer = Callable[[WorkerSettings, PoolOptions, list[SceneJob], Progress, Callable[[str, float], None]], dict[str, str]]


def render_in_pool(
    settings: WorkerSettings,
    options: PoolOptions,
    jobs: list[SceneJob],
    progress: Progress,
    on_done: Callable[[str, float], None],
) -> dict[str, str]:
    """Render jobs in processes of this machine; return the messages of clips that failed too often."""
    with RenderPool(settings, options, settings.store / LOGS, progress) as pool:
        return pool.run(jobs, on_done)


def build_shard(
    target: Target,
    shard: Shard,
    *,
    options: ShardOptions,
    progress: Progress,
    recipe_folder: Path | None = None,
    render: Renderer = render_in_pool,
) -> ShardReport:
    """Render and publish the clips of a shard that its target lacks; a clip that fails three times is in the report.

    Raises InputError for options or a scratch folder that cannot be used, RemoteError when the target does not take what is
    rendered, NoSpaceError when the scratch disk is full. Run again, it goes on.
    """
    options.check()
    start_s = time.monotonic()
    clips = shard_clips(target.plan, shard)
    pending = target.missing(clips)
    target.take_scene(recipe_folder)
    seconds: list[float] = []
    try:
        with ExitStack() as stack:
            beater = stack.enter_context(Beater(target, shard.name, "shard", slots=options.workers, shard=str(shard)))
            telling = BeatingProgress(progress, beater)
            telling.start(len(clips), len(clips) - len(pending))
            stack.callback(telling.close)
            scratch = stack.enter_context(scratch_store(target, shard.name, options.scratch))

            def published(clip_id: str, cpu_s: float) -> None:
                seconds.append(cpu_s)
                progress.done(clip_id)
                beater.done(clip_id, cpu_s)

            failed = _render(target, pending, scratch, options, telling, published, render)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise NoSpaceError(
                f"{error.strerror} in the scratch folder; free some space or name another with --scratch, then run it again"
            ) from error
        raise
    return ShardReport(
        shard=shard,
        clips=len(clips),
        rendered=len(seconds),
        reused=len(clips) - len(pending),
        failed=failed,
        cpu_s=sum(seconds),
        wall_s=time.monotonic() - start_s,
    )


class Publisher:
    """Publishes finished clips beside the rendering, a bounded number at a time; a context manager.

    `published` is called with id and CPU seconds of each, in the thread that adds clips. An error of the store is raised there
    too, once; what was not published stays in the scratch store.
    """

    def __init__(self, target: Target, scratch: Store, limit: int, published: Callable[[str, float], None]) -> None:
        self._target, self._scratch = target, scratch
        self._limit = max(1, limit)
        self._published = published
        self._pool = ThreadPoolExecutor(_PUBLISHERS, thread_name_prefix="publish")
        self._pending: deque[tuple[str, float, Future[None]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, clip_id: str, cpu_s: float) -> None:
        """Publish a clip; waits while as many as allowed are on their way."""
        self._harvest()
        while len(self._pending) >= self._limit:
            wait([future for _, _, future in self._pending], return_when=FIRST_COMPLETED)
            self._harvest()
        self._pending.append((clip_id, cpu_s, self._pool.submit(self._publish, clip_id)))

    def finish(self) -> None:
        """Wait until every clip that was added is published."""
        wait([future for _, _, future in self._pending])
        self._harvest()

    def _publish(self, clip_id: str) -> None:
        key = self._target.keys[clip_id]
        record = self._scratch.record(key)
        self._target.publish(self._scratch, key)
        if record is not None:
            self._scratch.drop(record)

    def _harvest(self) -> None:
        done = [entry for entry in self._pending if entry[2].done()]
        for entry in done:
            self._pending.remove(entry)
            clip_id, cpu_s, future = entry
            future.result()
            self._published(clip_id, cpu_s)


@contextmanager
def scratch_store(target: Target, name: str, folder: Path | None = None) -> Iterator[Store]:
    """Yield a local store for clips on their way to a target; it is removed at the end, and kept where that is an error.

    It has the same place every time, so that what a kill left is found again; a second process gets a place of its own.
    """
    base = folder / "stopdown" if folder is not None else Path(tempfile.gettempdir()) / f"stopdown-{os.getuid()}"
    _own_folder(base)
    place = base / f"{sha256(f'{target.where} {target.plan.digest} {target.blender}'.encode())[:16]}-{name}"
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(place.with_suffix(".lock"), "busy"))
        except InputError:
            place = place.with_name(f"{place.name}-{os.getpid()}")
        store = Store(place)
        place.mkdir(mode=0o700, exist_ok=True)
        store.sweep_temporaries()
        yield store
        shutil.rmtree(place, ignore_errors=True)


def _render(
    target: Target,
    pending: Sequence[ClipPlan],
    scratch: Store,
    options: ShardOptions,
    progress: Progress,
    published: Callable[[str, float], None],
    render: Renderer,
) -> dict[str, str]:
    """Publish what lies in the scratch store, render the rest; return the messages of clips that failed."""
    limit = options.unpublished if options.unpublished is not None else UNPUBLISHED_PER_WORKER * options.workers
    with Publisher(target, scratch, limit, published) as publisher:
        rendered = {clip.clip_id for clip in pending if scratch.finished(target.keys[clip.clip_id]) is not None}
        for clip_id in sorted(rendered):
            publisher.add(clip_id, 0.0)
        left = [clip for clip in pending if clip.clip_id not in rendered]
        failed: dict[str, str] = {}
        if left:
            target.fetch_scene(scratch)
            jobs = spread(
                scene_jobs(target.plan, left, {clip.clip_id: target.keys[clip.clip_id] for clip in left}), options.workers
            )
            settings, pooling = _settings(target, scratch, options), _pool_options(target, options, len(jobs))
            failed = render(settings, pooling, jobs, _Rendered(progress), publisher.add)
        publisher.finish()
    return failed


def _settings(target: Target, scratch: Store, options: ShardOptions) -> WorkerSettings:
    recipe = target.plan.recipe
    return WorkerSettings(
        store=scratch.root, render=recipe.render, video=recipe.video, threads=options.threads, blender=target.blender
    )


def _pool_options(target: Target, options: ShardOptions, jobs: int) -> PoolOptions:
    limit_s = options.time_limit_s if options.time_limit_s is not None else time_limit_s(target.plan, options.threads)
    return PoolOptions(workers=min(options.workers, jobs), silence_s=limit_s, attempts=ATTEMPTS)


class _Rendered:
    """The progress of a pool whose clips count as done only when they are published."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.start, self.worker, self.failed = progress.start, progress.worker, progress.failed
        self.note, self.close = progress.note, progress.close

    def done(self, clip_id: str) -> None:
        """Say nothing: the clip is in the scratch store only."""


def _own_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = folder.stat().st_uid == os.getuid() and not folder.is_symlink()
    except OSError as error:
        raise InputError(f"{folder} cannot be the scratch folder ({error.strerror}); name another with --scratch") from error
    if not mine:
        raise InputError(f"{folder} belongs to someone else; name another scratch folder with --scratch")
