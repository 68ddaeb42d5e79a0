"""Runs commands of Stopdown, each in a forked child of one warm process: `python tests/many_commands.py` reads lists of cases,
a line each, and answers each with a line.

A case is {"args": [...]} and what it changes: "cwd", "encoding" of the output, descriptors that are "closed" or "full"
(/dev/full), "interrupt" (SIGINT at its file event of this number), "file_bytes" (the largest file it may write). The answer is
its exit code, or minus the signal that ended it, and what it printed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import resource
import select
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Not query: duckdb starts threads as it is imported, and a forked child would wait for them at its end.
WARM = tuple(f"generator.commands.{name}" for name in ("build", "verify", "log", "commit", "clone", "export", "merge"))
FILE_EVENTS = ("open", "os.scandir", "os.link", "os.rename", "os.mkdir", "os.remove", "os.utime")
LONGEST_S = 120  # of one command, on a busy machine
START_S = 600


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def is_one_line(self) -> bool:
        """Whether what went wrong is said in one line."""
        return self.err.startswith("stopdown: ") and self.err.count("\n") == 1


def run_commands(
    cases: Sequence[Mapping[str, Any]], *, before: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> list[Answer]:
    """Run cases in order; `before` are the words of a program that starts the warm process, as `setpriv` does.

    A process is kept for the next cases with the same program and environment.
    """
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, **(env or {})}
    environment.pop("PYTEST_CURRENT_TEST", None)  # of no meaning there, and another in every test
    warm = _warm((*before, sys.executable, __file__), tuple(sorted(environment.items())))
    assert warm.stdin is not None and warm.stdout is not None
    warm.stdin.write(json.dumps(list(cases)) + "\n")
    warm.stdin.flush()
    if not select.select([warm.stdout], [], [], START_S + LONGEST_S * len(cases))[0]:
        os.killpg(warm.pid, signal.SIGKILL)
    said = warm.stdout.readline()
    assert said, f"no answer: the warm process of {__file__} ended"
    return [Answer(**answer) for answer in json.loads(said)]


@functools.cache
def _warm(words: tuple[str, ...], environment: tuple[tuple[str, str], ...]) -> subprocess.Popen[str]:
    """Return a running warm process; its end is the end of its input."""
    warm = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment), start_new_session=True
    )
    atexit.register(_end, warm)
    return warm


def _end(warm: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
        os.killpg(warm.pid, signal.SIGKILL)
    warm.wait()


def _interrupt_at(number: int) -> None:
    left = [number]

    def hook(event: str, _: object) -> None:
        if event in FILE_EVENTS:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGINT)

    sys.addaudithook(hook)


def _run(case: Mapping[str, Any], out: int, err: int) -> None:
    """Run a case in this process, which ends."""
    import stopdown

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for number in case.get("full", ()):
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    os.chdir(case.get("cwd", "."))
    if "file_bytes" in case:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (case["file_bytes"],) * 2)
    signal.alarm(LONGEST_S)  # what waits for ever fails, and does not hang the tests
    sys.stdout, sys.stderr = (open(n, "w", encoding=case.get("encoding", "utf-8"), closefd=False) for n in (1, 2))  # noqa: SIM115
    for number in case.get("closed", ()):
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)
    sys.argv = ["stopdown", *case["args"]]
    if "interrupt" in case:
        _interrupt_at(case["interrupt"])
    stopdown.main()


def _answer(case: Mapping[str, Any]) -> dict[str, Any]:
    """Fork for a case; what it says comes by pipes, which have no limits of files."""
    pipes = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        _run(case, pipes[0][1], pipes[1][1])
    texts = ["", ""]
    with selectors.DefaultSelector() as open_pipes:
        for number, (end, writing) in enumerate(pipes):
            os.close(writing)
            open_pipes.register(end, selectors.EVENT_READ, number)
        while open_pipes.get_map():
            for key, _ in open_pipes.select():
                piece = os.read(key.fd, 2**16)
                if not piece:
                    open_pipes.unregister(key.fd)
                    os.close(key.fd)
                texts[key.data] += piece.decode("utf-8", "backslashreplace")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"code": code, "out": texts[0], "err": texts[1]}


if __name__ == "__main__":
    for name in ("stopdown", *WARM):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is loaded is shared by all forks; collecting it at each one's end would copy it all
    for line in sys.stdin:
        sys.stdout.write(json.dumps([_answer(case) for case in json.loads(line)]) + "\n")
        sys.stdout.flush()
