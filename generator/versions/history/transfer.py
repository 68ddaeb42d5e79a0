"""Copying versions from one dataset's store into another's on the same machine: objects and records first, then versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from generator.errors import DamagedError
from generator.io.atomic import file_digest, fsync_folder, link, place, write_temporary
from generator.versions.history.history import History
from generator.versions.history.locks import reading, writing
from generator.versions.history.version import Version
from generator.versions.manifest.leaves import read_leaf


def import_versions(source: History, target: History, version_id: str) -> tuple[str, ...]:
    """Copy a version and its ancestors with all they reach; return the ids that were new, oldest first.

    Objects are hard links where both stores share a file system, and their bytes are verified either way. Raises DamagedError
    when the source is damaged; versions are written last, so nothing incomplete becomes visible.
    """
    with reading(source.root), writing(target.root):
        new = [version for version in source.ancestors(version_id) if not target.version_path(version.id).is_file()]
        for version in reversed(new):
            for digest in reach(source, version):
                _bring(source, target, digest)
            _bring_records(source, target, version)
        for version in reversed(new):
            target.save(version)
    return tuple(version.id for version in reversed(new))


def reach(history: History, version: Version) -> Iterator[str]:
    """Yield every object that a version names, once."""
    seen: set[str] = set()
    manifest = history.manifest(version)
    branches = (branch.digest for branch in manifest.branches)
    for digest in (version.manifest, *branches, *version.plans, *version.files.values()):
        if digest not in seen:
            seen.add(digest)
            yield digest
    for leaf in manifest.leaves:
        rows = read_leaf(history.store, leaf, manifest.schema, ("clip_id", "key", "sha256_bytes", "lossless"))
        digests = [leaf.digest, *rows["sha256_bytes"].to_pylist()]
        digests += [frame for lossless in rows["lossless"].to_pylist() for _, frame in lossless]
        for digest in digests:
            if digest not in seen:
                seen.add(digest)
                yield digest


def _bring(source: History, target: History, digest: str) -> None:
    if target.store.has(digest):
        return
    origin, path = source.store.path(digest), target.store.path(digest)
    if not origin.is_file():
        raise DamagedError(f"object {digest[:12]} is missing from {source.root}; run `stopdown verify` there")
    if file_digest(origin) != digest:
        raise DamagedError(f"object {origin} does not match its sha256; run `stopdown verify` there")
    _link_or_copy(origin, path)


def _bring_records(source: History, target: History, version: Version) -> None:
    """Copy the records of a version's clips, so that a build here finds them finished; one that is there stays."""
    manifest = source.manifest(version)
    for leaf in manifest.leaves:
        for key in read_leaf(source.store, leaf, manifest.schema, ("key",))["key"].to_pylist():
            relative = Path("records") / key[:2] / f"{key}.json"
            if source.store.record(key) is not None and not (target.root / relative).exists():
                _link_or_copy(source.root / relative, target.root / relative)


def _link_or_copy(origin: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if link(origin, path):
            fsync_folder(path.parent)
            return
    except FileExistsError:
        return
    temporary = write_temporary(path.parent, origin, mode=0o444)
    try:
        place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
