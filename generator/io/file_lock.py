"""Locks between processes: advisory, held by an open file, released by the system however a process ends.

A lock file belongs to everyone who may write to its folder: it is made by umask, and where another person made it, it is
opened for reading, which is enough to hold it. A reader where nothing can be written, or locked, goes without.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from generator.io.atomic import NOT_WRITABLE
from scenes.errors import InputError

_POLL_S = 0.02
# What file systems answer that have no locks; EBADF is NFS, which locks exclusively only what is open for writing.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)


@contextlib.contextmanager
def exclusive_lock(place: Path, busy: str) -> Iterator[None]:
    """Hold a folder, or a lock file that is made where it is not there; the system lets go however the process ends.

    Raises InputError with the words `busy` where another process holds it, and where the file system has no locks.
    """
    with held(place, fcntl.LOCK_EX, busy=busy, timeout_s=0.0):
        yield


@contextlib.contextmanager
def held(place: Path, kind: int, *, busy: str = "", timeout_s: float | None = None) -> Iterator[None]:
    """Hold a lock, shared or exclusive; wait for it without end (None), or so long before InputError says `busy`."""
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _opened(place)
    try:
        _take(descriptor, kind, place, busy, timeout_s)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def shared_if_possible(place: Path) -> Iterator[None]:
    """Share a lock file with other readers and writers, or go without where it can be neither made nor locked."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = _opened(place)
            stack.callback(os.close, descriptor)
            _take(descriptor, fcntl.LOCK_SH, place, "", None)
        except InputError:
            pass  # the file system has no locks
        except OSError as error:
            if error.errno not in (*NOT_WRITABLE, errno.ENOENT):
                raise
        yield


def _opened(place: Path) -> int:
    """Open a folder, or a lock file for writing; for reading where it is there and another person's."""
    if place.is_dir():
        return os.open(place, os.O_RDONLY)
    try:
        return os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        try:
            return os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise error from None


def _take(descriptor: int, kind: int, place: Path, busy: str, timeout_s: float | None) -> None:
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, kind if deadline_s is None else kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if deadline_s is None or time.monotonic() >= deadline_s:
                raise InputError(busy) from None
            time.sleep(_POLL_S)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise InputError(
                f"the file system of {place} has no file locks ({error.strerror}), so writing there could lose work of others; "
                "use a disk that has them, or mount it with locks (NFS: without `nolock`)"
            ) from None
