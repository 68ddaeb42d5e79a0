"""The locks of a dataset's history, files under DATASET/.stopdown.

`writing` is shared by everyone who puts objects and is about to name them, `reading` by everyone who copies from a history that
may not be theirs to write to; `collecting` is exclusive, for gc. A reference is swapped under `swapping`. Builds and restores
hold the dataset's build lock as well.
"""

from __future__ import annotations

import fcntl
from contextlib import AbstractContextManager
from pathlib import Path

from generator.io.file_lock import held, shared_if_possible


def writing(root: Path) -> AbstractContextManager[None]:
    """Share the store with other writers while keeping gc out; waits for a running gc. `root` is DATASET/.stopdown."""
    return held(root / "gc.lock", fcntl.LOCK_SH)


def reading(root: Path) -> AbstractContextManager[None]:
    """Keep gc out while this reader reads; without a lock where the folder or its file system allows none."""
    return shared_if_possible(root / "gc.lock")


def collecting(root: Path, *, timeout_s: float = 10.0) -> AbstractContextManager[None]:
    """Have the store alone; raises InputError when writers do not let go within `timeout_s`."""
    busy = f"others are writing to {root.parent}, so nothing was collected; try again when they are done"
    return held(root / "gc.lock", fcntl.LOCK_EX, busy=busy, timeout_s=timeout_s)


def swapping(root: Path) -> AbstractContextManager[None]:
    """Hold the references still for a compare-and-swap."""
    return held(root / "refs.lock", fcntl.LOCK_EX)
