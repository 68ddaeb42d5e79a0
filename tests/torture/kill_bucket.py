"""Remotes in a server that speaks S3, on loopback: the folder `remote` of a case is sent there, and fetched again to be looked
at as any other folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from versions_remote_storage import BUCKET, Storage, serving

from generator.versions.history.history import INTERNAL

PREFIX = "sets of killed work/é"  # a name with a space and letters beyond ASCII
LOCKS = ".lock"
UPLOADS = "uploads"  # what is uploaded in parts and was cut off; nothing names it


class StoredRemotes:
    """One remote at a time in a bucket."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.port = int(urlsplit(storage.endpoint).port or 0)
        self.environ = {
            "AWS_ENDPOINT_URL": storage.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def send(self, folder: Path) -> str:
        """Put a folder's store into an empty bucket, and return its address there."""
        self._storage.empty()
        for file in sorted((folder / INTERNAL).rglob("*")):
            if file.is_file() and file.suffix != LOCKS:
                key = f"{PREFIX}/{file.relative_to(folder).as_posix()}"
                self._storage.s3.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
        return f"s3://{BUCKET}/{PREFIX}"

    def fetch(self, address: str, folder: Path) -> None:
        """Make a folder what lies in the bucket."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        pages = self._storage.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{PREFIX}/")
        for key in [entry["Key"] for page in pages for entry in page.get("Contents", ())]:
            target = folder / key.removeprefix(f"{PREFIX}/")
            if target.relative_to(folder).parts[1] != UPLOADS:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self._storage.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


@contextmanager
def stored_remotes() -> Iterator[StoredRemotes]:
    """Run the server."""
    with serving() as storage:
        yield StoredRemotes(storage)
