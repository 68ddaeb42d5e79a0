"""A pool of render processes: recycled, restarted when they die, stopped when they hang, gone when the build is interrupted.

Each process has a pipe of its own and no lock is shared, so that one killed at any instant leaves the others as they were.
(multiprocessing.Pool, concurrent.futures and pebble share queues behind locks: a kill breaks their whole pool, or hangs it.)
"""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from generator.console.progress import Progress
from generator.errors import NoSpaceError, RenderError
from generator.render.executable import render_python
from generator.render.messages import Done, Event, Failed, NoSpace, Ready, SceneDone, SceneJob, Started, WorkerSettings
from generator.render.worker import work

MAX_ATTEMPTS = 2  # a clip that fails is tried once more
MAX_DEAD_STARTS = 3
MOST_AGAIN = 64  # clips that failed and wait for the end: what is held must not grow with the build
EXIT_S = 10.0  # a process whose pipe has ended is about to exit
LOG_LINES = 3


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """How many processes, after how many clips each is replaced, how long one may say nothing before it is stopped, and how
    often a clip is tried."""

    workers: int
    recycle_clips: int = 500
    silence_s: float = 1800.0
    attempts: int = MAX_ATTEMPTS


@dataclass(eq=False, kw_only=True)
class _Worker:
    """A live process, and what it is doing."""

    number: int
    process: BaseProcess
    pipe: Connection
    log: Path
    heard_s: float
    ready: bool = False
    job: SceneJob | None = None
    current: str | None = None
    finished: set[str] = field(default_factory=set)
    retries: list[str] = field(default_factory=list)
    clips: int = 0


