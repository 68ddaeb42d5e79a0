"""Runs commands of Stopdown, each in a forked child of one warm process: `python tests/many_commands.py < CASES.json`.

A case is {"args": [...]} and what it changes: "cwd", "encoding" of the output, descriptors that are "closed" or "full"
(/dev/full), "interrupt" (SIGINT at its file event of this number), "file_bytes" (the largest file it may write). The answer is
its exit code, or minus the signal that ended it, and what it printed.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WARM = tuple(f"generator.commands.{name}" for name in ("build", "verify", "log", "commit", "clone", "export", "query", "merge"))
FILE_EVENTS = ("open", "os.scandir", "os.link", "os.rename", "os.mkdir", "os.remove", "os.utime")
LONGEST_S = 600


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
    """Run cases in order; `before` are the words of a program that starts this one, as `setpriv` does."""
    words = [*before, sys.executable, __file__]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(
        words,
        input=json.dumps(list(cases)),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **(env or {})},
        timeout=LONGEST_S * len(cases),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Answer(**answer) for answer in json.loads(done.stdout)]


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
    json.dump([_answer(case) for case in json.load(sys.stdin)], sys.stdout)
