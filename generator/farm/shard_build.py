"""Building one shard on one machine: render into a local scratch store, publish clip by clip, drop what is published.

What is rendered and not yet published is bounded: the pool is given nothing more to do while the store lags behind. Clips come
from the plan part by part, when the pool asks for them: of a shard of any size two parts are held, and the clips at hand.
A shard that is killed leaves its scratch store, and the same shard on the same machine publishes what lies there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

from generator.building.heartbeat import HeartbeatProgress, HeartbeatWriter
from generator.building.local import LOGS
from generator.building.scene_jobs import scene_jobs, spread
from generator.console.progress import Progress
from generator.errors import NoSpaceError
from generator.farm.parts import Parts
from generator.farm.prefetch import prefetch
from generator.farm.shards import Piece, Shard, piece_clips, shard_pieces, time_limit_s
from generator.farm.target import Target
from generator.io.atomic import FULL
from generator.io.checksummed_json import sha256
from generator.io.file_lock import exclusive_lock
from generator.recipe.plan import ClipPlan
from generator.render.messages import SceneJob, WorkerSettings
from generator.render.pool import PoolOptions, RenderPool
from generator.store.objects import Store
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


Renderer = Callable[[WorkerSettings, PoolOptions, Iterable[SceneJob], Progress, Callable[[str, float], None]], dict[str, str]]


def render_in_pool(
    settings: WorkerSettings,
    options: PoolOptions,
    jobs: Iterable[SceneJob],
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
    work = ShardWork.of(target, shard)
    target.take_scene(recipe_folder)
    try:
        with ExitStack() as stack:
            writer = stack.enter_context(HeartbeatWriter(target, shard.name, "shard", slots=options.workers, shard=str(shard)))
            telling = HeartbeatProgress(progress, writer)
            telling.start(work.clips, work.clips - work.left)
            stack.callback(telling.close)
            tally = _Tally(progress, writer)
            scratch = stack.enter_context(scratch_store(target, shard.name, options.scratch))
            failed = _render(target, work, scratch, options, telling, tally, render) if work.left else {}
    except OSError as error:
        if error.errno in FULL:
            raise NoSpaceError(
                f"{error.strerror} in the scratch folder; free some space or name another with --scratch, then run it again"
            ) from error
        raise
    return ShardReport(
        shard=shard,
        clips=work.clips,
        rendered=tally.rendered,
        reused=work.clips - work.left + tally.found,
        failed=failed,
        cpu_s=tally.cpu_s,
        wall_s=time.monotonic() - start_s,
    )


class _Tally:
    """What became of the clips of a shard: published, with their CPU seconds, or found to be there."""

    def __init__(self, progress: Progress, writer: HeartbeatWriter) -> None:
        self._progress, self._writer = progress, writer
        self.rendered = self.found = 0
        self.cpu_s = 0.0

    def published(self, clip_id: str, cpu_s: float) -> None:
        """Count a clip that is in the store now."""
        self.rendered += 1
        self.cpu_s += cpu_s
        self._progress.done(clip_id)
        self._writer.done(clip_id, cpu_s)

    def find(self, clips: int) -> None:
        """Count clips that were in the store though no shard had begun their part of the plan: one machine built them."""
        if clips:
            self.found += clips
            self._writer.assign(-clips)


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """What a shard has to do: its pieces by part of the plan, and its missing clips: a byte for each of those in a part that
    is in the store, 1 where it is missing."""

    pieces: dict[int, list[Piece]]
    missing_clips: dict[int, bytes]
    clips: int
    left: int

    @classmethod
    def of(cls, target: Target, shard: Shard) -> ShardWork:
        """Ask the store what a shard lacks; of a part that no one has begun, all."""
        assert isinstance(target.parts, Parts), "a target for reading renders nothing"
        pieces = shard_pieces(target.parts, shard)
        missing_clips: dict[int, bytes] = {}
        clips = left = 0
        for number, its_pieces in pieces.items():
            part = target.stored_part(number)
            if part is None:
                count = its_left = sum(piece.size(target.parts.keys(number)) for piece in its_pieces)
            else:
                mine = piece_clips(its_pieces, part.plan)
                missing = {clip.clip_id for clip in part.missing(mine)}
                missing_clips[number] = bytes(clip.clip_id in missing for clip in mine)
                count, its_left = len(mine), len(missing)
            clips, left = clips + count, left + its_left
        return cls(pieces=pieces, missing_clips=missing_clips, clips=clips, left=left)

    @cached_property
    def parts(self) -> list[int]:
        """The parts of the plan in which clips are missing."""
        return [number for number in self.pieces if any(self.missing_clips.get(number, b"\1"))]

    def clips_of(self, number: int, part: Target) -> list[ClipPlan]:
        """Return the missing clips of a part."""
        mine = piece_clips(self.pieces[number], part.plan)
        if number not in self.missing_clips:
            return mine
        return [clip for clip, lacks in zip(mine, self.missing_clips[number], strict=True) if lacks]


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
    assert target.parts is not None, "a shard's target knows the whole plan"
    place = base / f"{sha256(f'{target.where} {target.parts.digest} {target.blender}'.encode())[:16]}-{name}"
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(place.with_suffix(".lock"), "busy"))
        except InputError:
            place = place.with_name(f"{place.name}-{os.getpid()}")
        store = Store(place)
        place.mkdir(mode=0o700, exist_ok=True)
        store.sweep_temporaries()
        yield store
        shutil.rmtree(place, ignore_errors=True)


def _render(
    target: Target,
    work: ShardWork,
    scratch: Store,
    options: ShardOptions,
    progress: Progress,
    tally: _Tally,
    render: Renderer,
) -> dict[str, str]:
    """Publish what lies in the scratch store, render the rest; return the messages of clips that failed."""
    limit = options.unpublished if options.unpublished is not None else UNPUBLISHED_PER_WORKER * options.workers
    at_hand: dict[str, str] = {}  # keys of the clips that were handed out and are not published yet

    def gone(clip_id: str, cpu_s: float) -> None:
        del at_hand[clip_id]
        tally.published(clip_id, cpu_s)

    with Publisher(replace(target, keys=at_hand), scratch, limit, gone) as publisher:
        with closing(_batches(target, work, scratch, publisher, at_hand, options.workers, tally.find)) as batches:
            first = next(batches, None)
            failed: dict[str, str] = {}
            if first is not None:
                target.fetch_scene(scratch)
                jobs = chain(first, chain.from_iterable(batches))
                settings = _settings(target, scratch, options)
                pooling = _pool_options(target, options, work.left if len(work.parts) > 1 else len(first))
                failed = render(settings, pooling, jobs, _Rendered(progress), publisher.add)
        publisher.finish()
    return failed


def _batches(
    target: Target,
    work: ShardWork,
    scratch: Store,
    publisher: Publisher,
    at_hand: dict[str, str],
    workers: int,
    found: Callable[[int], None],
) -> Generator[list[SceneJob], None, None]:
    """Yield what is to be rendered, part by part, when it is asked for; publish what lies in the scratch store already."""
    for number, part in zip(work.parts, prefetch(target.part, work.parts), strict=True):
        mine = work.clips_of(number, part)
        missing_clips = mine if number in work.missing_clips else part.missing(mine)
        found(len(mine) - len(missing_clips))
        left = []
        for clip in missing_clips:
            key = at_hand[clip.clip_id] = part.keys[clip.clip_id]
            if scratch.finished(key) is not None:
                publisher.add(clip.clip_id, 0.0)
            else:
                left.append(clip)
        jobs = scene_jobs(part.plan, left, {clip.clip_id: at_hand[clip.clip_id] for clip in left}, target.blender)
        if jobs:
            yield spread(jobs, workers) if number == work.parts[-1] else jobs


def _settings(target: Target, scratch: Store, options: ShardOptions) -> WorkerSettings:
    recipe = target.plan.recipe
    return WorkerSettings(
        store=scratch.root, render=recipe.render, video=recipe.video, threads=options.threads, blender=target.blender
    )


def _pool_options(target: Target, options: ShardOptions, jobs: int) -> PoolOptions:
    limit_s = options.time_limit_s if options.time_limit_s is not None else time_limit_s(target.plan.recipe, options.threads)
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
