"""Runs a command of Stopdown in a process of its own, which does not outlive this one."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from generator.processes.children import stopdown_command
from trainer.errors import StageFailedError

SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


def run_command(arguments: Sequence[str], *, stdout: Path | None = None) -> None:
    """Run `stopdown ARGUMENTS` on this terminal; its output goes to a file where one is given.

    Raises StageFailedError when it fails. The command is ended by the system when this process is killed, so that running
    again never finds it still at work (Linux; elsewhere it may go on).
    """
    words = stopdown_command(*arguments)
    with subprocess.Popen(
        words,
        stdout=None if stdout is None else stdout.open("wb"),
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    ) as child:
        try:
            code = child.wait()
        except KeyboardInterrupt:  # the terminal told the child as well; let it put its work in order
            child.wait()
            raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise StageFailedError(f"`stopdown {' '.join(arguments)}` ended with exit code {code}; see what it said above")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGTERM)
