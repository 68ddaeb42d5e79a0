"""Garbage collection: removes what no version, tag, record or plan reaches, and never beside a writer that could name it.

It holds the build lock and the store for itself; where a build is running it removes nothing. Whatever is damaged stops it,
because a damaged file no longer says what it needs. Files younger than the grace period stay, for writers on machines whose
locks are not seen here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from generator.errors import DamagedError
from generator.io.disk_errors import reported
from generator.store.objects import ClipRecord, Store
from generator.versions.history.history import History
from generator.versions.history.locks import collecting
from generator.versions.history.refs import version_ids
from generator.versions.history.version import Version
from generator.versions.manifest.leaves import read_leaf
from generator.versions.working.compare import FOLDERS, LABELS
from generator.versions.working.working_folder import build_lock
from scenes.errors import InputError

GRACE_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class GcReport:
    """What was removed (or would be, with `dry_run`): counts and bytes; `kept_young` is spared by the grace period."""

    objects: int
    records: int
    versions: int
    temporaries: int
    size_bytes: int
    kept_young: int
    dry_run: bool


@reported
def gc(
    history: History, *, grace_s: float = GRACE_S, uncommitted: bool = False, dry_run: bool = False, timeout_s: float = 10.0
) -> GcReport:
    """Remove what nothing reaches. `uncommitted` also drops finished clips that neither a version nor labels.parquet names.

    Raises InputError while a build or another writer is at work, DamagedError when anything that says what is needed is
    damaged; then nothing is removed.
    """
    if grace_s < 0:
        raise InputError(f"a grace period of {grace_s:g} s is none; give 0 or more")
    with build_lock(history.path), collecting(history.root, timeout_s=timeout_s):
        sweep = _Sweep(history, grace_s, dry_run)
        reached = history.reached()
        if not reached and version_ids(history.root):
            raise DamagedError(f"{history.root} has versions but no head; restore head.json from a copy before collecting")
        return sweep.run(reached, uncommitted)


class _Sweep:
    def __init__(self, history: History, grace_s: float, dry_run: bool) -> None:
        self.history = history
        self.store = history.store
        self.youngest = time.time() - grace_s  # what a writer puts while this sweeps is younger, whatever the grace
        self.dry_run = dry_run
        self.size_bytes = 0
        self.kept_young = 0

    def run(self, reached: dict[str, Version], uncommitted: bool) -> GcReport:
        """Remove in an order that a kill cannot harm: what names things before the things that are named."""
        keys, needed = _needs(self.history, reached)
        records = list(_records(self.store))
        shown = _shown(self.history)
        needed |= shown
        dropped = [record for record in records if uncommitted and record.key not in keys and record.sha256_bytes not in shown]
        dropped = [record for record in dropped if self._old(self._record_path(record.key))]
        gone = {record.key for record in dropped}
        for record in records:
            if record.key not in gone:
                needed |= {record.sha256_bytes, *record.frames.values()}
        strangers = [i for i in version_ids(self.history.root) if i not in reached]
        for version_id in strangers:
            path = self.history.version_path(version_id)
            if not self._old(path):
                needed |= _needs(self.history, {version_id: self.history.load(version_id)})[1]
        temporaries = self._aged(_temporaries(self.history.path))
        versions = self._remove(self.history.version_path(version_id) for version_id in strangers)
        removed_records = self._remove(self._record_path(record.key) for record in dropped)
        objects = self._remove(self.store.path(digest) for digest in self.store.objects() if digest not in needed)
        for path in temporaries:
            self._take(path)
        self._remove(self.store.lost_truths())
        return GcReport(
            objects=objects,
            records=removed_records,
            versions=versions,
            temporaries=len(temporaries),
            size_bytes=self.size_bytes,
            kept_young=self.kept_young,
            dry_run=self.dry_run,
        )

    def _record_path(self, key: str) -> Path:
        return self.store.root / "records" / key[:2] / f"{key}.json"

    def _old(self, path: Path) -> bool:
        status = path.lstat()
        return max(status.st_mtime, status.st_ctime) <= self.youngest

    def _aged(self, paths: Iterable[Path]) -> list[Path]:
        """Return temporary files that are old, as they stand before anything goes.

        A writer that is killed between its two steps leaves a temporary file and an object that are one file under two names.
        Removing either name changes the file's time of change, and the other one would pass for young.
        """
        found = list(paths)
        old = [path for path in found if self._old(path)]
        self.kept_young += len(found) - len(old)
        return old

    def _remove(self, paths: Iterable[Path]) -> int:
        count = 0
        for path in paths:
            if not self._old(path):
                self.kept_young += 1
                continue
            count += 1
            self._take(path)
        return count

    def _take(self, path: Path) -> None:
        self.size_bytes += path.lstat().st_size
        if not self.dry_run:
            path.unlink(missing_ok=True)


def _needs(history: History, versions: dict[str, Version]) -> tuple[set[str], set[str]]:
    """Return the keys of records and the objects that versions need; every leaf is read once."""
    keys: set[str] = set()
    needed: set[str] = set()
    read: set[str] = set()
    for version in versions.values():
        needed |= {version.manifest, *version.plans, *version.files.values()}
        manifest = history.manifest(version)
        needed |= {branch.digest for branch in manifest.branches}
        for leaf in manifest.leaves:
            if leaf.digest in read:
                continue
            read.add(leaf.digest)
            rows = read_leaf(history.store, leaf, manifest.schema, ("clip_id", "key", "sha256_bytes", "lossless"))
            keys |= set(rows["key"].to_pylist())
            needed |= set(rows["sha256_bytes"].to_pylist())
            needed |= {digest for frames in rows["lossless"].to_pylist() for _, digest in frames}
    return keys, needed | read


def _shown(history: History) -> set[str]:
    """Return the clip objects that the folder's label table names, committed or not."""
    path = history.path / LABELS
    if not path.is_file():
        return set()
    try:
        return set(pq.read_table(path, columns=["sha256_bytes"])["sha256_bytes"].to_pylist())
    except (pa.ArrowException, OSError, KeyError):
        raise DamagedError(f"{path} cannot be read, so what it needs is not known; restore it before collecting") from None


def _records(store: Store) -> Iterator[ClipRecord]:
    for path in sorted((store.root / "records").glob("??/*.json")):
        record = store.record(path.stem)
        if record is not None:
            yield record


def _temporaries(path: Path) -> list[Path]:
    folders = (path, *(path / name for name in FOLDERS), path / ".stopdown")
    found: set[Path] = set()
    for folder in folders:
        if folder.is_dir() and not folder.is_symlink():
            pattern = folder.glob(".tmp-*") if folder == path else folder.rglob(".tmp-*")
            found |= {file for file in pattern if file.is_file() and not file.is_symlink()}
    return sorted(found)
