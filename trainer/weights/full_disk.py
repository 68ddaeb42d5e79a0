"""A full disk in one line: what could not be written, and that nothing half-written stays."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from generator.io.atomic import FULL
from trainer.errors import DiskFullError


@contextmanager
def full_disk_in_words(where: Path, then: str) -> Iterator[None]:
    """Turn a write that found no room, below `where` or elsewhere, into one line that ends with what to do.

    What it wraps raises DiskFullError.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = no_room(error)
        if why is None:
            raise
        place = getattr(error, "filename", None) or where
        raise DiskFullError(f"no room left to write {place} ({why}); nothing half-written stays; {then}") from error


def no_room(error: BaseException) -> str | None:
    """Return the system's words for a full disk if an error, or one that it came from, is about one; None for any other."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL:
            return cause.strerror or errno.errorcode[cause.errno]
        if isinstance(cause, SafetensorError):  # its library writes files itself and has the error number in its words
            for number in FULL:
                if f"os error {number})" in str(cause):
                    return errno.errorcode[number]
        cause = cause.__cause__ or cause.__context__
    return None


def free_bytes(folder: Path) -> int:
    """Return the room on the disk that holds a folder, which need not be there yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def size_in_words(size: float) -> str:
    """Return a number of bytes for people: `1.9 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
