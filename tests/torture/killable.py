"""Runs work in forks of one process that has imported everything and sees every file event (`file_events.c`, preloaded).

`python killable.py MODULE[:FUNCTION]…` imports the modules and calls the functions, then reads one JSON object a line:
{"work": "module:function", "words": […], "log": file, "environ": {…}}, and answers each with {"code": exit code, -9 for a
killed one}. Who asks has written the orders.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence


def stopdown(words: Sequence[str]) -> None:
    """Be the command `stopdown`."""
    command = importlib.import_module("stopdown")
    sys.argv = ["stopdown", *words]
    command.main()


def work(order: dict[str, object]) -> int:
    """Do the work in this process, which is a fork, and return its exit code."""
    os.setsid()  # a kill hits this process group: the work and the processes that it starts
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["environ"])  # type: ignore[call-overload]
    module, _, name = str(order["work"]).partition(":")
    try:
        getattr(importlib.import_module(module), name)(order["words"])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def main() -> None:
    """Fork for each line, wait, answer."""
    for module, _, warm in (name.partition(":") for name in sys.argv[1:]):
        loaded = importlib.import_module(module)
        if warm:  # what is imported where it is first needed is then imported once
            getattr(loaded, warm)()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 70
            try:
                code = work(json.loads(line))
                sys.stdout.flush()
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # whoever it had started and did not end
        sys.stdout.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
