"""A remote in a folder: another dataset, or an empty folder that becomes one. Bytes are copied, never linked: a copy that
shares its bytes with the original would be damaged with it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from generator.errors import RemoteError
from generator.io.atomic import FULL, fsync_folder, place, write_atomic, write_temporary
from generator.remotes.base import checked_path
from generator.versions.history.history import INTERNAL
from generator.versions.history.locks import reading, swapping, writing
from generator.versions.working.compare import check_folders


class FolderRemote:
    """The history under FOLDER/.stopdown."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / INTERNAL

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.path)

    def check(self) -> None:
        """Raise RemoteError where there is no dataset."""
        with self._reported():
            self._check_folder()
            if not self.root.is_dir() or self.root.is_symlink():
                raise RemoteError(f"{self.path} is not a Stopdown dataset (it has no folder {INTERNAL}); give one that is")

    def prepare(self) -> None:
        """Make `.stopdown` in an empty folder; raises RemoteError for a folder that holds something else."""
        with self._reported():
            self._check_folder()
            check_folders(self.path)
            if not self.root.exists():
                if any(entry.name != INTERNAL for entry in self.path.iterdir()):
                    raise RemoteError(
                        f"{self.path} is neither a Stopdown dataset nor empty; give a dataset or an empty folder", lasting=True
                    )
                self.root.mkdir(exist_ok=True)  # another worker may begin at the same moment
                fsync_folder(self.path)

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None; a symbolic link in the place of a folder or file is refused."""
        with self._reported():
            try:
                return self._inside(path).read_bytes()
            except FileNotFoundError:
                return None

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes of the files under a folder of the store; temporary files apart."""
        with self._reported():
            return dict(_sizes(self.root / folder, folder))

    def put(self, path: str, data: bytes | Path) -> bool:
        """Write a file by temporary file, fsync and link: the first writer wins."""
        with self._reported():
            target = self._inside(path)
            if target.is_file():
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = write_temporary(target.parent, data, mode=0o444)
            try:
                return place(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def swap(self, path: str, expected: bytes | None, data: bytes) -> bool:
        """Replace a reference under the same lock that commits in that folder take."""
        with self._reported(), swapping(self.root):
            if self.read(path) != expected:
                return False
            write_atomic(self._inside(path), data)
        return True

    def overwrite(self, path: str, data: bytes) -> None:
        """Write a file by temporary file, fsync and rename."""
        with self._reported():
            write_atomic(self._inside(path), data)

    def reading(self) -> AbstractContextManager[None]:
        """Keep the store's gc out while it is read, where that can be."""
        return reading(self.root)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Share the store with other writers while keeping its gc out."""
        with self._reported():
            lock = writing(self.root)
            lock.__enter__()
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    def _check_folder(self) -> None:
        if not self.path.exists():
            raise RemoteError(
                f"{self.path} does not exist; make the folder first, or check that its disk is mounted", lasting=True
            )
        if not self.path.is_dir():
            raise RemoteError(f"{self.path} is a file; give a folder or s3://BUCKET/PREFIX", lasting=True)

    def _inside(self, path: str) -> Path:
        target = self.root
        for part in checked_path(path).split("/"):
            target = target / part
            if target.is_symlink():
                raise RemoteError(f"{target} is a symbolic link where a file of the history belongs; remove it", lasting=True)
        return target

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self.path
            if error.errno in FULL:
                raise RemoteError(
                    f"no space left at {where}; free some and run the same command again", lasting=True
                ) from error
            lasting = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP)
            raise RemoteError(
                f"the remote {where} refuses ({error.strerror}); check it and its permissions", lasting=lasting
            ) from error


def _sizes(place: Path | str, name: str) -> Iterator[tuple[str, int]]:
    """Yield name and size of the files under a folder; links and temporary files are none, nor is what goes meanwhile."""
    try:
        entries = os.scandir(place)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _sizes(entry.path, f"{name}/{entry.name}")
            elif entry.is_file(follow_symlinks=False) and not entry.name.startswith(".tmp-"):
                with suppress(FileNotFoundError):
                    yield f"{name}/{entry.name}", entry.stat(follow_symlinks=False).st_size
