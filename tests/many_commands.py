"""Runs commands of Stopdown, each in a forked child of one warm process: `python tests/many_commands.py < CASES.json`.

A case is {"args": [...]} and what it changes: "cwd", "env", "encoding" of the output, descriptors that are "closed" or "full"
(/dev/full), "interrupt" (SIGINT at its file event of this number), "uid", "gid", "groups", "umask", "file_bytes" (the largest
file it may write). The answer is its exit code, or minus the signal that ended it, and what it printed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import stopdown


def interrupt_at(number: int) -> None:
    """Send this process SIGINT at its file event of this number, from 1."""
    left = [number]

    def hook(event: str, _: object) -> None:
        if event in ("open", "os.scandir", "os.link", "os.rename", "os.mkdir", "os.remove", "os.utime"):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGINT)

    sys.addaudithook(hook)


def become(case: dict[str, Any]) -> None:
    """Take the place, person and limits of a case."""
    os.chdir(case.get("cwd", "."))
    os.environ.update(case.get("env", {}))
    if "umask" in case:
        os.umask(case["umask"])
    if "uid" in case:
        os.setgroups(case.get("groups", []))
        os.setgid(case["gid"])
        os.setuid(case["uid"])
    if "file_bytes" in case:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (case["file_bytes"],) * 2)


def run(case: dict[str, Any], out: int, err: int) -> None:
    """Run a case in this process, which ends."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    for number in case.get("full", ()):
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    become(case)
    signal.alarm(120)  # what waits for ever fails, and does not hang the tests
    encoding = case.get("encoding", "utf-8")
    sys.stdout, sys.stderr = (open(number, "w", encoding=encoding, closefd=False) for number in (1, 2))  # noqa: SIM115
    for number in case.get("closed", ()):
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)
    sys.argv = ["stopdown", *case["args"]]
    if "interrupt" in case:
        interrupt_at(case["interrupt"])
    stopdown.main()


def answer(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case in a child and return what came of it."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            run(case, out.fileno(), err.fileno())  # its own exit, or a traceback, is the test's business
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace"))
    return {"code": code, "out": texts[0], "err": texts[1]}


if __name__ == "__main__":
    for name in json.loads(os.environ.get("WARM", "[]")):
        __import__(name)
    assert Path("/dev/full").exists()
    json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)
