"""Trying again where a store is busy or unreachable: exponential back-off with full jitter, bounded."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from generator.errors import RemoteError

T = TypeVar("T")


def _drawn() -> float:
    return random.SystemRandom().random()  # a function, so that a retry can be sent to another process


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often and how long apart: the n-th wait is uniform in [0, min(most_s, first_s * 2**n)] seconds.

    `uniform` draws from [0, 1); its default takes the system's entropy, so that machines started together part ways.
    """

    attempts: int = 6
    first_s: float = 0.25
    most_s: float = 15.0
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[], float] = _drawn

    def wait_s(self, failures: int) -> float:
        """Return the seconds to wait after so many failures (from 1)."""
        return self.uniform() * min(self.most_s, self.first_s * 2.0 ** (failures - 1))

    def of(self, step: Callable[[], T]) -> T:
        """Return what a step returns; it is tried again after a RemoteError that may pass, and must bear being repeated."""
        failures = 0
        while True:
            try:
                return step()
            except RemoteError as error:
                failures += 1
                if error.lasting or failures >= self.attempts:
                    raise
                self.sleep(self.wait_s(failures))
