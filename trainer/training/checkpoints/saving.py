"""When a run writes a checkpoint besides at the steps its settings name, and what it does when the disk is full.

By time: so that a kill loses no more than the work of `checkpoints.minutes`, unless writing takes more than a tenth of that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from trainer.errors import DiskFullError
from trainer.weights.full_disk import free_bytes, size_in_words

WORTH = 10.0  # times as long as the last checkpoint took to write pass before the next one by time
SPARE_BYTES = 2**20  # for file systems' own records
LOOK_EVERY_S = 5.0
LOG = logging.getLogger("stopdown.checkpoint")


class Clock:
    """Says when a checkpoint is due by time. `minutes` of 0 means never."""

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = 60.0 * minutes
        self._now = now
        self._saved_s = now()
        self._took_s = 0.0

    def due(self, step_s: float) -> bool:
        """Return whether waiting for one more step, which takes `step_s`, would put too much work at risk."""
        if not self._limit_s:
            return False
        return self._now() - self._saved_s + step_s >= max(self._limit_s, WORTH * self._took_s)

    def written(self, began_s: float) -> None:
        """A checkpoint that was begun at `began_s` (`now`) is on the disk."""
        self._saved_s = self._now()
        self._took_s = self._saved_s - began_s

    def now(self) -> float:
        """Return the time, in seconds."""
        return self._now()


def wait_for_room(
    folder: Path,
    needed_bytes: int,
    asked_to_stop: Callable[[], bool],
    *,
    free: Callable[[Path], int] = free_bytes,
    sleep: Callable[[float], None] = time.sleep,
    waiting: Callable[[], None] = lambda: None,
) -> None:
    """Return once there is room for a checkpoint: training pauses rather than losing its work, and says so once.

    `waiting` is called every few seconds of it. Raises DiskFullError when the run is asked to stop before there is.
    """
    needed = needed_bytes + SPARE_BYTES
    said = False
    while (room := free(folder)) < needed:
        words = (
            f"a checkpoint of {size_in_words(needed_bytes)} does not fit on the disk of {folder}, {size_in_words(room)} free"
        )
        if asked_to_stop():
            raise DiskFullError(f"{words}; free some space and run the same command again: it goes on from the one before")
        if not said:
            LOG.warning("%s: training pauses until there is room; free some space, or stop it with Ctrl-C", words)
            said = True
        sleep(LOOK_EVERY_S)
        waiting()
    if said:
        LOG.warning("there is room again: training goes on")
