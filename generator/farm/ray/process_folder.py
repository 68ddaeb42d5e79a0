"""Folders of processes that may be killed: each holds a lock while it lives, and the next of its kind sweeps the dead."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from generator.io.file_lock import exclusive_lock
from scenes.errors import InputError

YOUNG_S = 60.0  # one made just now may not hold its lock yet
LOCK = "lock"


@contextmanager
def process_folder(kind: str, base: Path | None = None) -> Iterator[Path]:
    """Yield a folder of this process (`base` None: below the system's temporary one), gone afterwards.

    Those of the same kind whose processes are gone are removed first: a process that was killed left them.
    """
    base = base if base is not None else Path(tempfile.gettempdir())
    prefix = f"stopdown-{kind}-"
    for other in base.glob(f"{prefix}*"):
        with suppress(OSError, InputError):
            if time.time() - other.stat().st_mtime > YOUNG_S:
                with exclusive_lock(other / LOCK, "its process lives"):
                    shutil.rmtree(other, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    try:
        with exclusive_lock(folder / LOCK, "its process lives"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
