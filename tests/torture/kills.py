"""Kills a piece of work at its file events, one by one, and holds what is left, and a second run, against a whole one.

Or lets one event fail, as on a disk that is full, broken or not to be written to: then the work must also say so in one line.

A case says how to prepare a folder, what works there, what must hold right after a kill, and what the outcome is. A new one is
a `Case` in `kill_cases.py`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STATED_TIME = "1700000000"  # a version's id contains its time, so equal work makes equal ids
KILLED = -9
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)  # what events fail with, in turn; the disk stays full
LONGEST_S = 300  # of one piece of work, on a busy machine; what waits for ever fails
START_S = 600


class _Orders(ctypes.Structure):
    """What `file_events.c` reads; the same layout."""

    _fields_ = (
        ("count", ctypes.c_long),
        ("fatal", ctypes.c_long),
        ("half", ctypes.c_long),
        ("port", ctypes.c_long),
        ("error", ctypes.c_long),
        ("lasting", ctypes.c_long),
        ("folder", ctypes.c_char * 2048),
        ("trace", ctypes.c_char * 2048),
    )


@dataclass(frozen=True, kw_only=True)
class Work:
    """The folder that a piece of work works in, and where its remote is stored."""

    folder: Path
    bucket: Bucket | None = None
    address: str = ""

    @property
    def port(self) -> int:
        """The port that messages are counted to; 0 for none."""
        return 0 if self.bucket is None else self.bucket.port

    @property
    def environ(self) -> Mapping[str, str]:
        """What the work needs to know to reach its storage."""
        return {} if self.bucket is None else self.bucket.environ

    def filled(self, word: str) -> str:
        """Return a word of a command line with the names of this folder and this storage."""
        return word.replace("{}", str(self.folder)).replace("{s3}", self.address)

    def fetch(self) -> None:
        """Make the folder `remote` what is stored."""
        if self.bucket is not None:
            self.bucket.fetch(self.address, self.folder / "remote")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Work that is killed. `words` may name the folder it works in as `{}`, and `environ` too; it is also the current folder.

    `sound` returns what is wrong right after a kill, in words; `outcome` what the work came to, in a form to compare. `again`
    is the second run, where that is not the same words. Both may raise: that is what is wrong, then. Where the work writes
    to a new place, a second run may be `refused` in these words, if the first had come to its outcome. `long_only` cases are
    too slow for a sample, and are killed at `most` events at most. Where the work has `stored` its remote in S3, `{s3}` is its
    address: the folder `remote` is sent there before the work and fetched after it.
    """

    name: str
    prepare: Callable[[Path], None]
    words: Sequence[str]
    outcome: Callable[[Path], Any]
    sound: Callable[[Path], list[str]] = lambda folder: []
    again: Sequence[str] | None = None
    refused: str | None = None
    work: str = "killable:stopdown"
    server: str = "data"
    environ: Mapping[str, str] = field(default_factory=dict)
    stored: bool = False
    long_only: bool = False
    most: int | None = None


class Bucket(Protocol):
    """Storage that speaks S3, in another process than the work or in this one."""

    port: int
    environ: Mapping[str, str]

    def send(self, folder: Path) -> str:
        """Put a folder's files under a new address and return that."""
        ...

    def fetch(self, address: str, folder: Path) -> None:
        """Make a folder what lies under an address."""
        ...


SERVERS = {
    "data": [
        "stopdown",
        "pandas",
        "pyarrow.parquet",
        "duckdb",
        *(f"generator.commands.{name}" for name in ("commit", "restore", "gc", "tag")),
    ]
    + [f"generator.commands.{name}" for name in ("push", "pull", "clone", "merge", "export", "build")],
    "training": ["trainer.training.loop", "trainer.training.setup", "trainer.adapters.folder", "torch_work:warm"],
    "run": ["stopdown", "trainer.training.session", "trainer.training.setup", "trainer.evaluation.run", "trainer.report"]
    + [f"trainer.commands.{name}" for name in ("run", "adapter", "generate")],
}


