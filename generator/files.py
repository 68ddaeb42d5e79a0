"""Durable file writing: a reader sees the old file or the new one, never a part; what is said to be written is on the disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from scenes.errors import StopdownError


class DamagedError(StopdownError):
    """A stored file is missing, truncated or changed."""

    exit_code = 1


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(target: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file by temporary file, fsync and rename; nothing is left behind when it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_temporary(target.parent, data, mode=mode)
    try:
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)


def write_temporary(folder: Path, data: bytes, *, mode: int) -> Path:
    """Write and fsync a temporary file in a folder; the name begins with `.tmp-`."""
    descriptor, name = tempfile.mkstemp(prefix=".tmp-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    return Path(name)
