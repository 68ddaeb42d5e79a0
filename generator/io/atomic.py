"""Durable file writing: a reader sees the old file or the new one, never a part; what is said to be written is on the disk.

Files and folders get the modes that the umask leaves, so that a group can share a dataset. What network file systems lack
(hard links, flushing a folder) is passed over or done in another way.

A killed writer leaves a temporary file. It has a name that follows from this machine and the target, and a lock while its
writer lives, so that whoever writes the target next on this machine can tell that it is left over, and removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp-"  # what the name of every temporary file begins with
_PIECE_BYTES = 2**20
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, a limit on the size of a file
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
# A folder that cannot be opened or flushed: the file system looks after its entries, as databases too take it.
_NO_FOLDER_FSYNC = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EISDIR)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut; where the file system can."""
    descriptor = -1
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FSYNC:
            raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes, as hex; a piece of it is held at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_pieces(target: Path, pieces: Iterable[bytes]) -> None:
    """Write a file that need not survive a power cut, piece by piece."""
    with target.open("wb") as file:
        file.writelines(pieces)


def write_atomic(target: Path, data: bytes | Path, *, mode: int = 0o666) -> None:
    """Write bytes, or those of a file, by temporary file, fsync and rename; nothing is left behind when it fails.

    What a killed write of the same target left is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _own_temporary(target, mode) as file:
        temporary = Path(file.name)
        try:
            _fill(file, data)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    fsync_folder(target.parent)


def write_temporary(folder: Path, data: bytes | Path, *, mode: int) -> Path:
    """Write and fsync a temporary file in a folder, of bytes or of those of a file; the name begins with `.tmp-`.

    `mode` is what the umask takes from, as for `open`. The folder's owner sweeps what the killed left.
    """
    with _made(folder / f"{TEMPORARY}{secrets.token_hex(8)}", mode) as file:
        path = Path(file.name)
        try:
            _fill(file, data)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
    return path


def sweep_left_over(folder: Path) -> None:
    """Remove what killed calls of `write_atomic` on this machine left in a folder; what is being written stays."""
    for path in folder.glob(f"{TEMPORARY}{_machine()}*"):
        _remove_left_over(path)


def _fill(file: BinaryIO, data: bytes | Path) -> None:
    if isinstance(data, Path):
        with data.open("rb") as source:
            shutil.copyfileobj(source, file, _PIECE_BYTES)
    else:
        file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _made(path: Path, mode: int) -> BinaryIO:
    """Make a file with its mode: a mode given later needs fchmod, which not every file system has."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode))


def _own_temporary(target: Path, mode: int) -> BinaryIO:
    """Make the temporary file of a target and hold it; one with a chance name while another process writes the target."""
    path = target.with_name(f"{TEMPORARY}{_machine()}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}")
    _remove_left_over(path)
    with contextlib.suppress(FileExistsError):
        file = _made(path, mode)
        if _ours(file.fileno(), path, without_locks=True):
            return file
        file.close()  # another process took it for left over just then, and removes it
    file = _made(target.with_name(f"{TEMPORARY}{_machine()}{secrets.token_hex(8)}"), mode)
    _ours(file.fileno(), path, without_locks=True)
    return file


def _machine() -> str:
    """Return a few letters that name this machine: locks of a network file system may not reach another."""
    return hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]


def _ours(descriptor: int, path: Path, *, without_locks: bool) -> bool:
    """Lock an open file, and return whether no other process holds it and it still has its name.

    `without_locks` is the answer where the file system has none: nobody can remove another's file there.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return without_locks
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    return False


def _remove_left_over(path: Path) -> None:
    """Remove a temporary file that no process holds."""
    with contextlib.suppress(OSError):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)  # NFS locks only what is open for writing
        except PermissionError:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if _ours(descriptor, path, without_locks=False):
                path.unlink()
        finally:
            os.close(descriptor)


def link(source: Path, target: Path) -> bool:
    """Make a hard link, and return whether the file system has them; raises FileExistsError where there is a target."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def place(temporary: Path, target: Path) -> bool:
    """Make a whole temporary file the target where there is none, and return whether it is; the first writer wins.

    On a file system without hard links two writers at one instant may both be told so; what the later one wrote stays.
    """
    try:
        if not link(temporary, target):  # unlike a rename, a link never replaces
            if target.exists():
                return False
            os.replace(temporary, target)
    except FileExistsError:
        return False
    fsync_folder(target.parent)
    return True


def share(folder: Path) -> None:
    """Give the files under a folder the modes that the umask leaves: some libraries write for the owner only."""
    mask = os.umask(0o022)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            with contextlib.suppress(OSError):  # a file system without modes
                path.chmod(0o666 & ~mask)