class RenderPool:
    """Render processes for one build; a context manager, which leaves none alive. They start loading Blender on entry."""

    def __init__(self, settings: WorkerSettings, options: PoolOptions, logs: Path, progress: Progress) -> None:
        self._settings = settings
        self._options = options
        self._logs = logs
        self._progress = progress
        self._context = multiprocessing.get_context("spawn")  # Blender hangs in a forked child
        self._workers: dict[int, _Worker] = {}
        self._retired: list[BaseProcess] = []
        self._fresh: Iterator[SceneJob] = iter(())
        self._queue: deque[SceneJob] = deque()
        self._again: deque[SceneJob] = deque()
        self._attempts: Counter[str] = Counter()
        self._failures: dict[str, str] = {}
        self._dead_starts = 0

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        for number in range(self._options.workers):
            self._start(number)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for worker in self._workers.values():
            worker.process.kill()  # the store bears it, and an idle process has nothing to lose
            worker.pipe.close()
        for process in [*(worker.process for worker in self._workers.values()), *self._retired]:
            process.kill()
            process.join()
        self._workers.clear()
        shutil.rmtree(self._logs, ignore_errors=True)

    def run(self, jobs: Iterable[SceneJob], on_done: Callable[[str, float], None]) -> dict[str, str]:
        """Render every clip of every scene, in the order given; return the message of each clip that failed too often.

        A scene is asked for when a process has nothing to do. `on_done` gets the id and CPU seconds of each finished clip.
        Raises NoSpaceError when the disk is full, RenderError when no process comes up.
        """
        self._fresh = iter(jobs)
        while self._has_work() or any(worker.job for worker in self._workers.values()):
            self._assign()
            audible = wait([worker.pipe for worker in self._workers.values()], timeout=self._timeout_s())
            for worker in [worker for worker in self._workers.values() if worker.pipe in audible]:
                self._listen(worker, on_done)
            self._stop_silent()
        return self._failures

    def _start(self, number: int) -> None:
        ours, theirs = self._context.Pipe()
        log = self._logs / f"worker-{number}.log"
        process = self._context.Process(
            target=work, args=(theirs, self._settings, log), name=f"stopdown-render-{number}", daemon=True
        )
        with render_python(self._logs):
            process.start()
        theirs.close()  # so that the pipe ends when the process does
        self._workers[number] = _Worker(number=number, process=process, pipe=ours, log=log, heard_s=time.monotonic())
        self._progress.worker(number, "loading Blender")

    def _has_work(self) -> bool:
        """Return whether a scene waits, after asking for one; clips to try again come last, unless there are many."""
        if not self._queue:
            many = len(self._again) >= MOST_AGAIN
            job = self._again.popleft() if many else next(self._fresh, None)
            if job is None and self._again:
                job = self._again.popleft()
            if job is not None:
                self._queue.append(job)
        return bool(self._queue)

    def _assign(self) -> None:
        for worker in list(self._workers.values()):
            if not worker.ready or worker.job is not None:
                continue
            if not self._has_work():
                return
            job = self._queue.popleft()
            try:
                worker.pipe.send(job)
            except OSError:  # it died while idle; listening to its pipe tells
                self._queue.appendleft(job)
                continue
            worker.job, worker.current, worker.heard_s = job, None, time.monotonic()
            worker.finished.clear()
            worker.retries = []

    def _timeout_s(self) -> float | None:
        """Return the seconds until the first process has been silent for too long, or None when none is at work."""
        waits = [worker.heard_s for worker in self._workers.values() if worker.job or not worker.ready]
        return max(0.0, min(waits) + self._options.silence_s - time.monotonic()) if waits else None

    def _stop_silent(self) -> None:
        for worker in list(self._workers.values()):
            silent_s = time.monotonic() - worker.heard_s
            if (worker.job or not worker.ready) and silent_s >= self._options.silence_s:
                self._bury(worker, f"render process said nothing for {self._options.silence_s:g} s and was stopped")

    def _listen(self, worker: _Worker, on_done: Callable[[str, float], None]) -> None:
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, OSError):  # the end of the pipe, or of a message cut short
            worker.process.join(EXIT_S)
            self._bury(worker, f"render process died ({_cause(worker.process.exitcode)})")
            return
        worker.heard_s = time.monotonic()
        match event:
            case Ready():
                worker.ready, self._dead_starts = True, 0
                self._progress.worker(worker.number, "idle")
            case Started(clip_id):
                worker.current = clip_id
                self._progress.worker(worker.number, f"rendering {clip_id}")
            case Done(clip_id, cpu_s):
                worker.finished.add(clip_id)
                worker.clips += 1
                on_done(clip_id, cpu_s)
                self._progress.done(clip_id)
            case Failed(clip_id, message):
                worker.finished.add(clip_id)
                if self._try_again(clip_id, message):
                    worker.retries.append(clip_id)
            case NoSpace(message):
                raise NoSpaceError(f"{message}; free some space and run the same command again to go on")
            case SceneDone():
                self._end_scene(worker)

    def _end_scene(self, worker: _Worker) -> None:
        assert worker.job is not None
        self._requeue(worker.job, worker.retries, first=False)
        worker.job = worker.current = None
        self._progress.worker(worker.number, "idle")
        if worker.clips >= self._options.recycle_clips:
            with worker.pipe, contextlib.suppress(OSError):
                worker.pipe.send(None)
            self._retired = [process for process in self._retired if process.is_alive()] + [worker.process]
            self._start(worker.number)

    def _bury(self, worker: _Worker, words: str) -> None:
        """Replace a dead process and queue what it had yet to render; a death counts as a failure of the clip at hand."""
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        words = " | ".join([words, *_last_lines(worker.log)])
        del self._workers[worker.number]
        if not worker.ready:
            self._dead_starts += 1
            if self._dead_starts >= MAX_DEAD_STARTS:
                raise RenderError(f"Blender does not come up: {words}; try `python -c 'import bpy'`")
        if worker.job is not None:
            left = [clip.clip_id for clip in worker.job.clips if clip.clip_id not in worker.finished]
            guilty = worker.current if worker.current in left else next(iter(left), None)
            if guilty is not None and self._try_again(guilty, words):
                worker.retries.append(guilty)
            self._requeue(worker.job, [clip_id for clip_id in left if clip_id != guilty], first=True)
            self._requeue(worker.job, worker.retries, first=False)
        else:
            self._progress.note(f"{words}; starting another")
        self._start(worker.number)

    def _try_again(self, clip_id: str, message: str) -> bool:
        """Count a failure of a clip; return whether it is to be tried again, and otherwise report it."""
        self._attempts[clip_id] += 1
        if self._attempts[clip_id] < self._options.attempts:
            self._progress.note(f"clip {clip_id}: {message}; trying it once more")
            return True
        self._failures[clip_id] = message
        self._progress.failed(clip_id, message)
        return False

    def _requeue(self, job: SceneJob, clip_ids: Iterable[str], *, first: bool) -> None:
        wanted = set(clip_ids)
        clips = tuple(clip for clip in job.clips if clip.clip_id in wanted)
        if clips:
            again = replace(job, clips=clips)
            if first:
                self._queue.appendleft(again)
            else:
                self._again.append(again)


def _cause(exitcode: int | None) -> str:
    return f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"


def _last_lines(log: Path) -> list[str]:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip()][-LOG_LINES:]
