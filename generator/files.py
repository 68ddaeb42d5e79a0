"""Durable file writing: a reader sees the old file or the new one, never a part; what is said to be written is on the disk."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from scenes.errors import InputError, StopdownError

_PIECE_BYTES = 2**20


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


@contextlib.contextmanager
def alone(place: Path, busy: str) -> Iterator[None]:
    """Hold a folder, or a lock file that is made where it is not there; the system lets go however the process ends.

    Raises InputError with the words `busy` where another process holds it.
    """
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY if place.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(busy) from None
        yield
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes, as hex; a piece of it is held at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_pieces(target: Path, pieces: Iterable[bytes]) -> None:
    """Write a file that need not survive a power cut, piece by piece."""
    with target.open("wb") as file:
        file.writelines(pieces)


def write_atomic(target: Path, data: bytes | Path, *, mode: int = 0o644) -> None:
    """Write bytes, or those of a file, by temporary file, fsync and rename; nothing is left behind when it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_temporary(target.parent, data, mode=mode)
    try:
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)


def write_temporary(folder: Path, data: bytes | Path, *, mode: int) -> Path:
    """Write and fsync a temporary file in a folder, of bytes or of those of a file; the name begins with `.tmp-`."""
    descriptor, name = tempfile.mkstemp(prefix=".tmp-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(data, Path):
                with data.open("rb") as source:
                    shutil.copyfileobj(source, file, _PIECE_BYTES)
            else:
                file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    return Path(name)
