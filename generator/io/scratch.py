"""Folders that are filled beside their place and then renamed into it; what a killed process left is swept by the next one.

A process holds a lock on its scratch folder while it lives. Unlike those of `tempfile`, the folder has the mode that the umask
leaves, because it becomes what others read.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_RANDOM = "[0-9a-f]{8}"


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder `.NAME-xxxxxxxx` beside a target; it is removed at the end, unless it was renamed by then."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    descriptor, scratch = _made(target)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(descriptor)


def _made(target: Path) -> tuple[int, Path]:
    """Make a folder and hold it; another process may have swept it in between, then it is made again."""
    while True:
        scratch = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
        scratch.mkdir()
        with suppress(FileNotFoundError):
            descriptor = os.open(scratch, os.O_RDONLY)
            if _held(descriptor):
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), scratch.stat()):
                        return descriptor, scratch
            os.close(descriptor)


def _held(descriptor: int) -> bool:
    """Lock a folder just made, and return whether that was not too late: another process may hold it, to sweep it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: then nobody can tell the dead from the living, or sweeps
        return True
    return True


def _sweep(target: Path) -> None:
    """Remove the scratch folders of a target that no process holds."""
    ours = re.compile(rf"\.{re.escape(target.name)}-{_RANDOM}")
    for other in target.parent.glob(".*"):
        if ours.fullmatch(other.name) and other.is_dir() and not other.is_symlink():
            with suppress(OSError):
                descriptor = os.open(other, os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(other, ignore_errors=True)
                finally:
                    os.close(descriptor)