class Server:
    """A process that forks for each piece of work, with the counter of file events preloaded."""

    def __init__(self, modules: Sequence[str], scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        library = scratch / "file_events.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "file_events.c", "-ldl"], check=True)
        self._file = scratch / "orders"
        self._file.write_bytes(bytes(ctypes.sizeof(_Orders)))
        with self._file.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), ctypes.sizeof(_Orders))
        self._orders = _Orders.from_buffer(self._map)
        self.log = scratch / "said.log"
        paths = [ROOT, ROOT / "tests", HERE, *(ROOT / "tests" / name for name in ("versions", "export", "trainer"))]
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "LD_PRELOAD": str(library),
            "FILE_EVENTS": str(self._file),
            "SOURCE_DATE_EPOCH": STATED_TIME,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "killable.py"), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
            cwd=scratch,
        )
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], START_S)[0], f"not ready after {START_S} s: {modules}"
        assert self._process.stdout.readline() == "ready\n"

    def run(
        self,
        case: Case,
        work: Work,
        words: Sequence[str],
        *,
        fatal: int = 0,
        half: bool = False,
        error: int = 0,
        trace: Path | None = None,
    ) -> int:
        """Do the work in a folder, to be killed at an event (0: never), or with that failing; return its exit code."""
        orders, process = self._orders, self._process
        orders.count, orders.fatal, orders.half, orders.port = 0, fatal, int(half), work.port
        orders.error, orders.lasting = error, error == errno.ENOSPC
        orders.folder, orders.trace = str(work.folder).encode(), b"" if trace is None else str(trace).encode()
        self.log.write_text("")
        environ = {name: work.filled(value) for name, value in case.environ.items()} | dict(work.environ)
        order = {
            "work": case.work,
            "words": [work.filled(word) for word in words],
            "environ": environ,
            "folder": str(work.folder),
        }
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({**order, "log": str(self.log), "longest_s": LONGEST_S}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        orders.folder = b""
        assert not answer["late"], f"{case.name} was still at work after {LONGEST_S} s: {self.log.read_text()}"
        work.fetch()
        return int(answer["code"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@dataclass
class Tally:
    """What the kills of one case came to: its file events, how many it was killed at, and what did not hold."""

    case: str
    events: int = 0
    kills: int = 0  # or failed events
    survived: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def words(self) -> str:
        """Return one line of a table."""
        return (
            f"{self.case:<24} {self.events:5d} events  {self.kills:5d} kills  {self.survived:3d} ended before  "
            f"{len(self.failures):3d} failures  {self.seconds:7.1f} s"
        )


def wanted(words: str) -> tuple[int | None, tuple[int, int]]:
    """Return how many events or flips STOPDOWN_TORTURE asks for, None for all, and which part of them."""
    if "/" in words:
        part, _, parts = words.partition("/")
        return None, (int(part), int(parts))
    return (None if words == "all" else int(words)), (1, 1)


def torture(
    case: Case,
    server: Server,
    scratch: Path,
    *,
    points: int | None,
    bucket: Bucket | None = None,
    part: tuple[int, int] = (1, 1),
    failing: bool = False,
) -> Tally:
    """Kill a case's work at `points` of its events, drawn with a fixed seed, or at every one (None, but for the case's `most`).

    Of those, it is the `part` k of n that is done. Where it is `failing`, these events fail instead.
    """
    begun_s = time.monotonic()
    tally = Tally(case.name)
    template, trace = scratch / "template", scratch / "trace"
    trace.unlink(missing_ok=True)
    shutil.rmtree(template, ignore_errors=True)
    template.mkdir(parents=True)
    case.prepare(template)
    with _copied(template, scratch, bucket) as work:
        code = server.run(case, work, case.words, trace=trace)
        assert code == 0, f"{case.name} fails without a kill ({code}): {server.log.read_text()}"
        expected = case.outcome(work.folder)
    events = trace.read_text().splitlines()
    tally.events = len(events)
    draw = random.Random(f"{case.name} 0")
    numbers = range(1, len(events) + 1)
    wanted = min(len(events) if count is None else count for count in (points, case.most))
    chosen = sorted(draw.sample(numbers, min(wanted, len(events)))) if wanted < len(events) else list(numbers)
    for number in chosen[part[0] - 1 :: part[1]]:
        half, error = bool(number % 2), ERRORS[number % len(ERRORS)] if failing else 0
        with _copied(template, scratch, bucket) as work:
            found = _one(case, server, work, expected, Moment(number=number, half=half, error=error), tally)
            how = f", {errno.errorcode[error]}" if error else ", half" * half
            tally.failures += [f"{case.name}, at {number} ({events[number - 1]}{how}): {words}" for words in found]
    tally.seconds = time.monotonic() - begun_s
    return tally


@dataclass(frozen=True, kw_only=True)
class Moment:
    """An event, whether a write is half done there, and what it fails with; 0 where it is a kill."""

    number: int
    half: bool
    error: int


def _one(case: Case, server: Server, work: Work, expected: Any, moment: Moment, tally: Tally) -> list[str]:
    code = server.run(case, work, case.words, fatal=moment.number, half=moment.half, error=moment.error)
    said = server.log.read_text()
    try:
        if moment.error:
            tally.kills += 1
            found = _told(code, said)
            if code == 0 and (outcome := case.outcome(work.folder)) != expected:
                found.append(f"said nothing: {difference(expected, outcome)}")
        elif code == KILLED:
            tally.kills += 1
            found = []
        else:
            tally.survived += 1
            found = [] if code == 0 else [f"exit code {code}: {said}"]
        found += [f"left {words}" for words in case.sound(work.folder)]
        code = server.run(case, work, case.again or case.words)
        said = server.log.read_text()
        if code != 0 and not (code == 2 and case.refused is not None and case.refused in said):
            return [*found, f"run again: exit code {code}: {said.strip()}"]
        outcome = case.outcome(work.folder)
    except Exception as error:
        return [f"left {type(error).__name__}: {error}"]
    return found if outcome == expected else [*found, f"run again: {difference(expected, outcome)}"]


def _told(code: int, said: str) -> list[str]:
    """Return what is wrong with how work ended when the disk refused: in order, or with one line of its own about it."""
    lines = [line for line in said.splitlines() if line.startswith("stopdown: error: ")]
    if code == 0 or (code in (1, 2) and len(lines) == 1 and "Traceback" not in said):
        return []
    return [f"ended with {code}: {said.strip()}"]


def difference(expected: Any, found: Any, where: str = "") -> str:
    """Return where two outcomes differ first, in words."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys(), key=str):
            if key not in found or key not in expected:
                return f"{where}/{key} is {'missing' if key not in found else 'new'}"
            if expected[key] != found[key]:
                return difference(expected[key], found[key], f"{where}/{key}")
    return f"{where} is {str(found)[:300]}, was {str(expected)[:300]}"


@contextmanager
def _copied(template: Path, scratch: Path, bucket: Bucket | None) -> Iterator[Work]:
    """Yield a copy of a folder, hard links within kept, always at the same path; its folder `remote` in a bucket, if any."""
    folder = scratch / "work"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["cp", "-a", template, folder], check=True)
    yield Work(folder=folder) if bucket is None else Work(folder=folder, bucket=bucket, address=bucket.send(folder / "remote"))
    shutil.rmtree(folder, ignore_errors=True)


def need_compiler() -> None:
    """Skip where no C compiler is: file events are counted by a small library."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc), so file events cannot be counted")
