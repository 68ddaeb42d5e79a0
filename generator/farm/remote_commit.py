"""Committing a version in a remote from records alone: no clip's bytes are fetched.

The version is made by `commit`, in a history of its own in a temporary folder whose store looks to the remote for what it
lacks, and is sent by `push`: objects, manifest and version first, the head by compare-and-swap.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from generator.errors import DamagedError, RemoteError
from generator.farm.contents import Contents
from generator.farm.target import Target
from generator.io.checksummed_json import sha256
from generator.remotes.base import Remote, object_file, version_file
from generator.store.objects import ClipRecord, Store
from generator.versions.commit import CommitOrigin, commit
from generator.versions.history.history import History
from generator.versions.history.version import Software, Version, read_version
from generator.versions.manifest.rows import Evidences
from generator.versions.sync.compare_refs import HEAD, remote_refs
from generator.versions.sync.push import push
from generator.versions.working.curation import refuse_curated

_TRIES = 5


class RemoteStore(Store):
    """A store that has what a remote has; what is read is fetched, verified and kept, what is new stays here."""

    def __init__(self, root: Path, remote: Remote, sizes: Mapping[str, int]) -> None:
        super().__init__(root)
        self._remote, self._sizes = remote, sizes

    def has(self, digest: str) -> bool:
        """Return whether an object is here or there."""
        return super().has(digest) or digest in self._sizes

    def size(self, digest: str) -> int | None:
        """Return the size of an object, here or there."""
        return super().size(digest) if super().has(digest) else self._sizes.get(digest)

    def verified(self, digest: str) -> Path:
        """Return where an object lies here, fetched before if it has to be."""
        if not super().has(digest):
            self.read(digest)
        return super().verified(digest)

    def read(self, digest: str) -> bytes:
        """Return an object's bytes, verified by their hash. Raises DamagedError where it is missing or has another hash."""
        if not super().has(digest):
            data = self._remote.read(object_file(digest))
            if data is None or sha256(data) != digest:
                raise DamagedError(f"{object_file(digest)} at {self._remote.name} is missing or damaged; push it again")
            self.put(data)
        return super().read(digest)


def commit_remote(
    target: Target, made: Contents, records: Mapping[str, ClipRecord], sizes: Mapping[str, int], message: str
) -> Version:
    """Commit clips that are all there as the remote's next version; raises RemoteError, DamagedError.

    Another process may commit meanwhile: this version then follows that one, or is that one where it says the same.
    """
    for _ in range(_TRIES):
        try:
            with tempfile.TemporaryDirectory(prefix="stopdown-commit-") as folder:
                return _commit_once(target, Path(folder), made, records, sizes, message)
        except RemoteError as error:
            if error.lasting:
                raise
            failure = error
            target.retry.sleep(target.retry.wait_s(1))
    raise failure


def _commit_once(
    target: Target,
    folder: Path,
    made: Contents,
    records: Mapping[str, ClipRecord],
    sizes: Mapping[str, int],
    message: str,
) -> Version:
    history, remote = History(folder), target.remote
    history.store = RemoteStore(history.root, remote, sizes)
    _fetch_head(history, remote)
    refuse_curated(history, made.plan.digest, made.labels, remote.name)
    files, software = made.files(history.split_ratios()), Software.here(records.values())
    origin = CommitOrigin(message=message, plans=(made.plan,), software=software, files=files)
    version = commit(history, made.labels, Evidences(records), origin)
    push(history, remote)
    return version


def _fetch_head(history: History, remote: Remote) -> None:
    head = remote_refs(remote).get(HEAD)
    if head is None:
        return
    data = remote.read(version_file(head.version))
    if data is None:
        raise DamagedError(f"version {head.version[:12]} is missing from {remote.name}; push it there from a whole copy")
    history.save(read_version(data, head.version))
    history.refs.swap_head(None, head.version)
