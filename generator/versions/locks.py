"""Locks between processes: advisory, held by an open file, released by the system however a process ends.

`writing` is shared by everyone who puts objects and is about to name them; `collecting` is exclusive, for gc. A reference is
swapped under `swapping`. Builds and restores hold the dataset's build lock as well.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scenes.errors import InputError

_POLL_S = 0.02


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Share the store with other writers while keeping gc out; waits for a running gc. `root` is DATASET/.stopdown."""
    with _held(root / "gc.lock", fcntl.LOCK_SH, patience_s=None):
        yield


@contextmanager
def collecting(root: Path, *, patience_s: float = 10.0) -> Iterator[None]:
    """Have the store alone; raises InputError when writers do not let go within `patience_s`."""
    with _held(root / "gc.lock", fcntl.LOCK_EX, patience_s=patience_s):
        yield


@contextmanager
def swapping(root: Path) -> Iterator[None]:
    """Hold the references still for a compare-and-swap."""
    with _held(root / "refs.lock", fcntl.LOCK_EX, patience_s=None):
        yield


@contextmanager
def _held(file: Path, kind: int, *, patience_s: float | None) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        if patience_s is None:
            fcntl.flock(descriptor, kind)
        else:
            _wait(descriptor, kind, time.monotonic() + patience_s, file)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, kind: int, deadline_s: float, file: Path) -> None:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise InputError(
                    f"others are writing to {file.parent.parent}, so nothing was collected; try again when they are done"
                ) from None
            time.sleep(_POLL_S)
