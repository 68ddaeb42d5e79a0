"""Remotes: a copy of a dataset's history in another folder or in S3-compatible storage, in the layout of `.stopdown/`.

A remote holds objects, records of clips, version files, tags and the head. Files are put only where there is none; references
move by compare-and-swap. `folder` and `s3` are the two kinds. Which way references may move, and moving the bytes, is
`generator.versions.sync`.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from generator.errors import DamagedError
from scenes.errors import InputError

_FILE = re.compile(
    r"head\.json|tags/[A-Za-z0-9][A-Za-z0-9._-]{0,63}\.json|versions/[0-9a-f]{64}\.json"
    r"|objects/[0-9a-f]{2}/[0-9a-f]{64}|records/[0-9a-f]{2}/[0-9a-f]{64}\.json"
    r"|plan\.json|plan/[0-9]{6}\.jsonl|farm\.json|farm-probe\.json|farm/[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.json|scenes/[0-9a-f]{64}\.blend"
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Remote(Protocol):
    """Where a history is copied to and from; paths are relative to its `.stopdown/` and of the known forms only."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    def check(self) -> None:
        """Raise RemoteError where no dataset can be read; changes nothing."""

    def prepare(self) -> None:
        """Raise RemoteError where no dataset can be written to; changes nothing that a reader sees."""

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, unproven, or None where there is none."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of every file under a folder, by path."""

    def put(self, path: str, data: bytes | Path) -> bool:
        """Write a file, of bytes or of those of a file here, whole and durable, where there is none; return whether there was
        none."""

    def swap(self, path: str, expected: bytes | None, data: bytes) -> bool:
        """Write a file only if it still holds `expected` (None: is not there); return whether it was written."""

    def overwrite(self, path: str, data: bytes) -> None:
        """Write a file, whole, whatever it held; the last writer wins."""

    def reading(self) -> AbstractContextManager[None]:
        """Keep the remote's garbage collection out while it is read, where its reader can do that."""

    def writing(self) -> AbstractContextManager[None]:
        """Keep the remote's garbage collection out while bytes are put that nothing names yet."""


@dataclass(frozen=True, kw_only=True)
class RemoteOptions:
    """How S3-compatible storage is reached: endpoint URL and region (None: AWS_ENDPOINT_URL, AWS_REGION), without signing.

    What has more than `large_bytes` is uploaded in parts.
    """

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    large_bytes: int = 16 * 2**20


def open_remote(where: str, options: RemoteOptions | None = None) -> Remote:
    """Return the remote at a folder or at `s3://BUCKET/PREFIX`; connects to nothing. Raises InputError for what is neither."""
    if not where.strip() or "\0" in where:
        raise InputError("a remote has no name; give a folder or s3://BUCKET/PREFIX")
    if where.startswith("s3://"):
        from generator.remotes.s3 import S3Remote

        return S3Remote(*s3_place(where), options or RemoteOptions())
    if _SCHEME.match(where):
        scheme = where.split("://", 1)[0]
        raise InputError(f"'{scheme}://' is no kind of remote; give a folder or s3://BUCKET/PREFIX")
    if options is not None and options != RemoteOptions():
        raise InputError(f"{where} is a folder, and an endpoint, a region or --anonymous mean nothing there; leave them out")
    from generator.remotes.folder import FolderRemote

    return FolderRemote(Path(where))


def s3_place(where: str) -> tuple[str, str]:
    """Return bucket and prefix of `s3://BUCKET/PREFIX`; raises InputError for names that could lead elsewhere."""
    if "@" in where:
        raise InputError("an s3:// address holds no credentials; give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    bucket, _, prefix = where.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise InputError(f"'{bucket}' cannot name a bucket; use 3 to 63 of a-z 0-9 . -, as in s3://my-bucket/my-dataset")
    prefix = prefix.removesuffix("/")
    for part in prefix.split("/") if prefix else ():
        if part in ("", ".", "..") or "\\" in part or "%" in part or not part.isprintable():
            raise InputError(f"'{prefix}' cannot be a prefix ('{part}' in it); give plain names between single slashes")
    return bucket, prefix


def checked_path(path: str) -> str:
    """Return a path inside a remote; raises DamagedError for anything but the known forms, so that none leads outside."""
    if not _FILE.fullmatch(path):
        raise DamagedError(f"'{path}' names no file of a dataset's history, so it was not touched; the metadata is damaged")
    return path


def object_file(digest: str) -> str:
    """Return an object's path inside a remote."""
    return checked_path(f"objects/{digest[:2]}/{digest}")


def record_file(key: str) -> str:
    """Return the path of a clip's record inside a remote."""
    return checked_path(f"records/{key[:2]}/{key}.json")


def version_file(version_id: str) -> str:
    """Return the path of a version's file inside a remote."""
    return checked_path(f"versions/{version_id}.json")


def same_folder(one: Path, other: Path) -> bool:
    """Return whether two paths are one folder."""
    return one.exists() and other.exists() and one.samefile(other)
