"""Runs work in forks of one process that has imported everything and sees every file event (`file_events.c`, preloaded).

`python killable.py MODULE[:FUNCTION]…` imports the modules and calls the functions, then reads one JSON object a line:
{"work": "module:function", "words": […], "folder": where, "log": file, "environ": {…}, "longest_s": seconds}, and answers each
with {"code": exit code, -9 for a killed one, "late": whether it was killed for its time}. Who asks has written the orders.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from generator.console.command_line import command_line

TRACEBACK = 70  # the exit code of what ended in none of the ways that a command may end in


def stopdown(words: Sequence[str]) -> None:
    """Be the command `stopdown`."""
    command = importlib.import_module("stopdown")
    sys.argv = ["stopdown", *words]
    command.main()


def work(order: dict[str, object]) -> int:
    """Do the work in this process, which is a fork, and return its exit code."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.setsid()  # a kill hits this process group: the work and the processes that it starts
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["environ"])  # type: ignore[call-overload]
    os.chdir(str(order["folder"]))
    module, _, name = str(order["work"]).partition(":")
    function = getattr(importlib.import_module(module), name)
    try:
        command_line(lambda: function(order["words"]))  # what is no command of its own ends as one, too
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        os.write(2, traceback.format_exc().encode())  # the command may have taken or closed its own error stream
    return TRACEBACK


def wait_for(child: int, longest_s: int) -> tuple[int, bool]:
    """Return how a child ended, and whether it had to be killed for its time; whatever it started is ended, too."""
    late = []

    def kill(*_: object) -> None:
        late.append(True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.alarm(longest_s)
    status = os.waitpid(child, 0)[1]
    signal.alarm(0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # whoever it had started and did not end
    return os.waitstatus_to_exitcode(status), bool(late)


def main() -> None:
    """Fork for each line, wait, answer."""
    for module, _, warm in (name.partition(":") for name in sys.argv[1:]):
        loaded = importlib.import_module(module)
        if warm:  # what is imported where it is first needed is then imported once
            getattr(loaded, warm)()
    gc.collect()
    gc.freeze()  # what is loaded is shared by all forks; collecting it in each would copy it all
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            code = TRACEBACK
            try:
                code = work(order)
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        code, late = wait_for(child, order["longest_s"])
        sys.stdout.write(json.dumps({"code": code, "late": late}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
