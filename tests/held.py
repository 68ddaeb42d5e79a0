"""Holds a build at a known point until it is killed or let go, so that a busy machine never lets it end before a test acts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TextIO

from generator.console.progress import JsonProgress

VARIABLE = "STOPDOWN_TEST_HOLD"  # CLIPS:FILE; read by tests/hold_in_child/sitecustomize.py


def wait_while(file: Path) -> None:
    """Wait until a file is gone, or the process that started this one."""
    parent = os.getppid()
    while file.exists() and os.getppid() == parent:
        time.sleep(0.01)


class HeldProgress(JsonProgress):
    """JSON lines that wait, while a file exists, from the moment when so many clips are finished.

    With 0 clips it waits when the first render process has loaded Blender. The parent of the build waits in the middle of its
    work: render processes finish the scenes that they have, and get no others.
    """

    def __init__(self, stream: TextIO, clips: int, file: Path) -> None:
        super().__init__(stream)
        self._clips, self._file, self._done = clips, file, 0

    def worker(self, number: int, state: str) -> None:
        """Write the state; wait at the first idle process if no clip is to be finished."""
        super().worker(number, state)
        if self._clips == 0 and state == "idle":
            wait_while(self._file)

    def done(self, clip_id: str) -> None:
        """Write a finished clip; wait if it is the last one allowed."""
        super().done(clip_id)
        self._done += 1
        if self._done >= self._clips:
            wait_while(self._file)
